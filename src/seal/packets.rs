//! How OpenPGP messages are built and taken apart: the packets that are written, the only ones that are accepted. Knows no
//! mail and no notice.
//!
//! ```text
//! PKESK (hidden key id) per reader
//! SEIP  (AEAD)
//!   Compressed (mail only, when it shrinks)
//!     OnePassSig   Literal   Signature
//! ```
//!
//! Anything else is refused at its first byte, so that nothing can hide, nest or be skipped at length.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use openpgp::crypto::aead::{self, SEIPv2Schedule};
use openpgp::crypto::hash::{Context, Hash as _};
use openpgp::crypto::{KeyPair, SessionKey, Signer as _, mpi};
use openpgp::packet::one_pass_sig::OnePassSig3;
use openpgp::packet::pkesk::PKESK6;
use openpgp::packet::signature::Signature4;
use openpgp::packet::signature::subpacket::{Subpacket, SubpacketArea, SubpacketValue};
use openpgp::packet::{PKESK, SKESK, Signature, Tag};
use openpgp::parse::stream::{DecryptionHelper, MessageLayer, MessageStructure, VerificationHelper};
use openpgp::parse::{PacketParser, PacketParserBuilder, PacketParserResult, Parse as _};
use openpgp::serialize::stream::{ArbitraryWriter, LiteralWriter, Message};
#[cfg(any(test, feature = "fuzzing"))]
use openpgp::serialize::stream::{Encryptor, Recipient};
use openpgp::serialize::{MarshalInto as _, Serialize as _};
use openpgp::types::{
    AEADAlgorithm, CompressionAlgorithm, HashAlgorithm, PublicKeyAlgorithm, SignatureType, SymmetricAlgorithm,
};
use openpgp::{Cert, KeyHandle, KeyID, Packet};
use sequoia_openpgp as openpgp;

use super::SealError;
use super::deflate::{Deflating, Way};
use super::keys::{Certificate, POLICY, SecretIdentity, judgement_day};
use super::proof::SIGNATURE_MAX;
use crate::model::WallTime;

/// How everything is encrypted.
const SYMMETRIC: SymmetricAlgorithm = SymmetricAlgorithm::AES256;
const AEAD: AEADAlgorithm = AEADAlgorithm::OCB;
/// Bytes that are authenticated together, by 16 more, and that this number stands for: 2 to the power of it and six.
const CHUNK: usize = 16 * 1024;
const CHUNK_OCTET: u8 = 8;
/// What is signed is this hash.
const HASH: HashAlgorithm = HashAlgorithm::SHA256;

/// Most receivers of one sealed mail. Each costs the sender a key agreement and the last reader one try.
pub(super) const RECEIVERS_MAX: usize = 1000;

/// What a message is built of.
pub(super) struct Build<'a> {
    /// Who signs; nobody for what only the writer will read.
    pub(super) signer: Option<(&'a SecretIdentity, WallTime)>,
    /// Who can open it.
    pub(super) readers: &'a [Certificate],
    /// How it is compressed, if it is.
    pub(super) compress: Option<Way>,
}

fn failed(e: openpgp::anyhow::Error) -> SealError {
    match e.downcast::<io::Error>() {
        Ok(source) => SealError::io("sealing", source),
        Err(e) => SealError::openpgp("sealing", e),
    }
}

/// Writes what `clear` yields as a sealed message; returns how many bytes that were.
pub(super) fn build<W: Write + Send + Sync>(
    clear: &mut impl Read,
    build: &Build<'_>,
    out: W,
) -> Result<u64, SealError> {
    let count = build.readers.len();
    if count == 0 || count > RECEIVERS_MAX {
        return Err(SealError::Receivers { count, limit: RECEIVERS_MAX });
    }
    let valid: Vec<_> = build
        .readers
        .iter()
        .map(|c| c.cert().with_policy(&*POLICY, judgement_day()).map_err(SealError::certificate))
        .collect::<Result<_, _>>()?;
    let mut message = Message::new(out);
    let session = SessionKey::new(SYMMETRIC.key_size().map_err(failed)?).map_err(failed)?;
    for cert in &valid {
        let mut keys = cert.keys().supported().alive().revoked(false).for_transport_encryption();
        let key =
            keys.next().ok_or_else(|| SealError::certificate("one of the receivers has no key that encrypts"))?.key();
        let mut pkesk = PKESK6::for_recipient(&session, key).map_err(failed)?;
        // No key is named: who can open it is not to be read from it.
        pkesk.set_recipient(None);
        Packet::from(pkesk).serialize(&mut message).map_err(failed)?;
    }
    let mut encrypting = encrypting(message, &session)?;
    let copied = write_inner(clear, build, &mut encrypting)?;
    encrypting.finalize().and_then(Message::finalize).map_err(failed)?;
    Ok(copied)
}

