//! Raw deflate (RFC 1951): of small records, whole in memory, with a bound on what comes out; and of mails, as a stream.

use std::cell::RefCell;
use std::io::{self, Write};

use flate2::write::DeflateEncoder;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::letters::Letters;

/// Level for a few dozen KiB: a ns is written once and often lies in the DHT eight times.
const LEVEL: u32 = 6;
/// Room that is made at a time while bytes come out.
const STEP: usize = 4 * 1024;

thread_local! {
    /// Its tables take longer to be made than a small record to be deflated; a thread that seals seals many.
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::new(LEVEL), false));
    /// The same holds for what inflates.
    static DECOMPRESS: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// Why nothing came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InflateError {
    /// More than the bound would come out.
    #[error("it inflates to more than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// It is no deflated stream, is cut, or goes on after its end.
    #[error("it does not inflate")]
    Malformed,
}

/// How a mail is deflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It is short: all of it is gathered, and deflated as a small record is.
    Whole,
    /// It has hardly a repetition, as base64 of noise: only the shorter codes of fewer letters are to be had (`letters.rs`).
    Letters,
    /// At a level of zlib-rs, 1 to 9.
    Level(u32),
}

/// Deflates what is written to it.
pub(super) struct Deflating<W: Write>(Inner<W>);

enum Inner<W: Write> {
    Whole { bytes: Vec<u8>, to: W },
    Letters(Letters<W>),
    Level(DeflateEncoder<W>),
}

impl<W: Write> Deflating<W> {
    pub(super) fn new(to: W, way: Way) -> Self {
        Self(match way {
            Way::Whole => Inner::Whole { bytes: Vec::new(), to },
            Way::Letters => Inner::Letters(Letters::new(to)),
            Way::Level(level) => Inner::Level(DeflateEncoder::new(to, Compression::new(level))),
        })
    }

    /// Writes the end, and gives back what it wrote to.
    pub(super) fn finish(self) -> io::Result<W> {
        match self.0 {
            Inner::Level(encoder) => encoder.finish(),
            Inner::Letters(letters) => letters.finish(),
            Inner::Whole { bytes, mut to } => {
                to.write_all(&deflate(&bytes)?)?;
                Ok(to)
            }
        }
    }
}

impl<W: Write> Write for Deflating<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Level(encoder) => encoder.write(bytes),
            Inner::Letters(letters) => letters.write(bytes),
            Inner::Whole { bytes: gathered, .. } => gathered.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        // What is held back for a better code comes with the end.
        Ok(())
    }
}

pub(super) fn broken() -> io::Error {
    io::Error::other("the compressor does not go on")
}

/// Deflates `bytes`.
///
/// # Errors
/// When the compressor does not go on, which it has no reason for.
pub(crate) fn deflate(bytes: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESS.with_borrow_mut(|compress| {
        compress.reset();
        let mut out = Vec::with_capacity(bytes.len() / 2 + STEP);
        loop {
            let taken = usize::try_from(compress.total_in()).unwrap_or(usize::MAX).min(bytes.len());
            match compress.compress_vec(&bytes[taken..], &mut out, FlushCompress::Finish) {
                Ok(Status::StreamEnd) => return Ok(out),
                // Memory to memory, all that can be missing is room.
                Ok(Status::Ok | Status::BufError) => out.reserve(STEP),
                Err(_) => return Err(broken()),
            }
        }
    })
}

/// Deflates the beginning of a stream that goes on at a whole byte with other blocks.
///
/// # Errors
/// As [`deflate`].
pub(super) fn deflate_beginning(bytes: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESS.with_borrow_mut(|compress| {
        compress.reset();
        // Room for all in a stored block, and the empty one behind it: so one call does it.
        let mut out = Vec::with_capacity(bytes.len() + STEP);
        match compress.compress_vec(bytes, &mut out, FlushCompress::Sync) {
            Ok(Status::Ok) if out.len() < out.capacity() => Ok(out),
            Ok(_) | Err(_) => Err(broken()),
        }
    })
}

