//! Looks for a word in bytes however somebody who does not encrypt may have written it: as it is, folded, in UTF-16, in base64,
//! quoted-printable or hex, and each of these deflated, wherever the deflated bytes may begin. It finds, and never judges.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// Most bytes that are inflated from one place: more than the largest letter of these tests, attachments and all.
const INFLATED_MAX: usize = 1 << 20;
/// Letters that stand between those of a word when it is folded, wrapped, or written with two bytes a letter; and the `=` of
/// quoted-printable, before a digit and before a wrapped line's end.
const BETWEEN: &[u8] = b"\r\n \t\0=";

/// A word, and what it looks like.
pub(crate) struct Word {
    /// As it stands in the mail: letters and digits, so that it has one way only to be written in small letters.
    word: String,
    /// In small letters: itself, reversed, and in hex.
    small: Vec<Vec<u8>>,
    /// In base64, at each of the three places where it may begin in its group; letters beside it are in none of them.
    base64: Vec<Vec<u8>>,
}

impl Word {
    pub(crate) fn new(word: &str) -> Self {
        assert!(word.len() > 11 && word.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()), "{word}");
        let reversed: String = word.chars().rev().collect();
        let small = [word.to_owned(), reversed, hex::encode(word)].map(String::into_bytes).to_vec();
        let base64 = (0..3)
            .map(|skip| {
                let encoded = STANDARD.encode([vec![b' '; skip], word.as_bytes().to_vec()].concat());
                encoded.as_bytes()[4..encoded.len() - 4].to_vec()
            })
            .collect();
        Self { word: word.to_owned(), small, base64 }
    }

    pub(crate) fn text(&self) -> &str {
        &self.word
    }
}

/// Whether `what` is in `bytes`.
pub(crate) fn contains(bytes: &[u8], what: &[u8]) -> bool {
    // Looking for the first byte before comparing is what makes megabytes quick enough in a debug build.
    let Some(first) = what.first() else { return false };
    bytes.iter().enumerate().any(|(at, byte)| byte == first && bytes[at..].starts_with(what))
}

/// Where of `words` is in the bytes, by index, without inflating anything.
fn in_plain(bytes: &[u8], words: &[Word], found: &mut Vec<usize>) {
    let close: Vec<u8> = bytes.iter().copied().filter(|byte| !BETWEEN.contains(byte)).collect();
    let small = close.to_ascii_lowercase();
    for (index, word) in words.iter().enumerate().filter(|(index, _)| !found.contains(index)).collect::<Vec<_>>() {
        if word.small.iter().any(|face| contains(&small, face)) || word.base64.iter().any(|face| contains(&close, face))
        {
            found.push(index);
        }
    }
}

/// Those of `words` that are in the bytes, in whatever way, by index; sorted.
pub(crate) fn found(bytes: &[u8], words: &[Word]) -> Vec<usize> {
    let mut found = Vec::new();
    in_plain(bytes, words, &mut found);
    let shortest = words.iter().map(|word| word.word.len()).min().unwrap_or_default();
    let (mut inflater, mut out) = (Box::new(DecompressorOxide::new()), vec![0; INFLATED_MAX]);
    for at in 0..bytes.len() {
        // Three bits say what kind of block begins here, and one of the four kinds there is not.
        if bytes[at] >> 1 & 3 == 3 {
            continue;
        }
        inflater.init();
        let (status, _, length) =
            decompress(&mut inflater, &bytes[at..], &mut out, 0, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF);
        // What comes before the first error counts too: the rest may be in another file, or in a later piece.
        if length >= shortest && status != TINFLStatus::BadParam {
            in_plain(&out[..length], words, &mut found);
        }
    }
    found.sort_unstable();
    found
}

/// Every file below `folder` whose name or bytes have one of the words, with those.
pub(crate) fn files_with(folder: &Path, words: &[Word]) -> Vec<(PathBuf, Vec<usize>)> {
    let mut all = Vec::new();
    for path in files(folder) {
        let mut here = fs::read(&path).map(|bytes| found(&bytes, words)).unwrap_or_default();
        let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
        in_plain(name.as_bytes(), words, &mut here);
        if !here.is_empty() {
            all.push((path.strip_prefix(folder).unwrap().to_owned(), here));
        }
    }
    all
}

