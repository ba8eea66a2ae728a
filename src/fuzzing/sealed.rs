//! Targets for what is sealed or signed with OpenPGP: ns, nr, mail, certificates, peer descriptors, gd. What a fuzzer cannot make,
//! an encryption and a signature, the targets put around its input with the keys of `tests/fixtures/`.

use std::io::{self, Write};
use std::sync::LazyLock;

use crate::mime::section::{self, known_header};
use crate::mime::{Section, ns_headers_len};
use crate::model::group::{GroupDescriptor, KeyHandover, PeerDescriptor};
use crate::model::notification::{Nr, Ns};
use crate::model::structure::Structure;
use crate::model::{Address, WallTime};
use crate::seal::keys::CERTIFICATE_MAX;
use crate::seal::notice::{self, RECORD_MAX};
use crate::seal::{
    Certificate, Holder, PgpRecord, PgpSigned, SealError, SecretIdentity, decrypt_nr, decrypt_ns, open_for_owner,
    open_mail, strip_encryption, verify_descriptor, verify_gd, verify_signed,
};
use crate::wire::laws::{decodes, door, encodes_and_decodes};

/// Who sends what the targets open.
pub(super) static SENDER: LazyLock<SecretIdentity> =
    LazyLock::new(|| SecretIdentity::from_bytes(include_bytes!("../../tests/fixtures/v1/sender.key")).unwrap());
/// Whose peer opens it.
pub(super) static READER: LazyLock<SecretIdentity> =
    LazyLock::new(|| SecretIdentity::from_bytes(include_bytes!("../../tests/fixtures/v1/reader.key")).unwrap());
/// The key of a group.
pub(super) static GROUP: LazyLock<SecretIdentity> =
    LazyLock::new(|| SecretIdentity::from_bytes(include_bytes!("../../tests/fixtures/v1/group.key")).unwrap());

/// When the targets sign.
pub(super) const NOW: WallTime = WallTime(1_700_000_000_000);
/// Most bytes of a clear mail that the targets open.
const CAP: u64 = 4096;

/// The address of a peer's key.
fn address(of: &SecretIdentity) -> Address {
    of.certificate().address().unwrap().clone()
}

/// ns: sealed, without its encryption, without its signature, without its frame, and well sealed by its sender.
pub fn ns(data: &[u8]) {
    let Some((which, rest)) = door(data, 5) else { return };
    match which {
        0 => drop(decrypt_ns(rest, &READER).and_then(|ns| ns.verify(SENDER.certificate()))),
        1 => inside_the_encryption("ns", rest),
        2 => framed("ns", rest),
        3 => drop(decodes::<Ns>(rest).map(|ns| header_and_structure(&ns.header_block, &ns.structure))),
        _ => {
            let Some(mut ns) = decodes::<Ns>(rest) else { return };
            (ns.to, ns.from) = (address(&READER), address(&SENDER));
            (ns.from_fingerprint, ns.group) = (SENDER.fingerprint(), ns.from.group().clone());
            let Ok(sealed) = crate::seal::seal_ns(&ns, &SENDER, READER.certificate(), NOW) else { return };
            let opened = decrypt_ns(&sealed, &READER).unwrap().verify(SENDER.certificate()).unwrap();
            assert_eq!(opened, ns);
        }
    }
}

/// nr, as [`ns`].
pub fn nr(data: &[u8]) {
    let Some((which, rest)) = door(data, 5) else { return };
    match which {
        0 => drop(decrypt_nr(rest, &SENDER).and_then(|nr| nr.verify(READER.certificate()))),
        1 => inside_the_encryption("nr", rest),
        2 => framed("nr", rest),
        3 => drop(decodes::<Nr>(rest)),
        _ => {
            let Some(mut nr) = decodes::<Nr>(rest) else { return };
            (nr.reader, nr.to) = (address(&READER), address(&SENDER));
            let sealed = crate::seal::seal_nr(&nr, &READER, SENDER.certificate(), NOW).unwrap();
            assert_eq!(decrypt_nr(&sealed, &SENDER).unwrap().verify(READER.certificate()).unwrap(), nr);
        }
    }
}

/// What lies inside the encryption, as a hostile sender makes it.
fn inside_the_encryption(what: &'static str, message: &[u8]) {
    let claimed = notice::unverified_record(what, message);
    let verified = notice::verify_record(what, message, SENDER.certificate());
    for record in [&claimed, &verified].into_iter().flatten() {
        assert!(record.len() <= RECORD_MAX);
    }
    if let (Ok(claimed), Ok(verified)) = (&claimed, &verified) {
        assert_eq!(claimed, verified, "a claim and its proof are read from the same bytes");
    }
}

/// A frame as a hostile sender makes it, and the frame of any record.
fn framed(what: &'static str, bytes: &[u8]) {
    if let Ok(record) = notice::unframe(what, bytes, RECORD_MAX) {
        assert!(record.len() <= RECORD_MAX);
        let again = notice::frame(what, &record, RECORD_MAX, 1024).unwrap();
        assert_eq!(notice::unframe(what, &again, RECORD_MAX).unwrap(), record);
    }
    match notice::frame(what, bytes, RECORD_MAX, 1024) {
        Ok(frame) => {
            assert!(frame.len().is_multiple_of(1024));
            assert_eq!(notice::unframe(what, &frame, RECORD_MAX).unwrap(), bytes);
            let other = if what == "ns" { "nr" } else { "ns" };
            assert!(notice::unframe(other, &frame, RECORD_MAX).is_err(), "one kind cannot pass for another");
        }
        Err(error) => assert!(bytes.len() > RECORD_MAX, "{error}"),
    }
}

