//! Deflate (RFC 1951) of what has hardly a repetition, as base64 of noise: the more frequent bytes get the shorter codes, and nothing
//! else is looked for but in the header. It never decides whether that is worth it.
//!
//! zlib's strategy of that name counts and writes letter by letter, at a fifth of the speed, and no library does it otherwise.

use std::io::{self, Write};

use super::deflate::deflate_beginning;
use super::huffman::{BitWriter, Code, code_lengths};

/// Of so many first bytes repetitions are looked for in what is header; if no empty line is among them, that is all of them.
const BEGINNING: usize = 1024;
/// Letters that share a code. Less than fit into a block that is stored (65535).
const BLOCK: usize = 60 * 1024;
/// Codes for letters: 256, and the end of a block.
const LETTERS: usize = 257;
const END: usize = 256;
/// Longest code of a letter, and of what says how long those are, in bits (RFC 1951 section 3.2.7).
const LETTER_BITS: u8 = 15;
const LENGTH_BITS: u8 = 7;
/// The order in which the lengths of the codes for lengths come.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Deflates what is written to it.
pub(super) struct Letters<W: Write> {
    /// The beginning, until it is whole.
    beginning: Option<Vec<u8>>,
    /// The letters of the next block.
    block: Vec<u8>,
    bits: BitWriter,
    to: W,
}

impl<W: Write> Letters<W> {
    pub(super) fn new(to: W) -> Self {
        Self { beginning: Some(Vec::new()), block: Vec::new(), bits: BitWriter::default(), to }
    }

    /// Writes the end, and gives back what it wrote to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.begin()?;
        self.write_block(true)?;
        self.bits.pad();
        self.to.write_all(self.bits.whole_bytes())?;
        Ok(self.to)
    }

    /// Writes the beginning, which ends at a whole byte. The letters behind the last empty line are of the first block already: header
    /// and letters have a code that is made for each alone.
    fn begin(&mut self) -> io::Result<()> {
        let Some(beginning) = self.beginning.take() else { return Ok(()) };
        let header = beginning.windows(4).rposition(|four| four == b"\r\n\r\n").map_or(beginning.len(), |at| at + 4);
        let (header, letters) = beginning.split_at(header);
        self.block.reserve_exact(BLOCK);
        self.block.extend_from_slice(letters);
        self.to.write_all(&deflate_beginning(header)?)
    }

    fn write_block(&mut self, is_last: bool) -> io::Result<()> {
        write_block(&mut self.bits, &self.block, is_last);
        self.block.clear();
        self.to.write_all(self.bits.whole_bytes())?;
        self.bits.drop_whole_bytes();
        Ok(())
    }
}

impl<W: Write> Write for Letters<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(beginning) = &mut self.beginning {
            if beginning.len() < BEGINNING {
                let count = bytes.len().min(BEGINNING - beginning.len());
                beginning.extend_from_slice(&bytes[..count]);
                return Ok(count);
            }
            self.begin()?;
        }
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK {
            self.write_block(false)?;
        }
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        // What is held back for a better code comes with the end.
        Ok(())
    }
}

/// How often each letter is there; the end of the block once.
fn count(block: &[u8]) -> [u32; LETTERS] {
    // Two tables: equal neighbours do not wait for each other.
    let (mut counts, mut odd) = ([0; LETTERS], [0; LETTERS]);
    let (pairs, last) = block.as_chunks::<2>();
    for [even_letter, odd_letter] in pairs {
        counts[usize::from(*even_letter)] += 1;
        odd[usize::from(*odd_letter)] += 1;
    }
    for letter in last {
        counts[usize::from(*letter)] += 1;
    }
    counts.iter_mut().zip(odd).for_each(|(count, odd)| *count += odd);
    counts[END] = 1;
    counts
}

/// One block with a code of its own, or as it is where that is shorter.
fn write_block(bits: &mut BitWriter, block: &[u8], is_last: bool) {
    let counts = count(block);
    let lengths = code_lengths(&counts, LETTER_BITS);
    let header = LengthsHeader::of(&lengths);
    let coded: u64 = counts.iter().zip(&lengths).map(|(count, length)| u64::from(*count) * u64::from(*length)).sum();
    let stored = u64::try_from(block.len() + 5).unwrap_or(u64::MAX) * 8;
    bits.put(u64::from(is_last), 1);
    if coded + header.bits() >= stored {
        return write_stored(bits, block);
    }
    bits.put(2, 2);
    header.write(bits);
    let code = Code::new(&lengths);
    bits.put_all(&code, block);
    bits.put_symbol(&code, END);
}

