//! What is done with secret keys: making the group key, signing gds and the own descriptor. Always on the blocking pool; the
//! group key is read for each signature and never kept in memory.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use super::Kit;
use crate::core::group::{Input, NewGroup, RecoveryCode, SignedDescriptor, SignedGd};
use crate::model::group::{GroupDescriptor, PeerDescriptor};
use crate::model::{GroupName, WallTime};
use crate::seal::keys::SecretIdentity;
use crate::seal::record::{self, PgpSigned};
use crate::seal::{Holder, SealError};
use crate::store::files::{FILE_MODE, FileError, read_bounded, write_durable};
use crate::store::home::Home;

/// Largest file of a group key, bytes.
const KEY_FILE_MAX: u64 = 64 * 1024;
/// How a recovery code starts.
const RECOVERY_PREFIX: &str = "roost-recovery:";
/// Bytes of BLAKE3 at its end: a mistyped one is told from a wrong one.
const CHECK_BYTES: usize = 4;

/// Why the group key cannot be used.
#[derive(Debug, thiserror::Error)]
enum KeyError {
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
    /// The runtime is going down.
    #[error("this peer is stopping")]
    Stopping,
}

fn key_file(home: &Home, group: &GroupName) -> PathBuf {
    home.keys_dir().join(format!("group-{group}.key"))
}

fn read_key(home: &Home, group: &GroupName) -> Result<SecretIdentity, KeyError> {
    let path = key_file(home, group);
    let bytes = Zeroizing::new(read_bounded(&path, KEY_FILE_MAX)?);
    let key = SecretIdentity::from_bytes(&bytes)?;
    match key.certificate().holder() {
        Holder::Group(name) if name == group => Ok(key),
        holder => Err(KeyError::OtherKey { path, holder: holder.clone(), group: group.clone() }),
    }
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

fn recovery_code(key: &SecretIdentity) -> Result<RecoveryCode, KeyError> {
    let mut bytes = key.to_bytes()?;
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*bytes));
    Ok(RecoveryCode(Zeroizing::new(format!("{RECOVERY_PREFIX}{}", *text))))
}

pub(super) fn signed_gd(signed: PgpSigned<GroupDescriptor>) -> SignedGd {
    let (key, bytes) = (signed.signer().fingerprint(), ByteBuf::from(signed.as_bytes()));
    SignedGd { gd: signed.into_value(), key, signed: bytes }
}

pub(super) fn signed_descriptor(signed: PgpSigned<PeerDescriptor>) -> SignedDescriptor {
    let (fingerprint, bytes) = (signed.signer().fingerprint(), ByteBuf::from(signed.as_bytes()));
    SignedDescriptor { descriptor: signed.into_value(), fingerprint, signed: bytes }
}

/// Runs it where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, KeyError> + Send + 'static) -> Result<T, String> {
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

    pub(super) async fn sign_gd(self, gd: GroupDescriptor) -> Input {
        let signed = blocking(move || {
            let key = read_key(&self.home, &gd.group)?;
            Ok(signed_gd(record::sign_gd(gd, &key, self.clock.now().wall)?))
        });
        Input::GdSigned(signed.await)
    }
}