/// Begins the encrypted part (SEIP version 2, RFC 9580 section 5.13.2): what is written goes through it into `message`.
fn encrypting<'a>(
    message: Message<'a>,
    session: &SessionKey,
) -> Result<aead::Encryptor<'static, Message<'a>>, SealError> {
    let mut salt = [0; 32];
    openpgp::crypto::random(&mut salt).map_err(failed)?;
    let schedule = SEIPv2Schedule::new(session, SYMMETRIC, AEAD, CHUNK, &salt).map_err(failed)?;
    let mut body = ArbitraryWriter::new(message, Tag::SEIP).map_err(failed)?;
    let head = [&[2, SYMMETRIC.into(), AEAD.into(), CHUNK_OCTET][..], &salt].concat();
    body.write_all(&head).map_err(|e| SealError::io("sealing", e))?;
    aead::Encryptor::new(SYMMETRIC, AEAD, CHUNK, schedule, body).map_err(failed)
}

/// What is inside of the encryption.
fn write_inner(clear: &mut impl Read, build: &Build<'_>, out: impl Write + Send + Sync) -> Result<u64, SealError> {
    let mut message = Message::new(out);
    let Some(way) = build.compress else {
        let (copied, message) = write_signed(clear, build, message)?;
        message.finalize().map_err(failed)?;
        return Ok(copied);
    };
    message = ArbitraryWriter::new(message, Tag::CompressedData).map_err(failed)?;
    let io = |e| SealError::io("sealing", e);
    message.write_all(&[u8::from(CompressionAlgorithm::Zip)]).map_err(io)?;
    let mut deflating = Deflating::new(message, way);
    let (copied, signed) = write_signed(clear, build, Message::new(&mut deflating))?;
    signed.finalize().map_err(failed)?;
    deflating.finish().map_err(io)?.finalize().map_err(failed)?;
    Ok(copied)
}

/// What goes before what is signed: how, and by whom.
pub(super) fn before(pk_algo: PublicKeyAlgorithm, hash: HashAlgorithm, issuer: KeyID) -> Packet {
    let mut before = OnePassSig3::new(SignatureType::Binary);
    before.set_pk_algo(pk_algo);
    before.set_hash_algo(hash);
    before.set_issuer(issuer);
    before.set_last(true);
    before.into()
}

/// The literal, signed if that is wanted.
///
/// The library's own signer adds a salt of 72 bytes to each signature of this version, for hashes of which collisions can be made.
/// Here it is always SHA-256, and a short mail costs three signatures (its own, its ns, its nr); nor is the issuer named twice.
fn write_signed<'a>(
    clear: &mut impl Read,
    build: &Build<'_>,
    mut message: Message<'a>,
) -> Result<(u64, Message<'a>), SealError> {
    let mut signing = None;
    if let Some((signer, now)) = build.signer {
        let (time, pair) = (signer.signing_time(now), signer.signer());
        before(pair.public().pk_algo(), HASH, pair.public().keyid()).serialize(&mut message).map_err(failed)?;
        signing = Some((HASH.context().map_err(failed)?.for_signature(4), pair, time));
    }
    let mut literal = LiteralWriter::new(message).build().map_err(failed)?;
    let io = |e| SealError::io("sealing", e);
    let copied = pump(clear, io, |bytes| {
        if let Some((hash, ..)) = &mut signing {
            hash.update(bytes);
        }
        literal.write_all(bytes).map_err(io)
    })?;
    let mut message = literal.finalize_one().map_err(failed)?.ok_or_else(|| io(io::ErrorKind::BrokenPipe.into()))?;
    if let Some((hash, pair, time)) = signing {
        let signature = signature(hash, pair, time).map_err(failed)?;
        Packet::from(signature).serialize(&mut message).map_err(failed)?;
    }
    Ok((copied, message))
}

