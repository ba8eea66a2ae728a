//! The signed OpenPGP message again, put together from a clear mail and the packet of its signature: nothing else of the message needs to
//! be kept. It verifies nothing.
//!
//! ```text
//! OnePassSig   Literal (in parts, when it is very long)   Signature
//! ```

use std::collections::VecDeque;
use std::io::{self, Cursor, Read};

use openpgp::Packet;
use openpgp::packet::Tag;
use openpgp::parse::Parse as _;
use openpgp::serialize::Serialize as _;
use sequoia_openpgp as openpgp;

use super::SealError;
use super::packets;

const WHAT: &str = "signature";
/// A packet's first byte in the format of RFC 9580 (section 4.2.1) says which packet it is.
const NEW_FORMAT: u8 = 0xc0;
/// A literal of bytes without a name and a time (RFC 9580 section 5.9).
const LITERAL_HEAD: [u8; 6] = [b'b', 0, 0, 0, 0, 0];
/// A longer literal comes in parts (RFC 9580 section 4.2.1.4): its length has four bytes.
const WHOLE_MAX: u64 = 0xffff_ffff;
/// A part of a longer one, and the byte that says so: 2 to the power of 30.
const PART: u64 = 1 << 30;
const PART_BYTE: u8 = 0xe0 + 30;

/// Whether these bytes begin as the packet of a signature does, and not as a message.
pub fn is_signature(beginning: &[u8]) -> bool {
    beginning.first() == Some(&(NEW_FORMAT | u8::from(Tag::Signature)))
}

/// What comes out next: bytes of the frame, then so many of the mail.
type Step = (Cursor<Vec<u8>>, u64);

/// A signed message as it is read.
#[derive(Debug)]
struct SignedMessage<R> {
    steps: VecDeque<Step>,
    mail: R,
}

impl<R: Read> Read for SignedMessage<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some((frame, of_mail)) = self.steps.front_mut() {
            let count = frame.read(into)?;
            if count > 0 || into.is_empty() {
                return Ok(count);
            }
            if *of_mail > 0 {
                let most = usize::try_from(*of_mail).unwrap_or(usize::MAX).min(into.len());
                let count = self.mail.read(&mut into[..most])?;
                if count == 0 {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the mail is shorter than it was"));
                }
                *of_mail -= u64::try_from(count).unwrap_or(u64::MAX);
                return Ok(count);
            }
            self.steps.pop_front();
        }
        Ok(0)
    }
}

/// Longest signature that is accepted, and kept, as a packet.
pub const SIGNATURE_MAX: usize = 16 * 1024;

/// The message that a signature, as [`Opened`](super::Opened) has it, is of: any OpenPGP program can check it. `mail` has `length` bytes.
///
/// # Errors
/// [`SealError::Malformed`] when these bytes are no signature.
pub fn signed_message<R: Read + Send + Sync>(
    signature: &[u8],
    mail: R,
    length: u64,
) -> Result<impl Read + Send + Sync + use<R>, SealError> {
    let malformed = |e: openpgp::anyhow::Error| SealError::malformed(WHAT, e);
    let Packet::Signature(parsed) = Packet::from_bytes(signature).map_err(malformed)? else {
        return Err(SealError::malformed(WHAT, "it is another packet"));
    };
    let issuer = parsed.get_issuers().first().map(openpgp::KeyID::from);
    let issuer = issuer.ok_or_else(|| SealError::malformed(WHAT, "it does not say whose it is"))?;
    let mut frame = Vec::new();
    packets::before(parsed.pk_algo(), parsed.hash_algo(), issuer).serialize(&mut frame).map_err(malformed)?;
    frame.push(NEW_FORMAT | u8::from(Tag::Literal));
    let head = u64::try_from(LITERAL_HEAD.len()).unwrap_or_default();
    let mut steps = VecDeque::new();
    let mut left = length.saturating_add(head);
    let mut before_mail = head;
    while left > WHOLE_MAX {
        frame.push(PART_BYTE);
        push_head(&mut frame, before_mail);
        steps.push_back((Cursor::new(std::mem::take(&mut frame)), PART - before_mail));
        (left, before_mail) = (left - PART, 0);
    }
    frame.push(0xff);
    frame.extend_from_slice(&u32::try_from(left).unwrap_or(u32::MAX).to_be_bytes());
    push_head(&mut frame, before_mail);
    steps.push_back((Cursor::new(frame), left - before_mail));
    let mut end = Vec::new();
    Packet::from(parsed).serialize(&mut end).map_err(malformed)?;
    steps.push_back((Cursor::new(end), 0));
    Ok(SignedMessage { steps, mail })
}

