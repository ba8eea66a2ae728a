//! Small sealed records: ns and nr between sender and reader, and what an owner seals to itself. Opened in two steps, because
//! the sender's certificate is found by what the record claims. Never believes a claim before its signature is checked.
//!
//! Inside the encryption and the signature lie: length of what follows (u32, big-endian), that many bytes of deflate, zeros up
//! to the next step. The deflated bytes are the kind of the record, a zero byte, and its encoded form: one kind cannot pass for
//! another, and the length of a sealed record tells little.

use std::io::Cursor;

use super::SealError;
use super::deflate::{InflateError, deflate, inflate};
use super::keys::{Certificate, SecretIdentity};
use super::mail::verify_as;
use super::packets::{self, Build};
use crate::model::dht::VALUE_MAX;
use crate::model::notification::{NS_HEADERS_MAX, NS_PADDING, Nr, Ns};
use crate::model::{Address, Fingerprint, GroupName, WallTime};
use crate::wire;

/// Largest sealed record that is opened, bytes: it must fit in a DHT entry.
pub const NOTICE_MAX: usize = VALUE_MAX;
/// Most bytes of a record after inflation: header block and structure, and room for everything else in an ns.
pub const RECORD_MAX: usize = NS_HEADERS_MAX + 8 * 1024;
/// What an owner seals to itself is padded to steps of this many bytes: one step holds what one or two receivers need.
const OWNER_PADDING: usize = 256;
/// An nr says little, and about as much each time, whatever the outcome: its step is one that it fits in, with usual addresses.
const NR_PADDING: usize = 192;
/// Largest of those, bytes before compression: a thousand receivers.
const OWNER_MAX: usize = 256 * 1024;

const NS: &str = "ns";
const NR: &str = "nr";
const FOR_OWNER: &str = "owner's note";

pub(crate) fn frame(what: &'static str, record: &[u8], most: usize, step: usize) -> Result<Vec<u8>, SealError> {
    let too_large = || SealError::BombOrTooLarge { what, limit: u64::try_from(most).unwrap_or(u64::MAX) };
    if record.len() > most {
        return Err(too_large());
    }
    let kind_and_record = [what.as_bytes(), b"\0", record].concat();
    let deflated = deflate(&kind_and_record).map_err(|e| SealError::io("sealing", e))?;
    let length = u32::try_from(deflated.len()).map_err(|_| too_large())?;
    let mut frame = [&length.to_be_bytes()[..], &deflated].concat();
    frame.resize(frame.len().next_multiple_of(step), 0);
    Ok(frame)
}

pub(crate) fn unframe(what: &'static str, frame: &[u8], most: usize) -> Result<Vec<u8>, SealError> {
    let cut = || SealError::malformed(what, "its frame is cut");
    let (length, rest) = frame.split_first_chunk::<4>().ok_or_else(cut)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut())?;
    let (deflated, padding) = rest.split_at_checked(length).ok_or_else(cut)?;
    if padding.iter().any(|b| *b != 0) {
        return Err(SealError::malformed(what, "its padding is not zero"));
    }
    let limit = most + what.len() + 1;
    let inflated = inflate(deflated, limit).map_err(|e| match e {
        InflateError::TooLarge { .. } => {
            SealError::BombOrTooLarge { what, limit: u64::try_from(most).unwrap_or(u64::MAX) }
        }
        InflateError::Malformed => SealError::malformed(what, e),
    })?;
    let record = inflated.strip_prefix(what.as_bytes()).and_then(|rest| rest.strip_prefix(b"\0"));
    record.map(<[u8]>::to_vec).ok_or_else(|| SealError::malformed(what, "it is a record of another kind"))
}

fn seal(
    what: &'static str,
    record: &[u8],
    signer: &SecretIdentity,
    reader: &Certificate,
    now: WallTime,
) -> Result<Vec<u8>, SealError> {
    let step = if what == NR { NR_PADDING } else { NS_PADDING };
    let frame = frame(what, record, RECORD_MAX, step)?;
    let mut sealed = Vec::with_capacity(frame.len() + 1024);
    let readers = std::slice::from_ref(reader);
    let build = Build { signer: Some((signer, now)), readers, compress: None };
    packets::build(&mut Cursor::new(frame), &build, &mut sealed)?;
    if sealed.len() > NOTICE_MAX {
        return Err(SealError::BombOrTooLarge { what, limit: u64::try_from(NOTICE_MAX).unwrap_or(u64::MAX) });
    }
    Ok(sealed)
}

