//! Identities: a secret one that signs and opens, and the public certificate of it. Never prints or exports a secret but by
//! [`SecretIdentity::to_bytes`], whose caller keeps it in a file of mode 0600.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use openpgp::cert::{CertBuilder, CertParser, CipherSuite};
use openpgp::crypto::KeyPair;
use openpgp::parse::Parse as _;
use openpgp::policy::StandardPolicy;
use openpgp::serialize::MarshalInto as _;
use openpgp::types::{Features, KeyFlags};
use openpgp::{Cert, Profile};
use sequoia_openpgp as openpgp;
use zeroize::Zeroizing;

use super::SealError;
use crate::model::{Address, Fingerprint, GroupName, WallTime};

/// Largest certificate or identity that is read, bytes. Roost's own have about 500.
pub const CERTIFICATE_MAX: usize = 16 * 1024;

/// A new key is dated this long before its making, so that a clock that is put back does not make it unborn.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);

/// The moment at which certificates are judged: later than any signature, within OpenPGP's 32 bits (2096). Whatever expires at
/// all has expired by then and is refused, so the verdict depends on no clock.
pub(super) fn judgement_day() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000)
}

/// What OpenPGP algorithms are accepted.
pub(super) static POLICY: std::sync::LazyLock<StandardPolicy<'static>> = std::sync::LazyLock::new(StandardPolicy::new);

/// Wall time as OpenPGP writes it: whole seconds, in 32 bits.
pub(super) fn openpgp_time(at: WallTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_secs().min(4_000_000_000))
}

/// Whose certificate it is: what its one user id says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A peer's: the user id is its address.
    Peer(Address),
    /// A group's: the user id is `group:NAME`.
    Group(GroupName),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Peer(address) => write!(f, "{address}"),
            Holder::Group(group) => write!(f, "group:{group}"),
        }
    }
}

fn read_holder(text: &str) -> Option<Holder> {
    let holder = match text.strip_prefix("group:") {
        Some(group) => Holder::Group(group.parse().ok()?),
        None => Holder::Peer(text.parse().ok()?),
    };
    (holder.to_string() == text).then_some(holder)
}

/// A public OpenPGP certificate of a peer or a group, checked. Cheap to clone.
#[derive(Clone)]
pub struct Certificate(Arc<Inner>);

/// Certificates that were read of late, by the BLAKE3 of their bytes. The same bytes always make the same certificate, of which two
/// or three are needed for every mail, and to check one anew takes as long as to seal a short mail.
static READ: Mutex<BTreeMap<[u8; 32], Certificate>> = Mutex::new(BTreeMap::new());
/// Most of them, with about 5 KB each. Beyond it all are forgotten, which costs a check each.
const READ_MAX: usize = 512;

struct Inner {
    cert: Cert,
    fingerprint: Fingerprint,
    holder: Holder,
    bytes: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate: exactly one, version 4, public, with one user id that names a peer or a group, and with keys that
    /// sign and that encrypt, none of them revoked or meant to expire.
    ///
    /// # Errors
    /// [`SealError::Certificate`] says what does not fit.
    pub fn parse(bytes: &[u8]) -> Result<Self, SealError> {
        let name = *blake3::hash(bytes).as_bytes();
        if let Some(known) = READ.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Ok(known.clone());
        }
        let cert = read_cert(bytes)?;
        if cert.is_tsk() {
            return Err(SealError::certificate("it carries secret keys, which must stay at home"));
        }
        let certificate = Self::check(cert)?;
        let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
        if read.len() >= READ_MAX {
            read.clear();
        }
        read.insert(name, certificate.clone());
        Ok(certificate)
    }

    fn check(cert: Cert) -> Result<Self, SealError> {
        let openpgp::Fingerprint::V4(fingerprint) = cert.fingerprint() else {
            return Err(SealError::certificate("it is not of version 4"));
        };
        let mut userids = cert.userids();
        let (Some(userid), None) = (userids.next(), userids.next()) else {
            return Err(SealError::certificate("it has not exactly one user id"));
        };
        let holder = std::str::from_utf8(userid.userid().value()).ok().and_then(read_holder);
        let holder =
            holder.ok_or_else(|| SealError::certificate("its user id is neither an address nor group:NAME"))?;
        let valid = cert.with_policy(&*POLICY, judgement_day()).map_err(SealError::certificate)?;
        if valid.userids().next().is_none() {
            return Err(SealError::certificate("its user id is not signed by itself"));
        }
        let keys = || valid.keys().supported().alive().revoked(false);
        if keys().for_signing().next().is_none() || keys().for_transport_encryption().next().is_none() {
            return Err(SealError::certificate("it has no lasting key that signs, or none that encrypts"));
        }
        let bytes = cert.export_to_vec().map_err(|e| SealError::openpgp("writing a certificate", e))?;
        if bytes.len() > CERTIFICATE_MAX {
            return Err(SealError::certificate("it is too large"));
        }
        Ok(Self(Arc::new(Inner { fingerprint: Fingerprint::new(fingerprint), holder, bytes, cert })))
    }

    /// Its minimal binary form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes
    }
    /// Its fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }
    /// Whose it is, by its own word. Whether to believe it is decided by who vouches for the fingerprint.
    pub fn holder(&self) -> &Holder {
        &self.0.holder
    }
    /// The address, when it is a peer's.
    pub fn address(&self) -> Option<&Address> {
        match &self.0.holder {
            Holder::Peer(address) => Some(address),
            Holder::Group(_) => None,
        }
    }
    pub(super) fn cert(&self) -> &Cert {
        &self.0.cert
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}
impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, {})", self.0.holder, self.0.fingerprint)
    }
}

