//! Whether bytes are an OpenPGP message that is encrypted and nothing else (RFC 9580): first the packets that carry its key for each
//! reader, then one of encrypted data. It reads lengths and tags, and opens nothing.

/// Public-key encrypted session key.
const PKESK: u8 = 1;
/// Symmetrically encrypted, integrity protected data.
const SEIP: u8 = 18;

/// One packet: its tag, and how many bytes it and its first piece have; none for a piece that more follow.
fn head(bytes: &[u8]) -> Option<(u8, usize, bool, usize)> {
    let first = *bytes.first()?;
    if first & 0xc0 != 0xc0 {
        // What older programs write is nothing that Roost does.
        return None;
    }
    let (head, more, length) = length(bytes.get(1..)?)?;
    Some((first & 0x3f, 1 + head, more, length))
}

/// Bytes of the length itself, whether another piece follows, and the length (RFC 9580, section 4.2.1).
fn length(bytes: &[u8]) -> Option<(usize, bool, usize)> {
    let first = *bytes.first()?;
    Some(match first {
        0..=191 => (1, false, usize::from(first)),
        192..=223 => (2, false, (usize::from(first) - 192) * 256 + usize::from(*bytes.get(1)?) + 192),
        224..=254 => (1, true, 1 << (first & 0x1f)),
        255 => {
            let four: [u8; 4] = bytes.get(1..5)?.try_into().ok()?;
            (5, false, usize::try_from(u32::from_be_bytes(four)).ok()?)
        }
    })
}

/// Whether a message that begins with `bytes` is sealed: at least one packet for a reader, then encrypted data.
pub(crate) fn begins_sealed(bytes: &[u8]) -> bool {
    after_the_keys(bytes).is_some_and(|rest| head(rest).is_some_and(|(tag, ..)| tag == SEIP))
}

/// Whether `bytes` are a sealed message from the first to the last.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    let Some(mut rest) = after_the_keys(bytes) else { return false };
    let Some((SEIP, mut at, mut more, mut piece)) = head(rest) else { return false };
    while let Some(after) = rest.get(at + piece..) {
        if !more {
            return after.is_empty();
        }
        let Some(next) = length(after) else { return false };
        (rest, (at, more, piece)) = (after, next);
    }
    false
}

fn after_the_keys(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    while let Some((PKESK, at, false, length)) = head(rest) {
        rest = rest.get(at + length..)?;
    }
    (rest.len() < bytes.len()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = &[0xc1, 3, 6, 0, 25];

    #[test]
    fn only_keys_and_then_encrypted_data_count_as_sealed() {
        let encrypted = [0xd2, 4, 2, 9, 2, 6];
        let in_pieces = [&[0xd2, 0xe1][..], &[1, 2], &[0xe2], &[1, 2, 3, 4], &[3], &[7, 8, 9]].concat();
        for sealed in [[KEY, &encrypted].concat(), [KEY, KEY, &encrypted].concat(), [KEY, &in_pieces].concat()] {
            assert!(begins_sealed(&sealed) && is_sealed(&sealed), "{sealed:02x?}");
            assert!(begins_sealed(&sealed[..sealed.len() - 1]) && !is_sealed(&sealed[..sealed.len() - 1]));
            assert!(!is_sealed(&[&sealed[..], b"From: alice@acme\r\n"].concat()), "and something after it");
        }
        let compressed = [0xc8, 4, 1, 9, 2, 6];
        for (what, bytes) in [
            ("no key", encrypted.to_vec()),
            ("compressed data", compressed.to_vec()),
            ("keys and then compressed data", [KEY, &compressed].concat()),
            ("keys alone", KEY.to_vec()),
            ("a signature", vec![0xc2, 4, 1, 9, 2, 6]),
            ("a literal", vec![0xcb, 4, b'b', 0, 0, 0]),
            ("a mail", b"From: alice@acme\r\n\r\n".to_vec()),
            ("nothing", Vec::new()),
        ] {
            assert!(!begins_sealed(&bytes) && !is_sealed(&bytes), "{what}");
        }
    }
}