/// A sealed record without its encryption.
struct Decrypted {
    signed: Vec<u8>,
    /// What the signed message has in it: the record, framed.
    frame: Vec<u8>,
}

/// Takes the encryption off: the signed message, and the record that it claims to be.
fn decrypt(what: &'static str, sealed: &[u8], me: &SecretIdentity) -> Result<(Decrypted, Vec<u8>), SealError> {
    if sealed.len() > NOTICE_MAX {
        return Err(SealError::BombOrTooLarge { what, limit: u64::try_from(NOTICE_MAX).unwrap_or(u64::MAX) });
    }
    let mut signed = Vec::with_capacity(sealed.len());
    packets::decrypt(what, Cursor::new(sealed), me, &mut signed)?;
    let frame = packets::unverified_literal(what, &signed)?;
    let record = unframe(what, &frame, RECORD_MAX)?;
    Ok((Decrypted { signed, frame }, record))
}

/// The framed record of a signed message, once `sender`'s signature on it is good.
fn verify_frame(what: &'static str, signed: &[u8], sender: &Certificate) -> Result<Vec<u8>, SealError> {
    let mut frame = Vec::with_capacity(signed.len());
    let cap = u64::try_from(signed.len().min(NOTICE_MAX)).unwrap_or(u64::MAX);
    verify_as(what, Cursor::new(signed), sender, cap, &mut frame)?;
    Ok(frame)
}

impl Decrypted {
    /// That `sender` signed what it claimed to be.
    fn verify(&self, what: &'static str, sender: &Certificate) -> Result<(), SealError> {
        if verify_frame(what, &self.signed, sender)? == self.frame {
            Ok(())
        } else {
            Err(SealError::refused(what, "what is signed is not what it claimed"))
        }
    }
}

/// Seals another small record to one reader: what it is, and its encoded form.
pub(super) fn seal_record(
    what: &'static str,
    record: &[u8],
    signer: &SecretIdentity,
    reader: &Certificate,
    now: WallTime,
) -> Result<Vec<u8>, SealError> {
    seal(what, record, signer, reader, now)
}

/// Takes the encryption off such a record; what is inside is still to be verified.
pub(super) fn decrypt_record(what: &'static str, sealed: &[u8], me: &SecretIdentity) -> Result<Vec<u8>, SealError> {
    decrypt(what, sealed, me).map(|(decrypted, _)| decrypted.signed)
}

/// The encoded form of such a record, once `sender`'s signature on it is good.
pub(crate) fn verify_record(what: &'static str, signed: &[u8], sender: &Certificate) -> Result<Vec<u8>, SealError> {
    unframe(what, &verify_frame(what, signed, sender)?, RECORD_MAX)
}

/// The record that a signed message claims to be, without its encryption.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn unverified_record(what: &'static str, signed: &[u8]) -> Result<Vec<u8>, SealError> {
    unframe(what, &packets::unverified_literal(what, signed)?, RECORD_MAX)
}

fn check_to(what: &'static str, to: &Address, me: &SecretIdentity) -> Result<(), SealError> {
    if me.certificate().address() == Some(to) {
        Ok(())
    } else {
        Err(SealError::refused(what, format_args!("it is for {to}, and was turned to {}", me.certificate().holder())))
    }
}

fn check_from(what: &'static str, from: &Address, sender: &Certificate) -> Result<(), SealError> {
    if sender.address() == Some(from) {
        Ok(())
    } else {
        Err(SealError::refused(what, format_args!("it names {from} but {} signed it", sender.holder())))
    }
}

/// Seals an ns to its reader.
///
/// # Errors
/// [`SealError::BombOrTooLarge`] when its header block and structure do not fit; [`SealError::Refused`] when it does not name
/// `signer` as its sender or `reader` as its reader, which no reader would take.
pub fn seal_ns(ns: &Ns, signer: &SecretIdentity, reader: &Certificate, now: WallTime) -> Result<Vec<u8>, SealError> {
    check_ns(ns, signer.certificate())?;
    if reader.address() != Some(&ns.to) {
        return Err(SealError::refused(NS, format_args!("it is for {}, not for {}", ns.to, reader.holder())));
    }
    seal(NS, &wire::encode(ns), signer, reader, now)
}

