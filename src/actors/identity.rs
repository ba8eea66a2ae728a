//! A peer's identity on disk: its Ed25519 key, its OpenPGP keys, its app password as Argon2id. Nothing of it ever prints.

use std::fmt;
use std::sync::{Arc, Mutex};

use argon2::Argon2;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use zeroize::Zeroizing;

use crate::model::group::Member;
use crate::model::{Address, PeerId, Secret, WallTime};
use crate::seal::SealError;
use crate::seal::keys::SecretIdentity;
use crate::store::files::{FileError, read_bounded, write_durable};
use crate::store::home::Home;
use crate::wire::{PeerKey, WireError, decode, encode};

const PEER_KEY: &str = "peer.key";
const OPENPGP_KEY: &str = "openpgp.key";
const PASSWORD: &str = "password.argon2id";
/// Largest identity file, bytes.
const FILE_MAX: u64 = 64 * 1024;
/// Letters of an app password: none that look alike.
const PASSWORD_LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Groups of letters of an app password: 5 × 4 letters of 5 bits are 100 bits.
const PASSWORD_GROUPS: usize = 5;

/// Why an identity cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of `identity/` cannot be read or written.
    #[error("the identity cannot be read or written: {source}")]
    File {
        /// What the disk said.
        #[from]
        source: FileError,
    },
    /// The peer key's file is damaged.
    #[error("identity/peer.key is damaged: {source}; restore it from a backup")]
    PeerKey {
        /// What the decoder says.
        #[from]
        source: WireError,
    },
    /// The OpenPGP keys are damaged or cannot be made.
    #[error("identity/openpgp.key cannot be used: {source}; restore it from a backup")]
    OpenPgp {
        /// What OpenPGP says.
        #[from]
        source: SealError,
    },
    /// The password's hash is damaged.
    #[error("the app password's hash cannot be used: {why}")]
    Password {
        /// What Argon2 says.
        why: String,
    },
    /// The machine has no randomness.
    #[error("the operating system gives no randomness: {why}")]
    Random {
        /// What it says.
        why: String,
    },
}

/// An app password, shown once. It is wiped when dropped.
pub struct AppPassword(Zeroizing<String>);

impl AppPassword {
    /// The password, for the one time that it is shown.
    pub fn expose(&self) -> &str {
        &self.0
    }
}
impl fmt::Debug for AppPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppPassword(…)")
    }
}

fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| IdentityError::Random { why: e.to_string() })?;
    Ok(bytes)
}

fn new_password() -> Result<AppPassword, IdentityError> {
    let letters = random::<{ PASSWORD_GROUPS * 4 }>()?;
    let mut text = Zeroizing::new(String::new());
    for (i, byte) in letters.iter().enumerate() {
        if i > 0 && i % 4 == 0 {
            text.push('-');
        }
        text.push(char::from(PASSWORD_LETTERS[usize::from(byte % 32)]));
    }
    Ok(AppPassword(text))
}

/// Who this peer is.
#[derive(Clone)]
pub struct Identity {
    /// Its Ed25519 key.
    pub key: PeerKey,
    /// Its OpenPGP keys.
    pub openpgp: Arc<SecretIdentity>,
    /// Its user's app password.
    pub login: Login,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id())
    }
}

impl Identity {
    /// Makes the identity of a new home and writes it to disk. The password is shown once and kept only as a hash.
    ///
    /// # Errors
    /// [`IdentityError`] when the disk fails or there is no randomness.
    pub fn create(home: &Home, address: &Address, now: WallTime) -> Result<AppPassword, IdentityError> {
        let seed = Secret::new(random::<32>()?);
        let openpgp = SecretIdentity::generate(address, now)?;
        let seed_bytes = Zeroizing::new(encode(&seed));
        write_durable(&home.identity_file(PEER_KEY), &seed_bytes, 0o600)?;
        write_durable(&home.identity_file(OPENPGP_KEY), &openpgp.to_bytes()?, 0o600)?;
        Self::new_password(home)
    }

    /// Replaces the app password.
    ///
    /// # Errors
    /// [`IdentityError`] when the disk fails or there is no randomness.
    pub fn new_password(home: &Home) -> Result<AppPassword, IdentityError> {
        let password = new_password()?;
        let salt = SaltString::generate(&mut OsRng);
        let hash = Argon2::default()
            .hash_password(password.expose().as_bytes(), &salt)
            .map_err(|e| IdentityError::Password { why: e.to_string() })?;
        write_durable(&home.identity_file(PASSWORD), hash.to_string().as_bytes(), 0o600)?;
        Ok(password)
    }

    /// Reads the identity of a home.
    ///
    /// # Errors
    /// [`IdentityError`] when a file is missing or damaged.
    pub fn load(home: &Home) -> Result<Self, IdentityError> {
        let seed_bytes = Zeroizing::new(read_bounded(&home.identity_file(PEER_KEY), FILE_MAX)?);
        let seed: Secret = decode(&seed_bytes)?;
        let openpgp = Zeroizing::new(read_bounded(&home.identity_file(OPENPGP_KEY), FILE_MAX)?);
        let hash = read_bounded(&home.identity_file(PASSWORD), FILE_MAX)?;
        let hash = String::from_utf8(hash).map_err(|e| IdentityError::Password { why: e.to_string() })?;
        PasswordHash::new(&hash).map_err(|e| IdentityError::Password { why: e.to_string() })?;
        Ok(Self {
            key: PeerKey::from_seed(seed.expose()),
            openpgp: Arc::new(SecretIdentity::from_bytes(&openpgp)?),
            login: Login { hash: Arc::new(hash), verified: Arc::default() },
        })
    }
    /// The public half of its key.
    pub fn peer_id(&self) -> PeerId {
        self.key.peer_id()
    }
    /// This peer as a gd names it.
    pub fn member(&self, address: &Address) -> Member {
        Member { address: address.clone(), peer_id: self.peer_id(), fingerprint: self.openpgp.fingerprint() }
    }
}

/// Checks the user's app password. Argon2id is meant to be slow, so the last good password's BLAKE3 is remembered.
#[derive(Clone)]
pub struct Login {
    hash: Arc<String>,
    verified: Arc<Mutex<Option<blake3::Hash>>>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

impl Login {
    /// Whether this is the password. Slow the first time: call it on the blocking pool.
    pub fn is_right(&self, password: &str) -> bool {
        let digest = blake3::hash(password.as_bytes());
        let mut verified = self.verified.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // `blake3::Hash` compares in constant time.
        if *verified == Some(digest) {
            return true;
        }
        let right = PasswordHash::new(&self.hash)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
        if right {
            *verified = Some(digest);
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_was_made_and_only_its_password_logs_in() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        let address: Address = "alice@acme".parse().unwrap();
        let password = Identity::create(&home, &address, crate::clock::system_wall()).unwrap();
        let (one, two) = (Identity::load(&home).unwrap(), Identity::load(&home).unwrap());
        assert_eq!(one.peer_id(), two.peer_id());
        assert_eq!(one.openpgp.fingerprint(), two.openpgp.fingerprint());
        assert_eq!(password.expose().len(), 24);
        assert!(one.login.is_right(password.expose()) && one.login.is_right(password.expose()));
        assert!(!one.login.is_right("wrong") && !two.login.is_right(""));
        assert!(!format!("{one:?} {password:?} {:?}", one.login).contains(password.expose()));
    }
}