/// A block without a code (RFC 1951 section 3.2.4), after its first bit.
fn write_stored(bits: &mut BitWriter, block: &[u8]) {
    bits.put(0, 2);
    bits.pad();
    let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
    bits.put(u64::from(length), 16);
    bits.put(u64::from(!length), 16);
    bits.put_bytes(block);
}

/// How long the codes of a block are, as its header says it (RFC 1951 section 3.2.7).
struct LengthsHeader {
    /// A symbol each, with what follows it and how many bits that has.
    steps: Vec<(usize, u64, u32)>,
    /// How long the codes of these symbols are.
    lengths: Vec<u8>,
}

impl LengthsHeader {
    fn of(lengths: &[u8]) -> Self {
        // No distance is ever written; two codes for them are what every reader takes.
        let all: Vec<u8> = lengths.iter().copied().chain([1, 1]).collect();
        let mut steps = Vec::new();
        for run in all.chunk_by(|one, next| one == next) {
            push_run(&mut steps, run[0], run.len());
        }
        let mut counts = [0; 19];
        steps.iter().for_each(|(symbol, ..)| counts[*symbol] += 1);
        Self { lengths: code_lengths(&counts, LENGTH_BITS), steps }
    }

    fn bits(&self) -> u64 {
        let of = |(symbol, _, extra): &(usize, u64, u32)| u64::from(self.lengths[*symbol]) + u64::from(*extra);
        3 + 14 + 19 * 3 + self.steps.iter().map(of).sum::<u64>()
    }

    fn write(&self, bits: &mut BitWriter) {
        // 257 codes for letters, two for distances, all nineteen for lengths.
        bits.put(0, 5);
        bits.put(1, 5);
        bits.put(19 - 4, 4);
        for symbol in ORDER {
            bits.put(u64::from(self.lengths[symbol]), 3);
        }
        let code = Code::new(&self.lengths);
        for (symbol, follows, extra) in &self.steps {
            bits.put_symbol(&code, *symbol);
            bits.put(*follows, *extra);
        }
    }
}

/// A length so many times over.
fn push_run(steps: &mut Vec<(usize, u64, u32)>, length: u8, mut left: usize) {
    if length > 0 {
        steps.push((usize::from(length), 0, 0));
        left -= 1;
    }
    while left > 0 {
        let (symbol, most, least, extra) = match (length, left) {
            (0, 11..) => (18, 138, 11, 7),
            (0, 3..) => (17, 10, 3, 3),
            (_, 3..) => (16, 6, 3, 2),
            _ => (usize::from(length), 1, 1, 0),
        };
        let count = left.min(most);
        steps.push((symbol, u64::try_from(count - least).unwrap_or_default(), extra));
        left -= count;
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
        for bytes in [
            &b""[..],
            b"x",
            b"xy",
            &[7; 200_000],
            &all,
            &noise(9000),
            &letters,
            &letters[..BLOCK],
            &letters[..BLOCK + 1024],
        ] {
            for piece in [1, 1000, BLOCK, 1 << 20] {
                assert_eq!(inflate(&deflated(bytes, piece), bytes.len()).unwrap(), bytes, "{} by {piece}", bytes.len());
            }
        }
        assert!(deflated(&letters, 4096).len() < letters.len() * 51 / 100);
        // What no code makes shorter is stored, in blocks of about 60 KiB with five bytes before each.
        assert!(deflated(&noise(9000), 4096).len() < 9000 * 32 + 64);
    }

    /// Counts as the Fibonacci numbers need the longest codes.
    #[test]
    fn rfc1951_codes_are_never_longer_than_a_reader_takes() {
        let (mut bytes, mut count, mut next) = (Vec::new(), 1, 1);
        for letter in 0..22_u8 {
            bytes.extend(std::iter::repeat_n(letter, count));
            (count, next) = (next, count + next);
        }
        assert!(bytes.len() < BLOCK);
        assert_eq!(inflate(&deflated(&bytes, 4096), bytes.len()).unwrap(), bytes);
        assert_eq!(miniz_oxide::inflate::decompress_to_vec(&deflated(&bytes, 999)).unwrap(), bytes);
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
