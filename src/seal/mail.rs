//! Sealed mail: signed, compressed, encrypted to its receivers, and the way back; streaming, whatever its length. Never keeps
//! a mail in memory, never writes a file.

use std::io::{Cursor, Read, Write};

use openpgp::parse::Parse as _;
use openpgp::parse::stream::{DecryptorBuilder, VerifierBuilder};
use sequoia_openpgp as openpgp;

use super::SealError;
use super::deflate::Way;
use super::keys::{Certificate, POLICY, SecretIdentity, judgement_day};
use super::packets::{self, Build, Failure, Good, Helper, Source};
use crate::model::WallTime;

/// What is held back until the signature is checked, bytes, and so twice this is what opening a mail keeps in memory. A mail
/// this small is verified before its first byte comes out.
const HOLD_BACK: usize = 1024 * 1024;
/// What a signature and the packets around a message take besides, bytes.
const SLACK: usize = 16 * 1024;
/// How much of the start of a mail decides whether it is compressed.
const SAMPLED: usize = 64 * 1024;
/// Compressed when its bytes, each by itself, need fewer bits than this, of 8: text has about 4.5, base64 6, JPEG 7.9.
const SHRINKS_BELOW_BITS: f64 = 7.5;
/// What needs more than this may have hardly a repetition, as base64 of what was compressed before.
const REPEATS_BELOW_BITS: f64 = 5.7;
/// Of how many of the sample's last bytes repetitions are counted, and one in how many of them is few.
const PROBED: usize = 16 * 1024;
const FEW: usize = 32;
/// What is shorter is hardly more than its header, in which there are repetitions.
const LETTERS_FROM: usize = 4 * 1024;

/// For mails shorter than a sample, where it costs little.
const SHORT: Way = Way::Whole;
/// For longer ones: text becomes 39 % of its length.
const LONG: Way = Way::Level(4);

const MAIL: &str = "mail";

/// What is known of a mail once it was opened and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of the clear mail.
    pub length: u64,
    /// When the sender signed it, by its own word, to the second.
    pub signed_at: WallTime,
    /// The packet of its signature. Kept with the clear mail it proves later who wrote that ([`signed_message`](super::signed_message)).
    pub signature: Vec<u8>,
}

/// Signs, compresses (if that helps) and encrypts a clear mail to all receivers; returns how many bytes it read. Nothing in
/// the result names the sender or a receiver.
///
/// # Errors
/// [`SealError::Receivers`] when there is none or too many, [`SealError::Io`] when reading or writing fails.
pub fn seal_mail<W: Write + Send + Sync>(
    mut clear: impl Read,
    signer: &SecretIdentity,
    receivers: &[Certificate],
    out: W,
    now: WallTime,
) -> Result<u64, SealError> {
    let mut start = Vec::new();
    let limit = u64::try_from(SAMPLED).unwrap_or(u64::MAX);
    (&mut clear).take(limit).read_to_end(&mut start).map_err(|e| SealError::io("sealing", e))?;
    let compress = way(&start);
    let build = Build { signer: Some((signer, now)), readers: receivers, compress };
    packets::build(&mut Cursor::new(start).chain(clear), &build, out)
}

/// The way of deflate that is worth its time, if any is, judged by how unevenly the bytes of the start of a mail are used: their
/// entropy of order 0, which is what deflate reaches when it finds no repetition. A few hundred bytes of noise look uneven too, and
/// cost nothing to deflate.
fn way(start: &[u8]) -> Option<Way> {
    let mut counts = [0u32; 256];
    for byte in start {
        counts[usize::from(*byte)] += 1;
    }
    let total = f64::from(u32::try_from(start.len()).unwrap_or(u32::MAX));
    let bits = |count: u32| -(f64::from(count) / total).log2() * f64::from(count) / total;
    if start.is_empty() {
        return None;
    }
    let bits = counts.into_iter().filter(|count| *count > 0).map(bits).sum::<f64>();
    let is_noise = || bits >= REPEATS_BELOW_BITS && !repeats(&start[start.len().saturating_sub(PROBED)..]);
    (bits < SHRINKS_BELOW_BITS).then_some(if start.len() >= LETTERS_FROM && is_noise() {
        Way::Letters
    } else if start.len() < SAMPLED {
        SHORT
    } else {
        LONG
    })
}

/// Whether more than a few of these bytes begin four that were there before.
fn repeats(bytes: &[u8]) -> bool {
    // What was last seen at each of 16384 places, which four bytes are mixed into: some repetitions are missed.
    let mut seen = vec![0_u32; 1 << 14];
    let mut count = 0;
    for four in bytes.windows(4) {
        let four = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        let place = four.wrapping_mul(0x9E37_79B1) >> 18;
        if let Some(last) = usize::try_from(place).ok().and_then(|place| seen.get_mut(place)) {
            count += usize::from(*last == four);
            *last = four;
        }
    }
    count > bytes.len() / FEW
}