/// The signature over what `hash` was given: when and by whom, and nothing else.
fn signature(mut hash: Context, pair: KeyPair, time: SystemTime) -> openpgp::Result<Signature4> {
    let hashed = SubpacketArea::new(vec![
        Subpacket::new(SubpacketValue::SignatureCreationTime(time.try_into()?), true)?,
        Subpacket::new(SubpacketValue::IssuerFingerprint(pair.public().fingerprint()), false)?,
    ])?;
    let made = |prefix, mpis| {
        let unhashed = SubpacketArea::default();
        Signature4::new(SignatureType::Binary, pair.public().pk_algo(), HASH, hashed.clone(), unhashed, prefix, mpis)
    };
    // What is hashed of a signature is all but its numbers.
    made([0; 2], mpi::Signature::Unknown { mpis: Box::default(), rest: Box::default() }).hash(&mut hash)?;
    let digest = hash.into_digest()?;
    let prefix = digest.first_chunk().copied().unwrap_or_default();
    let mpis = pair.clone().sign(HASH, &digest)?;
    Ok(made(prefix, mpis))
}

/// Bytes that are read at a time of what is short, and of what is long: most records and mails are short.
const SHORT: usize = 4 * 1024;
const LONG: usize = 64 * 1024;

/// Passes on all that `from` has, piece by piece; returns its bytes.
pub(super) fn pump(
    from: &mut impl Read,
    failed: impl Fn(io::Error) -> SealError,
    mut take: impl FnMut(&[u8]) -> Result<(), SealError>,
) -> Result<u64, SealError> {
    let mut buffer = vec![0u8; SHORT];
    let mut passed = 0u64;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(passed),
            Ok(n) => {
                take(&buffer[..n])?;
                passed = passed.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
                if passed > u64::try_from(SHORT).unwrap_or(u64::MAX) {
                    buffer.resize(LONG, 0);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
}

/// What went wrong deep inside the library, kept typed. The first word counts.
#[derive(Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<SealError>>>);

impl Failure {
    fn set(&self, error: SealError) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
    fn refuse<T>(&self, error: SealError) -> openpgp::Result<T> {
        let text = error.to_string();
        self.set(error);
        Err(openpgp::anyhow::anyhow!(text))
    }
    /// What was kept, or else `error`: a disk that failed explains all that follows.
    fn or(&self, error: SealError) -> SealError {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(error)
    }
    /// The typed error, or else that `what` is malformed as the library says.
    pub(super) fn take(&self, what: &'static str, why: impl std::fmt::Display) -> SealError {
        self.or(SealError::malformed(what, why))
    }
}

/// Keeps apart a failing disk and a malformed message: the former must never count against the sender.
pub(super) struct Source<R> {
    inner: R,
    failure: Failure,
}

impl<R: Read> Source<R> {
    pub(super) fn new(inner: R, failure: &Failure) -> Self {
        Self { inner, failure: failure.clone() }
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|e| {
            if e.kind() == io::ErrorKind::Interrupted {
                return e;
            }
            let text = io::Error::new(e.kind(), e.to_string());
            self.failure.set(SealError::io("opening", e));
            text
        })
    }
}

/// Counts packets, refuses those that Roost never writes.
#[derive(Default)]
struct Accepted {
    pkesk: usize,
    seip: usize,
    compressed: usize,
    ops: usize,
    literal: usize,
    signature: usize,
}

impl Accepted {
    fn packet(&mut self, what: &'static str, tag: Tag) -> Result<(), SealError> {
        let (count, most) = match tag {
            Tag::PKESK => (&mut self.pkesk, RECEIVERS_MAX),
            Tag::SEIP => (&mut self.seip, 1),
            Tag::CompressedData => (&mut self.compressed, 1),
            Tag::OnePassSig => (&mut self.ops, 1),
            Tag::Literal => (&mut self.literal, 1),
            Tag::Signature => (&mut self.signature, 1),
            other => return Err(SealError::malformed(what, format_args!("a peer writes no {other} in it"))),
        };
        *count += 1;
        if *count > most {
            return Err(SealError::malformed(what, format_args!("it has more than {most} of {tag}")));
        }
        Ok(())
    }
}

/// What sequoia asks while it takes a message apart.
pub(super) struct Helper<'a> {
    what: &'static str,
    me: Option<&'a SecretIdentity>,
    sender: &'a Certificate,
    accepted: Accepted,
    failure: Failure,
    /// The good signature, once there is one.
    pub(super) good: Option<Good>,
}

/// A signature that was checked.
pub(super) struct Good {
    /// When it says that it was made.
    pub(super) signed_at: WallTime,
    /// Its packet.
    pub(super) packet: Vec<u8>,
}

impl<'a> Helper<'a> {
    pub(super) fn new(
        what: &'static str,
        me: Option<&'a SecretIdentity>,
        sender: &'a Certificate,
        failure: &Failure,
    ) -> Self {
        let accepted = Accepted::default();
        Self { what, me, sender, accepted, failure: failure.clone(), good: None }
    }

