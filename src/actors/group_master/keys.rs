//! What is done with secret keys: making the group key, signing gds and the own descriptor. Always on the blocking pool; the
//! group key is read for each signature and never kept in memory.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use super::Kit;
use crate::core::group::{Input, NewGroup, OldKey, RecoveryCode, SignedDescriptor, SignedGd};
use crate::model::group::{GroupDescriptor, PeerDescriptor};
use crate::model::{Fingerprint, GroupName, WallTime};
use crate::seal::handover;
use crate::seal::keys::SecretIdentity;
use crate::seal::record::{self, PgpSigned};
use crate::seal::{Holder, SealError};
use crate::store::files::{FILE_MODE, FileError, read_bounded, remove_durable, write_durable};
use crate::store::home::Home;

/// Largest file of a group key, bytes.
const KEY_FILE_MAX: u64 = 64 * 1024;
/// How a recovery code starts.
const RECOVERY_PREFIX: &str = "roost-recovery:";
/// Bytes of BLAKE3 at its end: a mistyped one is told from a wrong one.
const CHECK_BYTES: usize = 4;

/// Why the group key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    /// The key's file cannot be read or written.
    #[error("its file cannot be used: {source}")]
    File {
        #[from]
        source: FileError,
    },
    /// OpenPGP refuses.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The file holds another key.
    #[error("{} holds the key of {holder}, not of group:{group}; move that file away", path.display())]
    OtherKey { path: PathBuf, holder: Holder, group: GroupName },
    /// The key of the group is another than those that are here.
    #[error("the group key {key} is not here: {} is missing", path.display())]
    Missing { key: Fingerprint, path: PathBuf },
    /// What was typed is no recovery code.
    #[error("this is no whole recovery code: it starts with \"roost-recovery:\"; copy the whole line")]
    Code,
    /// It is that of another key.
    #[error(
        "this recovery code is that of the key {found}, and the group's key is {key}; a code is of no use any more once the key was replaced"
    )]
    OtherCode { found: Fingerprint, key: Fingerprint },
    /// The runtime is going down.
    #[error("this peer is stopping")]
    Stopping,
}

/// The file of the first key of a group.
fn key_file(home: &Home, group: &GroupName) -> PathBuf {
    home.keys_dir().join(format!("group-{group}.key"))
}

/// The file of a key that came after it.
fn later_key_file(home: &Home, group: &GroupName, key: &Fingerprint) -> PathBuf {
    home.keys_dir().join(format!("group-{group}-{key}.key"))
}

fn read_key(home: &Home, group: &GroupName) -> Result<SecretIdentity, KeyError> {
    read_key_file(key_file(home, group), group)
}

fn read_key_file(path: PathBuf, group: &GroupName) -> Result<SecretIdentity, KeyError> {
    let bytes = Zeroizing::new(read_bounded(&path, KEY_FILE_MAX)?);
    let key = SecretIdentity::from_bytes(&bytes)?;
    match key.certificate().holder() {
        Holder::Group(name) if name == group => Ok(key),
        holder => Err(KeyError::OtherKey { path, holder: holder.clone(), group: group.clone() }),
    }
}

/// The key with this fingerprint, whichever file it is in.
pub(super) fn find_key(home: &Home, group: &GroupName, key: &Fingerprint) -> Result<SecretIdentity, KeyError> {
    let later = later_key_file(home, group, key);
    let found = match read_key_file(later.clone(), group) {
        Err(KeyError::File { source }) if source.is_not_found() => read_key(home, group)?,
        other => other?,
    };
    if found.fingerprint() == *key {
        return Ok(found);
    }
    Err(KeyError::Missing { key: *key, path: later })
}

/// Makes a key durable under its own name.
pub(super) fn keep_key(home: &Home, group: &GroupName, key: &SecretIdentity) -> Result<(), KeyError> {
    let file = later_key_file(home, group, &key.fingerprint());
    Ok(write_durable(&file, &key.to_bytes()?, FILE_MODE)?)
}

/// Removes every other key of this group.
fn forget_keys(home: &Home, group: &GroupName, but: &Fingerprint) -> Result<(), KeyError> {
    let folder = home.keys_dir();
    let unread = |e: std::io::Error| FileError::from_io(&folder, "read", &e);
    for entry in std::fs::read_dir(&folder).map_err(unread)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(&format!("group-{group}")) {
            continue;
        }
        if read_key_file(entry.path(), group).is_ok_and(|key| key.fingerprint() != *but) {
            remove_durable(&entry.path())?;
        }
    }
    Ok(())
}