fn read_cert(bytes: &[u8]) -> Result<Cert, SealError> {
    if bytes.len() > CERTIFICATE_MAX {
        return Err(SealError::certificate(format!(
            "it has {} bytes, at most {CERTIFICATE_MAX} are read",
            bytes.len()
        )));
    }
    let mut certs = CertParser::from_bytes(bytes).map_err(SealError::certificate)?;
    let cert = certs.next().ok_or_else(|| SealError::certificate("there is none"))?.map_err(SealError::certificate)?;
    if certs.next().is_some() {
        return Err(SealError::certificate("there is more than one, or something follows it"));
    }
    Ok(cert)
}

/// An identity with its secret keys: a peer's own, or a group key. It never prints.
#[derive(Clone)]
pub struct SecretIdentity {
    cert: Cert,
    public: Certificate,
    signer: KeyPair,
    openers: Vec<KeyPair>,
}

impl SecretIdentity {
    /// A new identity of a peer: Ed25519 that certifies and signs, Curve25519 that encrypts.
    ///
    /// # Errors
    /// [`SealError::OpenPgp`] when the system has no randomness.
    pub fn generate(address: &Address, now: WallTime) -> Result<Self, SealError> {
        Self::generate_for(&Holder::Peer(address.clone()), now)
    }

    /// A new group key.
    ///
    /// # Errors
    /// [`SealError::OpenPgp`] when the system has no randomness.
    pub fn generate_group(group: &GroupName, now: WallTime) -> Result<Self, SealError> {
        Self::generate_for(&Holder::Group(group.clone()), now)
    }

    fn generate_for(holder: &Holder, now: WallTime) -> Result<Self, SealError> {
        let failed = |e: openpgp::anyhow::Error| SealError::openpgp("making a key", e);
        let (cert, _revocation) = CertBuilder::new()
            .set_profile(Profile::RFC4880)
            .map_err(failed)?
            .set_cipher_suite(CipherSuite::Cv25519)
            .set_features(Features::sequoia())
            .map_err(failed)?
            .set_creation_time(openpgp_time(now.before(BACKDATE)))
            .set_primary_key_flags(KeyFlags::empty().set_certification().set_signing())
            .add_userid(holder.to_string())
            .add_subkey(KeyFlags::empty().set_transport_encryption().set_storage_encryption(), None, None)
            .generate()
            .map_err(failed)?;
        Self::new(cert)
    }

    fn new(cert: Cert) -> Result<Self, SealError> {
        let public = Certificate::check(cert.clone().strip_secret_key_material())?;
        let valid = cert.with_policy(&*POLICY, judgement_day()).map_err(SealError::certificate)?;
        let usable = || valid.keys().supported().alive().revoked(false).unencrypted_secret();
        let pair = |key: openpgp::packet::Key<_, _>| {
            key.into_keypair().map_err(|e| SealError::openpgp("reading a secret key", e))
        };
        let signer = usable().for_signing().next().map(|ka| pair(ka.key().clone()));
        let signer = signer.ok_or_else(|| SealError::certificate("its secret signing key is missing or locked"))??;
        let openers: Vec<KeyPair> =
            usable().for_transport_encryption().map(|ka| pair(ka.key().clone())).collect::<Result<_, _>>()?;
        if openers.is_empty() {
            return Err(SealError::certificate("its secret encryption key is missing or locked"));
        }
        Ok(Self { cert, public, signer, openers })
    }

    /// Reads what [`SecretIdentity::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`SealError::Certificate`] when it is not one whole, unlocked identity.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        Self::new(read_cert(bytes)?)
    }

    /// The secret keys as a binary OpenPGP transferable secret key, not encrypted. For `identity/` only (mode 0600).
    ///
    /// # Errors
    /// [`SealError::OpenPgp`] when it cannot be written.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let bytes = self.cert.as_tsk().to_vec().map_err(|e| SealError::openpgp("writing a secret key", e))?;
        Ok(Zeroizing::new(bytes))
    }

    /// The public certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.public
    }
    /// The fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.public.fingerprint()
    }
    pub(super) fn signer(&self) -> KeyPair {
        self.signer.clone()
    }
    pub(super) fn openers(&self) -> Vec<KeyPair> {
        self.openers.clone()
    }
    /// The time to date a signature with: not before the key itself, or nobody would believe it.
    pub(super) fn signing_time(&self, now: WallTime) -> SystemTime {
        openpgp_time(now).max(self.signer.public().creation_time())
    }
}

