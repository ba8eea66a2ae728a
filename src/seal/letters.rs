//! Deflate (RFC 1951) of what has hardly a repetition, as base64 of noise: the more frequent bytes get the shorter codes, and nothing
//! else is looked for but in the header. It never decides whether that is worth it.

use std::io::{self, Write};

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status, Strategy};

use super::deflate::{broken, deflate_beginning};

/// Of so many first bytes repetitions are looked for in what is header; if no empty line is among them, that is all of them.
const BEGINNING: usize = 1024;
/// Bytes that come out at a time, at most.
const OUT: usize = 32 * 1024;

/// Deflates what is written to it.
pub(super) struct Letters<W: Write> {
    /// The beginning, until it is whole.
    beginning: Vec<u8>,
    /// For all that comes behind it.
    rest: Option<Box<Deflate>>,
    out: Vec<u8>,
    to: W,
}

impl<W: Write> Letters<W> {
    pub(super) fn new(to: W) -> Self {
        Self { beginning: Vec::new(), rest: None, out: vec![0; OUT], to }
    }

    /// Writes the end, and gives back what it wrote to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let mut rest = match self.rest.take() {
            Some(rest) => rest,
            None => self.begin()?,
        };
        while step(&mut rest, &[], &mut self.out, DeflateFlush::Finish, &mut self.to)?.1 != Status::StreamEnd {}
        Ok(self.to)
    }

    /// Writes the beginning, which ends at a whole byte, and makes what deflates the rest. The letters behind the last empty line are
    /// of the rest already: each of the two has a code that is made for it alone.
    fn begin(&mut self) -> io::Result<Box<Deflate>> {
        let beginning = std::mem::take(&mut self.beginning);
        let header = beginning.windows(4).rposition(|four| four == b"\r\n\r\n").map_or(beginning.len(), |at| at + 4);
        self.to.write_all(&deflate_beginning(&beginning[..header])?)?;
        // Without header and checksum, as OpenPGP's ZIP has it (RFC 9580, section 9.4).
        let config =
            DeflateConfig { strategy: Strategy::HuffmanOnly, level: 1, window_bits: -15, ..DeflateConfig::default() };
        let mut rest = Box::new(Deflate::new_with_config(config));
        let mut letters = &beginning[header..];
        while !letters.is_empty() {
            let (taken, _) = step(&mut rest, letters, &mut self.out, DeflateFlush::NoFlush, &mut self.to)?;
            letters = &letters[taken..];
        }
        Ok(rest)
    }
}

/// Hands bytes in and writes what comes out; gives how many were taken.
fn step(
    rest: &mut Deflate,
    bytes: &[u8],
    out: &mut [u8],
    flush: DeflateFlush,
    to: &mut impl Write,
) -> io::Result<(usize, Status)> {
    let (taken, made) = (rest.total_in(), rest.total_out());
    let status = rest.compress(bytes, out, flush).map_err(|_| broken())?;
    let count = |now: u64, before: u64| usize::try_from(now - before).map_err(|_| broken());
    to.write_all(out.get(..count(rest.total_out(), made)?).ok_or_else(broken)?)?;
    Ok((count(rest.total_in(), taken)?, status))
}

impl<W: Write> Write for Letters<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.rest.is_none() {
            if self.beginning.len() < BEGINNING {
                let count = bytes.len().min(BEGINNING - self.beginning.len());
                self.beginning.extend_from_slice(&bytes[..count]);
                return Ok(count);
            }
            self.rest = Some(self.begin()?);
        }
        let Some(rest) = &mut self.rest else { return Err(broken()) };
        loop {
            let (taken, _) = step(rest, bytes, &mut self.out, DeflateFlush::NoFlush, &mut self.to)?;
            // A full buffer of what was written before may have to go first.
            if taken > 0 || bytes.is_empty() {
                return Ok(taken);
            }
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        // What is held back for a better code comes with the end.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::deflate::inflate;
    use proptest::prelude::*;

    fn deflated(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut letters = Letters::new(Vec::new());
        for piece in bytes.chunks(piece) {
            letters.write_all(piece).unwrap();
        }
        letters.finish().unwrap()
    }

    fn noise(count: u32) -> Vec<u8> {
        (0..count).flat_map(|i| *blake3::hash(&i.to_be_bytes()).as_bytes()).collect()
    }

    #[test]
    fn rfc1951_any_bytes_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        let letters: Vec<u8> = noise(9000).iter().map(|byte| b"0123456789abcdef"[usize::from(byte % 16)]).collect();
        for bytes in [&b""[..], b"x", b"xy", &[7; 200_000], &all, &noise(9000), &letters, &letters[..OUT]] {
            for piece in [1, 1000, OUT, 1 << 20] {
                assert_eq!(inflate(&deflated(bytes, piece), bytes.len()).unwrap(), bytes, "{} by {piece}", bytes.len());
            }
        }
        assert!(deflated(&letters, 4096).len() < letters.len() * 51 / 100);
        // What no code makes shorter is stored, in blocks of about 16 KiB with five bytes before each.
        assert!(deflated(&noise(9000), 4096).len() < 9000 * 32 + 256);
    }

    #[test]
    fn letters_behind_a_header_have_a_code_of_their_own() {
        let letters: Vec<u8> = noise(400).iter().map(|byte| b"0123456789abcdef"[usize::from(byte % 16)]).collect();
        let mail = [&b"Subject: several sorts of words\r\nX-Of: other letters\r\n\r\n"[..], &letters].concat();
        let (whole, header, alone) = (deflated(&mail, 999), deflated(&mail[..57], 999), deflated(&letters, 999));
        assert_eq!(inflate(&whole, mail.len()).unwrap(), mail);
        assert!(whole.len() <= header.len() + alone.len(), "{} {} {}", whole.len(), header.len(), alone.len());
    }

    #[test]
    fn rfc1951_another_reader_understands_it() {
        let text = b"several sorts of letters, some of them seldom".repeat(3000);
        assert_eq!(miniz_oxide::inflate::decompress_to_vec(&deflated(&text, 999)).unwrap(), text);
    }

    proptest! {
        #[test]
        fn rfc1951_random_bytes_come_back(bytes in proptest::collection::vec(0..40_u8, 0..2000), piece in 1..300_usize) {
            prop_assert_eq!(inflate(&deflated(&bytes, piece), bytes.len()).unwrap(), bytes);
        }
    }
}
