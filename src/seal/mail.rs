//! Sealed mail: signed, compressed, encrypted to its receivers, and the way back; streaming, whatever its length. Never keeps
//! a mail in memory, never writes a file.

use std::io::{Cursor, Read, Write};

use openpgp::parse::Parse as _;
use openpgp::parse::stream::{DecryptorBuilder, VerifierBuilder};
use sequoia_openpgp as openpgp;

use super::SealError;
use super::keys::{Certificate, POLICY, SecretIdentity, judgement_day};
use super::packets::{self, Build, Failure, Helper, Source};
use crate::model::WallTime;

/// What is held back until the signature is checked, bytes, and so twice this is what opening a mail keeps in memory. A mail
/// this small is verified before its first byte comes out.
const HOLD_BACK: usize = 1024 * 1024;
/// How much of the start of a mail decides whether it is compressed.
const SAMPLED: usize = 256 * 1024;
/// Samples in that start, and bytes of each.
const SAMPLES: usize = 4;
const SAMPLE: usize = 16 * 1024;
/// Compressed when the samples shrink below this many of 100. Base64 shrinks to about 76, JPEG not at all.
const SHRINKS_BELOW: usize = 95;

const MAIL: &str = "mail";

/// What is known of a mail once it was opened and verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of the clear mail.
    pub length: u64,
    /// When the sender signed it, by its own word, to the second.
    pub signed_at: WallTime,
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
    let compress = shrinks(&start);
    let build = Build { signer: Some((signer, now)), readers: receivers, compress };
    packets::build(&mut Cursor::new(start).chain(clear), &build, out)
}

/// Whether compression is worth its time, judged by samples of the start of a mail.
fn shrinks(start: &[u8]) -> bool {
    let step = start.len().div_ceil(SAMPLES).max(SAMPLE);
    let samples = start.chunks(step).map(|part| &part[..part.len().min(SAMPLE)]);
    let (before, after) = samples.fold((0, 0), |(before, after), sample| {
        (before + sample.len(), after + miniz_oxide::deflate::compress_to_vec(sample, 1).len())
    });
    after * 100 < before * SHRINKS_BELOW
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
        .and_then(|b| b.buffer_size(HOLD_BACK).with_policy(&*POLICY, judgement_day(), helper))
        .map_err(|e| failure.take(MAIL, e))?;
    let length = drain(MAIL, &mut reader, cap, &mut out, &failure)?;
    finished(MAIL, length, reader.into_helper().signed_at, sender)
}

/// Takes only the encryption off a sealed mail: what is written to `out` is the signed OpenPGP message inside, as the sender
/// made it. Kept with the mail, it proves later who wrote it ([`verify_signed`]); any OpenPGP program can check it too.
///
/// Nothing of it is verified: use it only through [`verify_signed`]. Returns its bytes, never more than the sealed mail has.
///
/// # Errors
/// As [`open_mail`], without the signature and the cap.
pub fn strip_encryption<R: Read + Send + Sync>(
    sealed: R,
    me: &SecretIdentity,
    mut out: impl Write,
) -> Result<u64, SealError> {
    packets::decrypt(MAIL, sealed, me, &mut out)
}

/// Checks that `sender` signed a message as [`strip_encryption`] wrote it, and writes the clear mail, at most `cap` bytes.
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
        .and_then(|b| b.buffer_size(HOLD_BACK).with_policy(&*POLICY, judgement_day(), helper))
        .map_err(|e| failure.take(what, e))?;
    let length = drain(what, &mut reader, cap, &mut out, &failure)?;
    finished(what, length, reader.into_helper().signed_at, sender)
}

fn finished(
    what: &'static str,
    length: u64,
    signed_at: Option<WallTime>,
    sender: &Certificate,
) -> Result<Opened, SealError> {
    let why = || "it was never checked".to_owned();
    let signed_at = signed_at.ok_or_else(|| SealError::Signature { what, by: sender.fingerprint(), why: why() })?;
    Ok(Opened { length, signed_at })
}

fn drain(
    what: &'static str,
    reader: &mut impl Read,
    cap: u64,
    out: &mut impl Write,
    failure: &Failure,
) -> Result<u64, SealError> {
    let mut buffer = vec![0u8; 64 * 1024];
    let mut length = 0u64;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(n) => {
                length = length.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
                if length > cap {
                    return Err(SealError::BombOrTooLarge { what, limit: cap });
                }
                out.write_all(&buffer[..n]).map_err(|e| SealError::io("opening", e))?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failure.take(what, e)),
        }
    }
}

#[cfg(test)]
mod tests;