fn check_ns(ns: &Ns, sender: &Certificate) -> Result<(), SealError> {
    check_from(NS, &ns.from, sender)?;
    if ns.from_fingerprint != sender.fingerprint() {
        return Err(SealError::refused(NS, "it names another key than the one that signed it"));
    }
    if ns.group != *ns.from.group() {
        return Err(SealError::refused(NS, "it names another group than its sender's"));
    }
    if ns.header_block.len() > NS_HEADERS_MAX {
        return Err(SealError::refused(NS, format_args!("its header block has more than {NS_HEADERS_MAX} bytes")));
    }
    Ok(())
}

/// An ns that was opened, not believed. What it claims is good for one thing: to find its sender's certificate.
pub struct UnverifiedNs {
    claimed: Ns,
    decrypted: Decrypted,
}

impl std::fmt::Debug for UnverifiedNs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UnverifiedNs(claims to be from {})", self.claimed.from)
    }
}

/// Opens a sealed ns.
///
/// # Errors
/// [`SealError::NotForMe`], [`SealError::Malformed`] or [`SealError::BombOrTooLarge`]; [`SealError::Refused`] when it was
/// written for somebody else and turned to this peer.
pub fn decrypt_ns(sealed: &[u8], me: &SecretIdentity) -> Result<UnverifiedNs, SealError> {
    let (decrypted, record) = decrypt(NS, sealed, me)?;
    let claimed: Ns = wire::decode(&record)?;
    check_to(NS, &claimed.to, me)?;
    Ok(UnverifiedNs { claimed, decrypted })
}

impl UnverifiedNs {
    /// The sender that it claims.
    pub fn from(&self) -> &Address {
        &self.claimed.from
    }
    /// The fingerprint that it claims of its sender.
    pub fn fingerprint(&self) -> Fingerprint {
        self.claimed.from_fingerprint
    }
    /// The group that it claims of its sender.
    pub fn group(&self) -> &GroupName {
        &self.claimed.group
    }
    /// The group key's fingerprint that it claims.
    pub fn group_key(&self) -> Fingerprint {
        self.claimed.group_key
    }
    /// The ns, once `sender` is shown to have signed it and to be the one that it names.
    ///
    /// # Errors
    /// [`SealError::Signature`] or [`SealError::Refused`]; nothing of such an ns may be shown.
    pub fn verify(self, sender: &Certificate) -> Result<Ns, SealError> {
        self.decrypted.verify(NS, sender)?;
        check_ns(&self.claimed, sender)?;
        Ok(self.claimed)
    }
}

/// Seals an nr to the sender of the mail it is about.
///
/// # Errors
/// [`SealError::Refused`] when it does not name `signer` as the reader or `sender` as whom it is for.
pub fn seal_nr(nr: &Nr, signer: &SecretIdentity, sender: &Certificate, now: WallTime) -> Result<Vec<u8>, SealError> {
    check_from(NR, &nr.reader, signer.certificate())?;
    if sender.address() != Some(&nr.to) {
        return Err(SealError::refused(NR, format_args!("it is for {}, not for {}", nr.to, sender.holder())));
    }
    seal(NR, &wire::encode(nr), signer, sender, now)
}

/// An nr that was opened, not believed.
pub struct UnverifiedNr {
    claimed: Nr,
    decrypted: Decrypted,
}

impl std::fmt::Debug for UnverifiedNr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UnverifiedNr(claims to be from {})", self.claimed.reader)
    }
}

/// Opens a sealed nr.
///
/// # Errors
/// As [`decrypt_ns`].
pub fn decrypt_nr(sealed: &[u8], me: &SecretIdentity) -> Result<UnverifiedNr, SealError> {
    let (decrypted, record) = decrypt(NR, sealed, me)?;
    let claimed: Nr = wire::decode(&record)?;
    check_to(NR, &claimed.to, me)?;
    Ok(UnverifiedNr { claimed, decrypted })
}

impl UnverifiedNr {
    /// The reader that it claims: whose certificate to check it with is known from the ns that it answers.
    pub fn reader(&self) -> &Address {
        &self.claimed.reader
    }
    /// The mail that it claims to be about.
    pub fn submission(&self) -> crate::model::SubmissionId {
        self.claimed.submission
    }
    /// The nr, once `reader` is shown to have signed it and to be the one that it names (R4).
    ///
    /// # Errors
    /// [`SealError::Signature`] or [`SealError::Refused`]; such an nr frees nothing.
    pub fn verify(self, reader: &Certificate) -> Result<Nr, SealError> {
        self.decrypted.verify(NR, reader)?;
        check_from(NR, &self.claimed.reader, reader)?;
        Ok(self.claimed)
    }
}