fn push_head(frame: &mut Vec<u8>, before_mail: u64) {
    if before_mail > 0 {
        frame.extend_from_slice(&LITERAL_HEAD);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SecretIdentity, open_mail, seal_mail, strip_encryption, verify_signed};
    use super::*;
    use crate::model::WallTime;

    const NOW: WallTime = WallTime(1_700_000_000_000);

    #[test]
    fn rfc9580_a_clear_mail_and_its_signature_are_the_signed_message_again() {
        let identity = |address: &str| SecretIdentity::generate(&address.parse().unwrap(), NOW).unwrap();
        let (alice, rita) = (identity("alice@acme"), identity("rita@readers"));
        for length in [0, 1, 5000, 300_000] {
            let mail: Vec<u8> = b"From: alice@acme\r\n\r\nhens\r\n".iter().copied().cycle().take(length).collect();
            let (mut sealed, mut clear, mut proved) = (Vec::new(), Vec::new(), Vec::new());
            seal_mail(&mail[..], &alice, &[rita.certificate().clone()], &mut sealed, NOW).unwrap();
            let cap = u64::try_from(length).unwrap();
            let opened = open_mail(&sealed[..], &rita, alice.certificate(), cap, &mut clear).unwrap();
            assert!(clear == mail && is_signature(&opened.signature) && opened.signature.len() < 200);
            let message = || signed_message(&opened.signature, &mail[..], cap).unwrap();
            let again = verify_signed(message(), alice.certificate(), cap, &mut proved).unwrap();
            assert_eq!((again, proved == mail), (opened.clone(), true));
            assert!(verify_signed(message(), rita.certificate(), cap, io::sink()).is_err());
            let mut bytes = Vec::new();
            message().read_to_end(&mut bytes).unwrap();
            assert!(!is_signature(&bytes));
            let mut inside = Vec::new();
            strip_encryption(&sealed[..], &rita, &mut inside).unwrap();
            assert!(!is_signature(&inside));
            if let Some(other) = mail.len().checked_sub(1) {
                assert!(
                    signed_message(&opened.signature, &mail[..other], cap).unwrap().read_to_end(&mut bytes).is_err()
                );
                let mut changed = mail.clone();
                changed[other] ^= 1;
                let changed = signed_message(&opened.signature, &changed[..], cap).unwrap();
                assert!(verify_signed(changed, alice.certificate(), cap, io::sink()).is_err());
            }
        }
    }

    #[test]
    fn rfc9580_a_literal_of_more_than_four_gib_comes_in_parts() {
        let alice = SecretIdentity::generate(&"alice@acme".parse().unwrap(), NOW).unwrap();
        let mut sealed = Vec::new();
        seal_mail(&b"x"[..], &alice, &[alice.certificate().clone()], &mut sealed, NOW).unwrap();
        let signature = open_mail(&sealed[..], &alice, alice.certificate(), 1, io::sink()).unwrap().signature;
        for length in [WHOLE_MAX - 6, WHOLE_MAX - 5, 5 * PART] {
            let mut message = signed_message(&signature, io::repeat(b'x').take(length), length).unwrap();
            let mut parser = openpgp::parse::PacketParser::from_reader(&mut message).unwrap();
            let mut literal = 0;
            while let openpgp::parse::PacketParserResult::Some(mut packet) = parser {
                if matches!(packet.packet, Packet::Literal(_)) {
                    literal = io::copy(&mut packet, &mut io::sink()).unwrap();
                }
                parser = packet.next().unwrap().1;
            }
            assert_eq!(literal, length);
        }
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        for bad in [&b""[..], b"x", &[0xc2, 0, 0], &[0xc2, 200, 4]] {
            assert!(matches!(signed_message(bad, io::empty(), 0), Err(SealError::Malformed { .. })), "{bad:?}");
        }
    }
}