    /// Accepts [encrypted, compressed or not,] signed once by the sender, in this order and nothing else.
    fn judge(&self, structure: MessageStructure<'_>) -> Result<Good, String> {
        let mut layers = structure.into_iter().peekable();
        if self.me.is_some() && !matches!(layers.next(), Some(MessageLayer::Encryption { .. })) {
            return Err("it is not encrypted".to_owned());
        }
        if matches!(layers.peek(), Some(MessageLayer::Compression { .. })) {
            layers.next();
        }
        let (Some(MessageLayer::SignatureGroup { results }), None) = (layers.next(), layers.next()) else {
            return Err("it is not signed inside everything else".to_owned());
        };
        let [result] = results.as_slice() else {
            return Err(format!("it has {} signatures, not one", results.len()));
        };
        let good = result.as_ref().map_err(ToString::to_string)?;
        let since = |t: SystemTime| t.duration_since(SystemTime::UNIX_EPOCH).ok();
        let at = good.sig.signature_creation_time().and_then(since).unwrap_or_default();
        let packet = provable(good.sig)?;
        Ok(Good { signed_at: WallTime(u64::try_from(at.as_millis()).unwrap_or(u64::MAX)), packet })
    }
}

/// The packet of a signature that can be checked again later with nothing but the clear mail ([`super::signed_message`]).
fn provable(signature: &Signature) -> Result<Vec<u8>, String> {
    let (version, kind) = (signature.version(), signature.typ());
    if version != 4 || kind != SignatureType::Binary {
        return Err(format!("its signature is of version {version} and type {kind}, not a binary one of version 4"));
    }
    let length = signature.serialized_len();
    if length > SIGNATURE_MAX {
        return Err(format!("its signature has {length} bytes, and {SIGNATURE_MAX} at most are kept"));
    }
    let mut packet = Vec::new();
    Packet::from(signature.clone()).serialize(&mut packet).map_err(|e| e.to_string())?;
    Ok(packet)
}

impl VerificationHelper for Helper<'_> {
    fn inspect(&mut self, packet: &PacketParser<'_>) -> openpgp::Result<()> {
        self.accepted.packet(self.what, packet.packet.tag()).or_else(|e| self.failure.refuse(e))
    }
    fn get_certs(&mut self, _ids: &[KeyHandle]) -> openpgp::Result<Vec<Cert>> {
        Ok(vec![self.sender.cert().clone()])
    }
    fn check(&mut self, structure: MessageStructure<'_>) -> openpgp::Result<()> {
        match self.judge(structure) {
            Ok(good) => {
                self.good = Some(good);
                Ok(())
            }
            Err(why) => {
                self.failure.refuse(SealError::Signature { what: self.what, by: self.sender.fingerprint(), why })
            }
        }
    }
}

impl DecryptionHelper for Helper<'_> {
    fn decrypt(
        &mut self,
        pkesks: &[PKESK],
        _skesks: &[SKESK],
        algo: Option<SymmetricAlgorithm>,
        decrypt: &mut dyn FnMut(Option<SymmetricAlgorithm>, &SessionKey) -> bool,
    ) -> openpgp::Result<Option<Cert>> {
        let opened = self.me.is_some_and(|me| try_keys(me, pkesks, algo, decrypt));
        if opened { Ok(None) } else { self.failure.refuse(SealError::NotForMe { what: self.what }) }
    }
}

/// Tries this identity's keys on every PKESK: key ids are hidden.
fn try_keys(
    me: &SecretIdentity,
    pkesks: &[PKESK],
    algo: Option<SymmetricAlgorithm>,
    decrypt: &mut dyn FnMut(Option<SymmetricAlgorithm>, &SessionKey) -> bool,
) -> bool {
    me.openers().iter_mut().any(|key| {
        pkesks.iter().any(|pkesk| pkesk.decrypt(key, algo).is_some_and(|(algo, session)| decrypt(algo, &session)))
    })
}