/// What was deflated, if it has at most `limit` bytes.
///
/// # Errors
/// [`InflateError`].
pub(crate) fn inflate(deflated: &[u8], limit: usize) -> Result<Vec<u8>, InflateError> {
    DECOMPRESS.with_borrow_mut(|inflate| {
        inflate.reset(false);
        inflate_with(inflate, deflated, limit)
    })
}

fn inflate_with(inflate: &mut Decompress, deflated: &[u8], limit: usize) -> Result<Vec<u8>, InflateError> {
    let mut out = Vec::with_capacity(deflated.len().saturating_mul(3).min(limit).saturating_add(1));
    loop {
        let taken = usize::try_from(inflate.total_in()).unwrap_or(usize::MAX).min(deflated.len());
        let before = (taken, out.len());
        let status = inflate.decompress_vec(&deflated[taken..], &mut out, FlushDecompress::Finish);
        let status = status.map_err(|_| InflateError::Malformed)?;
        if out.len() > limit {
            return Err(InflateError::TooLarge { limit });
        }
        let taken = usize::try_from(inflate.total_in()).unwrap_or(usize::MAX);
        match status {
            Status::StreamEnd if taken == deflated.len() => return Ok(out),
            Status::StreamEnd => return Err(InflateError::Malformed),
            Status::Ok | Status::BufError if out.len() == out.capacity() => out.reserve(STEP),
            Status::Ok | Status::BufError if before == (taken, out.len()) => return Err(InflateError::Malformed),
            Status::Ok | Status::BufError => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc1951_what_was_deflated_is_inflated_again_within_its_bound() {
        let noise: Vec<u8> =
            (0..100_000u32).flat_map(|i| blake3::hash(&i.to_be_bytes()).as_bytes()[..2].to_vec()).collect();
        for bytes in [&b""[..], b"x", &[7; 300_000], &noise, &noise[..5]] {
            let deflated = deflate(bytes).unwrap();
            assert_eq!(inflate(&deflated, bytes.len()).unwrap(), bytes);
            if let Some(less) = bytes.len().checked_sub(1) {
                assert_eq!(inflate(&deflated, less), Err(InflateError::TooLarge { limit: less }));
            }
        }
    }

    #[test]
    fn rfc1951_what_was_deflated_as_a_stream_is_inflated_again_whichever_way() {
        let letters: Vec<u8> = (0..200_000u32)
            .map(|i| b"ABCDEFGHabcdefgh01234567"[usize::from(blake3::hash(&i.to_be_bytes()).as_bytes()[0] % 24)])
            .collect();
        for way in [Way::Whole, Way::Letters, Way::Level(3)] {
            let long = letters.repeat(8);
            for (bytes, piece) in
                [(&b""[..], 1), (b"x", 1), (&letters, 1000), (&[7; 300_000], 7), (&long, 65_536), (&long, 1 << 21)]
            {
                let mut deflating = Deflating::new(Vec::new(), way);
                for piece in bytes.chunks(piece) {
                    deflating.write_all(piece).unwrap();
                }
                let deflated = deflating.finish().unwrap();
                assert_eq!(inflate(&deflated, bytes.len()).unwrap(), bytes, "{way:?}");
                assert!(bytes.len() < 2 || deflated.len() < bytes.len() * 7 / 10, "{way:?}: {}", deflated.len());
            }
        }
    }

    #[test]
    fn rfc1951_what_is_cut_or_goes_on_is_refused() {
        let deflated = deflate(b"some bytes, some bytes, some bytes").unwrap();
        for end in 0..deflated.len() {
            assert_eq!(inflate(&deflated[..end], 1000), Err(InflateError::Malformed), "{end}");
        }
        assert_eq!(inflate(&[&deflated[..], b"x"].concat(), 1000), Err(InflateError::Malformed));
        assert_eq!(inflate(&[255; 20], 1000), Err(InflateError::Malformed));
    }
}