/// Every file below `folder`; sockets and what goes away meanwhile are none.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&path)),
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};

    use super::*;

    const WORD: &str = "canary0123456789abcdef";

    fn words() -> Vec<Word> {
        vec![Word::new("another0123456789abcdef"), Word::new(WORD)]
    }

    /// Bytes that have no structure, before and after what is planted.
    fn noise(count: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; count];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn planted(what: &[u8]) -> Vec<u8> {
        [noise(1013, 1), what.to_vec(), noise(777, 2)].concat()
    }

    fn letter() -> Vec<u8> {
        let lines: String = (0..50_u8).map(|n| format!("{} {WORD}\r\n", hex::encode(noise(24, n)))).collect();
        format!("From: alice@acme\r\nSubject: about {WORD}\r\n\r\n{lines}").into_bytes()
    }

    /// As OpenPGP writes it: a packet of compressed data (RFC 9580, section 5.6), in pieces of known lengths.
    fn compressed_packet(clear: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xc8, 0xe9, 0x01];
        packet.extend(compress_to_vec(clear, 1));
        packet
    }

    #[test]
    fn a_word_is_found_in_every_way_to_write_it() {
        let (upper, reversed) = (WORD.to_uppercase(), WORD.chars().rev().collect::<String>());
        let mut ways: Vec<(&str, Vec<u8>)> = vec![
            ("as it is", WORD.into()),
            ("in large letters", upper.into()),
            ("reversed", reversed.into()),
            ("folded", format!("Subject: {}\r\n {}", &WORD[..9], &WORD[9..]).into()),
            ("UTF-16, little end first", WORD.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            ("UTF-16, big end first", WORD.encode_utf16().flat_map(u16::to_be_bytes).collect()),
            ("hex", hex::encode(WORD).into()),
            ("quoted-printable, wrapped", format!("{}=\r\n{}", &WORD[..5], &WORD[5..]).into()),
            ("quoted-printable, every letter", WORD.bytes().map(|b| format!("={b:02X}")).collect::<String>().into()),
            ("deflated", compress_to_vec(&letter(), 6)),
            ("deflated, only the word", compress_to_vec(WORD.as_bytes(), 9)),
            ("not deflated, but framed as if", compress_to_vec(WORD.as_bytes(), 0)),
            ("zlib", compress_to_vec_zlib(&letter(), 6)),
            ("a packet of compressed data", compressed_packet(&letter())),
            ("cut off", compress_to_vec(&letter(), 6)[..400].to_vec()),
            ("base64 within deflate", compress_to_vec(STANDARD.encode(letter()).as_bytes(), 6)),
        ];
        for skip in 0..3 {
            let text = STANDARD.encode([vec![b'-'; skip], WORD.into(), b" and more".to_vec()].concat());
            ways.push(("base64, wrapped", format!("{}\r\n{}", &text[..14], &text[14..]).into()));
            ways.push(("an encoded word", format!("=?utf-8?B?{text}?=").into()));
        }
        for (way, bytes) in ways {
            assert_eq!(found(&planted(&bytes), &words()), [1], "{way}");
        }
        assert_eq!(found(&planted(b"nothing of the kind"), &words()), Vec::<usize>::new());
    }

    #[test]
    fn a_planted_home_is_found_out_file_by_file() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir_all(at("mirror/alice@acme/ab")).unwrap();
        fs::create_dir_all(at(&format!("keys/{WORD}"))).unwrap();
        fs::write(at("mirror/alice@acme/ab/ab12"), planted(&compressed_packet(&letter()))).unwrap();
        fs::write(at("mirror/alice@acme/ab/ab13"), planted(b"")).unwrap();
        fs::write(at("journal"), planted(WORD.as_bytes())).unwrap();
        fs::write(at(&format!("keys/{WORD}/x")), b"").unwrap();
        let found: Vec<String> =
            files_with(home.path(), &words()).into_iter().map(|(path, _)| path.display().to_string()).collect();
        assert_eq!(found, ["journal".to_owned(), format!("keys/{WORD}/x"), "mirror/alice@acme/ab/ab12".to_owned()]);
    }
}