/// Writes what is inside the encryption to `out`, as it stands: a signed OpenPGP message that is not verified yet.
pub(super) fn decrypt<R: Read + Send + Sync>(
    what: &'static str,
    sealed: R,
    me: &SecretIdentity,
    out: &mut impl Write,
) -> Result<u64, SealError> {
    let failure = Failure::default();
    let source = Source::new(sealed, &failure);
    let wrong = |e: openpgp::anyhow::Error| failure.take(what, e);
    let mut accepted = Accepted::default();
    let mut pkesks = Vec::new();
    let mut next = PacketParserBuilder::from_reader(source).and_then(PacketParserBuilder::build).map_err(wrong)?;
    while let PacketParserResult::Some(mut packet) = next {
        accepted.packet(what, packet.packet.tag())?;
        if let Packet::SEIP(seip) = &packet.packet {
            let openpgp::packet::SEIP::V2(seip) = seip else {
                return Err(SealError::malformed(what, "it is not sealed with authenticated encryption"));
            };
            let algo = Some(seip.symmetric_algo());
            let opened = try_keys(me, &pkesks, algo, &mut |found, key| packet.decrypt(algo.or(found), key).is_ok());
            if !opened {
                return Err(failure.or(SealError::NotForMe { what }));
            }
            let write = |bytes: &[u8]| out.write_all(bytes).map_err(|e| SealError::io("opening", e));
            let copied = pump(&mut packet, |e| failure.take(what, e), write)?;
            let (_, after) = packet.next().map_err(wrong)?;
            return match after {
                PacketParserResult::EOF(_) => Ok(copied),
                PacketParserResult::Some(_) => Err(SealError::malformed(what, "something follows its encrypted part")),
            };
        }
        let (packet, after) = packet.next().map_err(wrong)?;
        let Packet::PKESK(pkesk) = packet else {
            return Err(SealError::malformed(what, "it is not encrypted"));
        };
        pkesks.push(pkesk);
        next = after;
    }
    Err(failure.take(what, "it ends before its encrypted part"))
}

/// The content of a small message that is not verified: signed or not, not compressed.
pub(super) fn unverified_literal(what: &'static str, message: &[u8]) -> Result<Vec<u8>, SealError> {
    let malformed = |e: openpgp::anyhow::Error| SealError::malformed(what, e);
    let mut next = PacketParserBuilder::from_bytes(message).and_then(PacketParserBuilder::build).map_err(malformed)?;
    let mut accepted = Accepted::default();
    while let PacketParserResult::Some(mut packet) = next {
        accepted.packet(what, packet.packet.tag())?;
        match packet.packet {
            Packet::Literal(_) => {
                // Never longer than the message itself, which is in memory.
                let mut literal = Vec::new();
                packet.read_to_end(&mut literal).map_err(|e| SealError::malformed(what, e))?;
                return Ok(literal);
            }
            Packet::OnePassSig(_) => next = packet.next().map_err(malformed)?.1,
            _ => return Err(SealError::malformed(what, "it is not one signed literal")),
        }
    }
    Err(SealError::malformed(what, "it has no content"))
}

/// Encrypts bytes as they stand, with no packet around them.
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, reason = "it is for tests and fuzz targets")]
pub(crate) fn tests_only_encrypt(inner: &[u8], reader: &Certificate) -> Vec<u8> {
    let valid = reader.cert().with_policy(&*POLICY, judgement_day()).unwrap();
    let keys = valid.keys().for_transport_encryption();
    let readers = keys.map(|ka| Recipient::new(None, None, ka.key().role_as_unspecified()));
    let mut sealed = Vec::new();
    let encryptor = Encryptor::for_recipients(Message::new(&mut sealed), readers).aead_algo(AEADAlgorithm::OCB);
    let mut message = encryptor.build().unwrap();
    message.write_all(inner).unwrap();
    message.finalize().unwrap();
    sealed
}

/// A literal packet that nobody signed.
#[cfg(test)]
pub(crate) fn tests_only_literal(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut message = LiteralWriter::new(Message::new(&mut bytes)).build().unwrap();
    message.write_all(content).unwrap();
    message.finalize().unwrap();
    bytes
}

/// A mail that is signed as a peer never signs: with a signature of this type, and a note of so many bytes in it.
#[cfg(test)]
pub(crate) fn tests_only_signed(content: &[u8], by: &SecretIdentity, kind: SignatureType, note: usize) -> Vec<u8> {
    use openpgp::packet::signature::SignatureBuilder;
    use openpgp::packet::signature::subpacket::NotationDataFlags;

    let template = SignatureBuilder::new(kind);
    let template = template.set_notation("note@roost", vec![b'x'; note], NotationDataFlags::empty(), false).unwrap();
    let mut bytes = Vec::new();
    let message = Message::new(&mut bytes);
    let signer = openpgp::serialize::stream::Signer::with_template(message, by.signer(), template).unwrap();
    let mut message = LiteralWriter::new(signer.build().unwrap()).build().unwrap();
    message.write_all(content).unwrap();
    message.finalize().unwrap();
    bytes
}