/// What a stub is shown from, whatever a sender says of its mail.
pub(super) fn header_and_structure(header_block: &[u8], structure: &Structure) {
    ns_headers_len(structure, header_block);
    for text in ["", "HEADER", "TEXT", "1", "1.MIME", "1.HEADER", "2.1", "1.1.1.TEXT", "3.2.HEADER"] {
        let section: Section = text.parse().unwrap();
        section::resolve(structure, &section);
        if let Some(block) = known_header(structure, header_block, &section) {
            assert!(u64::try_from(block.len()).is_ok_and(|n| n <= structure.size.max(n)));
        }
    }
    super::mail::stub_is_shown(header_block, structure);
}

/// A writer that takes no more than a cap: what is written beyond it breaks the law.
struct Capped(u64);

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += u64::try_from(bytes.len()).unwrap();
        assert!(self.0 <= CAP, "more than the cap came out");
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Mail, certificates and identities: as they come, and as a hostile sender encrypts them. The cap holds for every byte.
pub fn openpgp(data: &[u8]) {
    let Some((which, rest)) = door(data, 5) else { return };
    let sender = SENDER.certificate();
    match which {
        0 => {
            opened(rest, open_mail(rest, &READER, sender, CAP, Capped(0)).map(|opened| opened.length));
            let mut signed = Vec::new();
            if strip_encryption(rest, &READER, &mut signed).is_ok() {
                assert!(signed.len() <= rest.len());
            }
            drop(open_for_owner(rest, &READER));
        }
        1 => opened(rest, verify_signed(rest, sender, CAP, Capped(0)).map(|opened| opened.length)),
        2 => {
            let sealed = crate::seal::tests_only_encrypt(rest, READER.certificate());
            opened(&sealed, open_mail(&sealed[..], &READER, sender, CAP, Capped(0)).map(|opened| opened.length));
            let mut inner = Vec::new();
            strip_encryption(&sealed[..], &READER, &mut inner).unwrap();
            assert_eq!(inner, rest);
        }
        3 => {
            let Ok(certificate) = Certificate::parse(rest) else { return };
            assert!(certificate.as_bytes().len() <= CERTIFICATE_MAX);
            let again = Certificate::parse(certificate.as_bytes()).unwrap();
            assert_eq!((again.as_bytes(), again.fingerprint()), (certificate.as_bytes(), certificate.fingerprint()));
        }
        _ => drop(SecretIdentity::from_bytes(rest)),
    }
}

/// What is said to have come out is within the cap, and a disk that works is not blamed.
fn opened(bytes: &[u8], result: Result<u64, SealError>) {
    match result {
        Ok(length) => assert!(length <= CAP),
        Err(SealError::Io { source, .. }) => panic!("{} bytes from memory: {source}", bytes.len()),
        Err(_) => {}
    }
}

/// Peer descriptors: as they come, as payloads, and signed by the key that they name.
pub fn peer_descriptor(data: &[u8]) {
    let Some((which, rest)) = door(data, 3) else { return };
    match which {
        0 => drop(verify_descriptor(rest).map(|d| encodes_and_decodes::<PeerDescriptor>(&d))),
        1 => drop(decodes::<PeerDescriptor>(rest)),
        _ => {
            let Some(mut descriptor) = decodes::<PeerDescriptor>(rest) else { return };
            descriptor.certificate = READER.certificate().as_bytes().to_vec();
            descriptor.address = address(&READER);
            signed_is_believed(descriptor, &READER);
        }
    }
}

/// Group descriptors, as [`peer_descriptor`], and the handovers of a group's key.
pub fn gd(data: &[u8]) {
    let Some((which, rest)) = door(data, 4) else { return };
    match which {
        0 => drop(verify_gd(rest, &GROUP.fingerprint()).map(|gd| encodes_and_decodes::<GroupDescriptor>(&gd))),
        1 => drop(decodes::<GroupDescriptor>(rest)),
        2 => {
            drop(PgpSigned::<KeyHandover>::verify(rest));
            drop(decodes::<KeyHandover>(rest));
        }
        _ => {
            let Some(mut gd) = decodes::<GroupDescriptor>(rest) else { return };
            let Holder::Group(group) = GROUP.certificate().holder() else { return };
            gd.group_certificate = GROUP.certificate().as_bytes().to_vec();
            gd.group = group.clone();
            signed_is_believed(gd, &GROUP);
        }
    }
}

/// What its key would sign is believed by others as it was meant; what it would not sign is nothing to believe.
fn signed_is_believed<T>(value: T, key: &SecretIdentity)
where
    T: PgpRecord + PartialEq + std::fmt::Debug + Clone,
{
    let Ok(signed) = PgpSigned::sign(value.clone(), key, NOW) else { return };
    let verified = PgpSigned::<T>::verify(signed.as_bytes()).unwrap();
    assert_eq!(*verified, value);
}