/// Seals what only its owner will read again (`MailEntry::for_owner`). Not signed: the msglist that carries it is.
///
/// # Errors
/// [`SealError::BombOrTooLarge`] above 256 KiB.
pub fn seal_for_owner(note: &[u8], me: &SecretIdentity) -> Result<Vec<u8>, SealError> {
    let frame = frame(FOR_OWNER, note, OWNER_MAX, OWNER_PADDING)?;
    let mut sealed = Vec::with_capacity(frame.len() + 512);
    let readers = std::slice::from_ref(me.certificate());
    packets::build(&mut Cursor::new(frame), &Build { signer: None, readers, compress: None }, &mut sealed)?;
    Ok(sealed)
}

/// Opens what [`seal_for_owner`] sealed. Believe it only as part of a msglist whose chain and head are verified.
///
/// # Errors
/// [`SealError`] when it is not this owner's or not whole.
pub fn open_for_owner(sealed: &[u8], me: &SecretIdentity) -> Result<Vec<u8>, SealError> {
    if sealed.len() > OWNER_MAX + NOTICE_MAX {
        let limit = u64::try_from(OWNER_MAX).unwrap_or(u64::MAX);
        return Err(SealError::BombOrTooLarge { what: FOR_OWNER, limit });
    }
    let mut message = Vec::with_capacity(sealed.len());
    packets::decrypt(FOR_OWNER, Cursor::new(sealed), me, &mut message)?;
    unframe(FOR_OWNER, &packets::unverified_literal(FOR_OWNER, &message)?, OWNER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::notification::Outcome;
    use crate::model::structure::{Extent, Fields, Kind, Node, Structure};
    use crate::model::{Digest, MailId, PeerId, Secret, SubmissionId};

    const NOW: WallTime = WallTime(1_700_000_000_000);

    fn identity(address: &str) -> SecretIdentity {
        SecretIdentity::generate(&address.parse().unwrap(), NOW).unwrap()
    }

    fn ns(from: &SecretIdentity, to: &SecretIdentity, header_block: Vec<u8>) -> Ns {
        let address = |id: &SecretIdentity| id.certificate().address().unwrap().clone();
        let extent = Extent { start: 0, end: 10 };
        let root = Node { header: extent, body: extent, lines: 3, fields: Fields::default(), kind: Kind::Leaf };
        Ns {
            submission: SubmissionId::new([1; 16]),
            h: MailId::new([2; 20]),
            length: 1234,
            digest: Digest::new([3; 32]),
            to: address(to),
            from: address(from),
            from_fingerprint: from.fingerprint(),
            owner: PeerId::new([4; 32]),
            group: address(from).group().clone(),
            group_key: Fingerprint::new([5; 20]),
            expiry: WallTime(99),
            header_block,
            structure: Structure { version: 1, size: 900, root },
            secret: Secret::new([6; 32]),
        }
    }

    fn nr(reader: &SecretIdentity, to: &SecretIdentity) -> Nr {
        Nr {
            submission: SubmissionId::new([1; 16]),
            h: MailId::new([2; 20]),
            reader: reader.certificate().address().unwrap().clone(),
            to: to.certificate().address().unwrap().clone(),
            outcome: Outcome::Received,
            at: NOW,
        }
    }

    #[test]
    fn an_ns_reaches_its_reader_and_tells_nobody_else_anything() {
        let (alice, carol) = (identity("alice@acme"), identity("carol@beta"));
        let ns = ns(&alice, &carol, b"Subject: canary-word\r\n\r\n".to_vec());
        let sealed = seal_ns(&ns, &alice, carol.certificate(), NOW).unwrap();
        for secret in ["canary", "alice", "carol", "acme"] {
            assert!(!sealed.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret}");
        }
        let opened = decrypt_ns(&sealed, &carol).unwrap();
        assert_eq!((opened.from(), opened.fingerprint()), (&ns.from, alice.fingerprint()));
        assert_eq!((opened.group(), opened.group_key()), (&ns.group, ns.group_key));
        assert!(!format!("{opened:?}").contains("canary"));
        assert_eq!(opened.verify(alice.certificate()).unwrap(), ns);
        assert!(matches!(decrypt_ns(&sealed, &alice), Err(SealError::NotForMe { .. })));
    }

    #[test]
    fn ns_of_different_subjects_have_one_length() {
        let (alice, carol) = (identity("alice@acme"), identity("carol@beta"));
        let length = |n| seal_ns(&ns(&alice, &carol, vec![b'x'; n]), &alice, carol.certificate(), NOW).unwrap().len();
        // OpenPGP leaves out leading zeros of the numbers in a signature and of a session key, whatever is sealed: a byte each,
        // now and then. A step of padding is 1 KiB.
        assert!(length(1).abs_diff(length(200)) <= 8);
        let framed = |n| frame("ns", &vec![b'x'; n], RECORD_MAX, NS_PADDING).unwrap().len();
        assert_eq!(framed(1), framed(200));
    }

    #[test]
    fn an_ns_of_another_signer_than_it_names_is_refused() {
        let (alice, carol, mallory) = (identity("alice@acme"), identity("carol@beta"), identity("mallory@acme"));
        let forged = ns(&alice, &carol, b"x".to_vec());
        assert!(matches!(seal_ns(&forged, &mallory, carol.certificate(), NOW), Err(SealError::Refused { .. })));
        let sealed = seal(NS, &wire::encode(&forged), &mallory, carol.certificate(), NOW).unwrap();
        let by = |cert: &Certificate| decrypt_ns(&sealed, &carol).unwrap().verify(cert);
        assert!(matches!(by(alice.certificate()), Err(SealError::Signature { .. })));
        assert!(matches!(by(mallory.certificate()), Err(SealError::Refused { .. })));
        let same_name = identity("alice@acme");
        let sealed = seal(NS, &wire::encode(&forged), &same_name, carol.certificate(), NOW).unwrap();
        let outcome = decrypt_ns(&sealed, &carol).unwrap().verify(same_name.certificate());
        assert!(matches!(outcome, Err(SealError::Refused { .. })), "same address, another key");
    }

    #[test]
    fn an_ns_turned_to_somebody_else_is_noticed() {
        let (alice, carol, dave) = (identity("alice@acme"), identity("carol@beta"), identity("dave@beta"));
        let ns = ns(&alice, &carol, b"x".to_vec());
        assert!(seal_ns(&ns, &alice, dave.certificate(), NOW).is_err());
        // Carol opens it and seals what Alice signed to Dave.
        let (signed, _) = decrypt(NS, &seal_ns(&ns, &alice, carol.certificate(), NOW).unwrap(), &carol).unwrap();
        let turned = packets::tests_only_encrypt(&signed.signed, dave.certificate());
        assert!(matches!(decrypt_ns(&turned, &dave), Err(SealError::Refused { .. })));
    }

    #[test]
    fn every_altered_byte_of_an_ns_is_noticed() {
        let (alice, carol) = (identity("alice@acme"), identity("carol@beta"));
        let sealed = seal_ns(&ns(&alice, &carol, b"x".to_vec()), &alice, carol.certificate(), NOW).unwrap();
        let good = decrypt_ns(&sealed, &carol).unwrap().verify(alice.certificate()).unwrap();
        for i in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[i] ^= 0x10;
            let outcome = decrypt_ns(&altered, &carol).and_then(|ns| ns.verify(alice.certificate()));
            // Bits of an encoding that OpenPGP ignores may change; what is believed may not.
            assert!(outcome.is_err() || outcome.unwrap() == good, "byte {i}");
        }
        assert!(decrypt_ns(&sealed[..sealed.len() - 1], &carol).is_err());
    }

    #[test]
    fn the_largest_ns_fits_and_a_larger_one_is_refused() {
        let (alice, carol) = (identity("alice@acme"), identity("carol@beta"));
        let noise: Vec<u8> = blake3::Hasher::new().finalize_xof().take_bytes(NS_HEADERS_MAX);
        let sealed = seal_ns(&ns(&alice, &carol, noise.clone()), &alice, carol.certificate(), NOW).unwrap();
        assert!(sealed.len() <= NOTICE_MAX);
        decrypt_ns(&sealed, &carol).unwrap().verify(alice.certificate()).unwrap();
        let larger = ns(&alice, &carol, vec![0; NS_HEADERS_MAX + 1]);
        assert!(seal_ns(&larger, &alice, carol.certificate(), NOW).is_err());
        assert!(matches!(decrypt_ns(&vec![0; NOTICE_MAX + 1], &carol), Err(SealError::BombOrTooLarge { .. })));
    }

    trait TakeBytes {
        fn take_bytes(self, n: usize) -> Vec<u8>;
    }
    impl TakeBytes for blake3::OutputReader {
        fn take_bytes(mut self, n: usize) -> Vec<u8> {
            let mut bytes = vec![0; n];
            self.fill(&mut bytes);
            bytes
        }
    }

    #[test]
    fn a_bomb_in_a_frame_and_a_record_of_another_kind_are_refused() {
        let bomb = frame(NS, &vec![0; 10 << 20], 10 << 20, NS_PADDING).unwrap();
        assert!(matches!(unframe(NS, &bomb, RECORD_MAX), Err(SealError::BombOrTooLarge { .. })));
        let (alice, carol) = (identity("alice@acme"), identity("carol@beta"));
        let sealed = seal_nr(&nr(&alice, &carol), &alice, carol.certificate(), NOW).unwrap();
        assert!(matches!(decrypt_ns(&sealed, &carol), Err(SealError::Malformed { .. })));
        let mut padded = frame(NS, b"x", 100, NS_PADDING).unwrap();
        assert_eq!(padded.len(), NS_PADDING);
        padded[1000] = 1;
        assert!(unframe(NS, &padded, 100).is_err() && unframe(NS, &[0, 0], 100).is_err());
        assert!(unframe(NS, &[255; 8], 100).is_err());
    }

    #[test]
    fn nr_of_any_outcome_and_usual_addresses_have_one_length() {
        use crate::model::notification::Refusal;
        let (reader, to) = ("wilhelmina.featherstone@a-long-name", "maximilian.von.habsburg@another-group");
        let (reader, to) = (identity(reader), identity(to));
        use Refusal::{Expired, Mismatch, Sender, TooLarge, UnknownAddress, Unread};
        let refused = [Unread, Sender, UnknownAddress, Mismatch, Expired, TooLarge].map(Outcome::Refused);
        for outcome in [Outcome::Received].into_iter().chain(refused) {
            for (reader, to) in [(identity("a@b"), identity("c@d")), (reader.clone(), to.clone())] {
                let nr = Nr { outcome, ..nr(&reader, &to) };
                let framed = frame(NR, &wire::encode(&nr), RECORD_MAX, 1).unwrap().len();
                assert!(framed <= NR_PADDING, "{framed}");
                // What signing and sealing add: a short mail has that three times.
                let sealed = seal_nr(&nr, &reader, to.certificate(), NOW).unwrap().len();
                assert!(sealed <= NR_PADDING + 300, "{sealed}");
            }
        }
    }

    #[test]
    fn an_nr_is_the_readers_signed_word_or_nothing() {
        let (alice, carol, mallory) = (identity("alice@acme"), identity("carol@beta"), identity("mallory@beta"));
        let nr = nr(&carol, &alice);
        let sealed = seal_nr(&nr, &carol, alice.certificate(), NOW).unwrap();
        let opened = decrypt_nr(&sealed, &alice).unwrap();
        assert_eq!((opened.reader(), opened.submission()), (&nr.reader, nr.submission));
        assert_eq!(opened.verify(carol.certificate()).unwrap(), nr);
        let forged = seal(NR, &wire::encode(&nr), &mallory, alice.certificate(), NOW).unwrap();
        let by = |cert: &Certificate| decrypt_nr(&forged, &alice).unwrap().verify(cert);
        assert!(by(carol.certificate()).is_err() && by(mallory.certificate()).is_err());
        assert!(seal_nr(&nr, &mallory, alice.certificate(), NOW).is_err());
        assert!(seal_nr(&nr, &carol, mallory.certificate(), NOW).is_err());
    }

    #[test]
    fn an_owner_opens_its_own_note_and_nobody_else_does() {
        let (alice, carol) = (identity("alice@acme"), identity("carol@beta"));
        let note = b"canary: submission, receivers, secret".to_vec();
        let sealed = seal_for_owner(&note, &alice).unwrap();
        assert!(sealed.len() < 600, "{}", sealed.len());
        assert_eq!(open_for_owner(&sealed, &alice).unwrap(), note);
        assert!(matches!(open_for_owner(&sealed, &carol), Err(SealError::NotForMe { .. })));
        assert!(seal_for_owner(&vec![0; OWNER_MAX + 1], &alice).is_err());
        assert_eq!(open_for_owner(&seal_for_owner(&[7; OWNER_MAX], &alice).unwrap(), &alice).unwrap().len(), OWNER_MAX);
    }
}