/// The key that an interrupted attempt left, or a new one, durable before it is used.
fn make_key(home: &Home, group: &GroupName, now: WallTime) -> Result<SecretIdentity, KeyError> {
    match read_key(home, group) {
        Err(KeyError::File { source }) if source.is_not_found() => {}
        other => return other,
    }
    let key = SecretIdentity::generate_group(group, now)?;
    write_durable(&key_file(home, group), &key.to_bytes()?, FILE_MODE)?;
    Ok(key)
}

pub(super) fn recovery_code(key: &SecretIdentity) -> Result<RecoveryCode, KeyError> {
    let mut bytes = key.to_bytes()?;
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*bytes));
    Ok(RecoveryCode(Zeroizing::new(format!("{RECOVERY_PREFIX}{}", *text))))
}

/// The key in a recovery code, which must be `wanted`.
fn recovered_key(code: &RecoveryCode, wanted: &Fingerprint) -> Result<SecretIdentity, KeyError> {
    let text = code.0.trim().strip_prefix(RECOVERY_PREFIX).ok_or(KeyError::Code)?;
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Code)?);
    let (secret, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(KeyError::Code)?;
    if blake3::hash(secret).as_bytes()[..CHECK_BYTES] != check[..] {
        return Err(KeyError::Code);
    }
    let key = SecretIdentity::from_bytes(secret)?;
    if key.fingerprint() != *wanted {
        return Err(KeyError::OtherCode { found: key.fingerprint(), key: *wanted });
    }
    Ok(key)
}

pub(super) fn signed_gd(signed: PgpSigned<GroupDescriptor>) -> SignedGd {
    let (key, bytes) = (signed.signer().fingerprint(), ByteBuf::from(signed.as_bytes()));
    // Checked when the gd was; without it a pin would only not follow.
    let lineage = handover::lineage(&signed, signed.signer()).unwrap_or_default();
    SignedGd { gd: signed.into_value(), key, signed: bytes, lineage }
}

pub(super) fn signed_descriptor(signed: PgpSigned<PeerDescriptor>) -> SignedDescriptor {
    let (fingerprint, bytes) = (signed.signer().fingerprint(), ByteBuf::from(signed.as_bytes()));
    SignedDescriptor { descriptor: signed.into_value(), fingerprint, signed: bytes }
}

/// Runs it where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or(Err(KeyError::Stopping));
    done.map_err(|error| error.to_string())
}

impl Kit {
    pub(super) async fn sign_descriptor(self, descriptor: PeerDescriptor) -> Input {
        let signed = blocking(move || {
            let now = self.clock.now().wall;
            Ok(signed_descriptor(record::sign_descriptor(descriptor, &self.identity.openpgp, now)?))
        });
        let result = signed.await;
        if let Err(why) = &result {
            tracing::error!(%why, "this peer's own descriptor cannot be signed, so nobody can find it");
        }
        Input::DescriptorSigned(result)
    }

    pub(super) async fn create_group(self, mut gd: GroupDescriptor) -> Input {
        let made = blocking(move || {
            let now = self.clock.now().wall;
            let key = make_key(&self.home, &gd.group, now)?;
            gd.group_certificate = key.certificate().as_bytes().to_vec();
            let recovery = recovery_code(&key)?;
            Ok(NewGroup { gd: signed_gd(record::sign_gd(gd, &key, now)?), recovery })
        });
        Input::GroupCreated(made.await)
    }

    pub(super) async fn sign_gd(self, gd: GroupDescriptor, key: Fingerprint) -> Input {
        let signed = blocking(move || {
            let key = find_key(&self.home, &gd.group, &key)?;
            Ok(signed_gd(record::sign_gd(gd, &key, self.clock.now().wall)?))
        });
        Input::GdSigned(signed.await)
    }

    pub(super) async fn rotate_key(self, mut gd: GroupDescriptor, old: OldKey) -> Input {
        let made = blocking(move || {
            let now = self.clock.now().wall;
            let old = match &old {
                OldKey::Held(key) => find_key(&self.home, &gd.group, key)?,
                OldKey::Recovery { code, key } => recovered_key(code, key)?,
            };
            let new = SecretIdentity::generate_group(&gd.group, now)?;
            keep_key(&self.home, &gd.group, &new)?;
            gd.handovers.push(ByteBuf::from(handover::sign_handover(&old, new.certificate(), now)?));
            gd.group_certificate = new.certificate().as_bytes().to_vec();
            let recovery = recovery_code(&new)?;
            Ok(NewGroup { gd: signed_gd(record::sign_gd(gd, &new, now)?), recovery })
        });
        Input::KeyRotated(made.await)
    }

    pub(super) async fn forget_keys(self, group: GroupName, but: Fingerprint) {
        if let Err(why) = blocking(move || forget_keys(&self.home, &group, &but)).await {
            tracing::warn!(%why, "a group key that was replaced is still on this disk");
        }
    }
}