/// Opens a sealed mail: decrypts, decompresses at most `cap` bytes, checks that `sender` signed it, all in one pass.
///
/// What is written to `out` is **not verified until this returns `Ok`**: write it to a temporary file, and throw that away on
/// an error.
///
/// # Errors
/// [`SealError::NotForMe`], [`SealError::BombOrTooLarge`], [`SealError::Signature`] or [`SealError::Malformed`] when the mail
/// is not to be taken; [`SealError::Io`] when only the disk failed.
pub fn open_mail<R: Read + Send + Sync>(
    sealed: R,
    me: &SecretIdentity,
    sender: &Certificate,
    cap: u64,
    mut out: impl Write,
) -> Result<Opened, SealError> {
    let failure = Failure::default();
    let helper = Helper::new(MAIL, Some(me), sender, &failure);
    let mut reader = DecryptorBuilder::from_reader(Source::new(sealed, &failure))
        .and_then(|b| b.buffer_size(hold_back(cap)).with_policy(&*POLICY, judgement_day(), helper))
        .map_err(|e| failure.take(MAIL, e))?;
    let length = drain(MAIL, &mut reader, cap, &mut out, &failure)?;
    finished(MAIL, length, reader.into_helper().good, sender)
}

/// Takes only the encryption off a sealed mail: what is written to `out` is the signed OpenPGP message inside, as the sender
/// made it, and as earlier versions kept it with a mail.
///
/// Nothing of it is verified: use it only through [`verify_signed`]. Returns its bytes, never more than the sealed mail has.
///
/// # Errors
/// As [`open_mail`], without the signature and the cap.
#[cfg(any(test, feature = "fuzzing"))]
pub fn strip_encryption<R: Read + Send + Sync>(
    sealed: R,
    me: &SecretIdentity,
    mut out: impl Write,
) -> Result<u64, SealError> {
    packets::decrypt(MAIL, sealed, me, &mut out)
}

/// Checks that `sender` signed a message, as [`signed_message`](super::signed_message) puts it together, and writes the clear mail, at most `cap` bytes.
///
/// What is written to `out` is **not verified until this returns `Ok`**.
///
/// # Errors
/// As [`open_mail`].
pub fn verify_signed<R: Read + Send + Sync>(
    packet: R,
    sender: &Certificate,
    cap: u64,
    out: impl Write,
) -> Result<Opened, SealError> {
    verify_as(MAIL, packet, sender, cap, out)
}

pub(super) fn verify_as<R: Read + Send + Sync>(
    what: &'static str,
    packet: R,
    sender: &Certificate,
    cap: u64,
    mut out: impl Write,
) -> Result<Opened, SealError> {
    let failure = Failure::default();
    let helper = Helper::new(what, None, sender, &failure);
    let mut reader = VerifierBuilder::from_reader(Source::new(packet, &failure))
        .and_then(|b| b.buffer_size(hold_back(cap)).with_policy(&*POLICY, judgement_day(), helper))
        .map_err(|e| failure.take(what, e))?;
    let length = drain(what, &mut reader, cap, &mut out, &failure)?;
    finished(what, length, reader.into_helper().good, sender)
}

/// What of a message of at most `cap` bytes is held back: memory of that size is made, and cleared, for each.
fn hold_back(cap: u64) -> usize {
    usize::try_from(cap).unwrap_or(HOLD_BACK).saturating_add(SLACK).min(HOLD_BACK)
}

fn finished(what: &'static str, length: u64, good: Option<Good>, sender: &Certificate) -> Result<Opened, SealError> {
    let why = || "it was never checked".to_owned();
    let good = good.ok_or_else(|| SealError::Signature { what, by: sender.fingerprint(), why: why() })?;
    Ok(Opened { length, signed_at: good.signed_at, signature: good.packet })
}

fn drain(
    what: &'static str,
    reader: &mut impl Read,
    cap: u64,
    out: &mut impl Write,
    failure: &Failure,
) -> Result<u64, SealError> {
    let mut length = 0u64;
    packets::pump(
        reader,
        |e| failure.take(what, e),
        |bytes| {
            length = length.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            if length > cap {
                return Err(SealError::BombOrTooLarge { what, limit: cap });
            }
            out.write_all(bytes).map_err(|e| SealError::io("opening", e))
        },
    )
}

#[cfg(test)]
mod tests;