impl fmt::Debug for SecretIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretIdentity({}, {})", self.public.holder(), self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime(1_700_000_000_000);

    fn alice() -> SecretIdentity {
        SecretIdentity::generate(&"alice@acme".parse().unwrap(), NOW).unwrap()
    }

    #[test]
    fn an_identity_is_the_same_after_it_was_written_and_read() {
        let alice = alice();
        let again = SecretIdentity::from_bytes(&alice.to_bytes().unwrap()).unwrap();
        assert_eq!(again.certificate(), alice.certificate());
        assert_eq!(again.to_bytes().unwrap(), alice.to_bytes().unwrap());
        let public = Certificate::parse(alice.certificate().as_bytes()).unwrap();
        assert_eq!(public.fingerprint(), alice.fingerprint());
        assert_eq!(public.address().unwrap().to_string(), "alice@acme");
        assert!(public.as_bytes().len() < 1000, "{}", public.as_bytes().len());
        let group = SecretIdentity::generate_group(&"acme".parse().unwrap(), NOW).unwrap();
        assert_eq!(group.certificate().holder(), &Holder::Group("acme".parse().unwrap()));
    }

    #[test]
    fn secrets_never_print_and_never_leave_in_a_certificate() {
        let alice = alice();
        let shown = format!("{alice:?} {:?}", alice.certificate());
        assert!(shown.contains("alice@acme") && !shown.to_lowercase().contains("secret:"), "{shown}");
        assert!(shown.len() < 200);
        assert!(!openpgp::Cert::from_bytes(alice.certificate().as_bytes()).unwrap().is_tsk());
        assert!(matches!(Certificate::parse(&alice.to_bytes().unwrap()), Err(SealError::Certificate { .. })));
        assert!(SecretIdentity::from_bytes(alice.certificate().as_bytes()).is_err());
    }

    #[test]
    fn what_is_not_exactly_one_certificate_is_refused() {
        let alice = alice();
        let bytes = alice.certificate().as_bytes();
        let refused = |bytes: &[u8]| matches!(Certificate::parse(bytes), Err(SealError::Certificate { .. }));
        assert!(refused(&[]) && refused(b"no certificate") && refused(&bytes[..bytes.len() / 2]));
        assert!(refused(&[bytes, bytes, self::alice().certificate().as_bytes()].concat()));
        assert!(refused(&vec![0; CERTIFICATE_MAX + 1]));
    }

    #[test]
    fn certificates_of_other_shapes_are_refused() {
        let make = |change: &dyn Fn(CertBuilder<'static>) -> CertBuilder<'static>| {
            let builder = CertBuilder::new().set_cipher_suite(CipherSuite::Cv25519);
            let (cert, _) = change(builder.set_creation_time(openpgp_time(NOW))).generate().unwrap();
            Certificate::parse(&cert.export_to_vec().unwrap())
        };
        let sign =
            |b: CertBuilder<'static>| b.set_primary_key_flags(KeyFlags::empty().set_certification().set_signing());
        let v4 = |b: CertBuilder<'static>| sign(b).set_profile(Profile::RFC4880).unwrap();
        assert!(make(&|b| v4(b).add_userid("alice@acme").add_transport_encryption_subkey()).is_ok());
        assert!(make(&|b| v4(b).add_userid("alice@acme")).is_err(), "nothing encrypts");
        assert!(make(&|b| v4(b).add_transport_encryption_subkey()).is_err(), "no user id");
        assert!(make(&|b| v4(b).add_userid("Alice <alice@acme>").add_transport_encryption_subkey()).is_err());
        assert!(make(&|b| v4(b).add_userid("Alice@acme").add_transport_encryption_subkey()).is_err());
        let two = |b| v4(b).add_userid("alice@acme").add_userid("bob@acme").add_transport_encryption_subkey();
        assert!(make(&two).is_err(), "two user ids");
        let short = |b| v4(b).set_validity_period(Duration::from_secs(1000));
        assert!(make(&|b| short(b).add_userid("alice@acme").add_transport_encryption_subkey()).is_err(), "expires");
        let v6 = |b| sign(b).set_profile(Profile::RFC9580).unwrap();
        assert!(make(&|b| v6(b).add_userid("alice@acme").add_transport_encryption_subkey()).is_err(), "version 6");
    }
}
