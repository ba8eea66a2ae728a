//! Between holders of the group key and members: handing the key on, sealed, and writing down who leaves. It never hands a key
//! to a peer that the brain did not name.

use bytes::Bytes;
use futures::future::BoxFuture;

use super::Kit;
use super::calls::{KEY_PATIENCE, check_gd, within};
use super::keys::{blocking, find_key, keep_key, recovery_code};
use crate::core::group::{CallFailed, Input, RecoveryCode};
use crate::model::group::LeaveStage;
use crate::model::{Fingerprint, GroupName, PeerId};
use crate::seal::handover::{open_group_key, seal_group_key};
use crate::seal::keys::Certificate;

impl Kit {
    /// The group key, sealed to the certificate of a member that is to hold it.
    pub(super) async fn seal_key(self, group: GroupName, key: Fingerprint, to: Vec<u8>) -> Result<Bytes, String> {
        blocking(move || {
            let (key, to) = (find_key(&self.home, &group, &key)?, Certificate::parse(&to)?);
            let now = self.clock.now().wall;
            Ok(Bytes::from(seal_group_key(&key, &self.identity.openpgp, &to, now)?))
        })
        .await
    }

    /// The recovery code of a key that is here.
    pub(super) async fn recovery_code(self, group: GroupName, key: Fingerprint) -> Result<RecoveryCode, String> {
        blocking(move || recovery_code(&find_key(&self.home, &group, &key)?)).await
    }

    /// Asks these members in turn for the group key, and keeps it.
    pub(super) async fn fetch_key(self, group: GroupName, key: Fingerprint, ask: Vec<PeerId>) -> Input {
        let mut why = "no other member holds it".to_owned();
        for peer in ask {
            match self.clone().fetch_key_from(group.clone(), key, peer).await {
                Ok(()) => return Input::KeyFetched(Ok(key)),
                Err(failed) => {
                    tracing::info!(%peer, why = %failed, "a holder of the group key did not hand it over; others are asked");
                    why = failed;
                }
            }
        }
        Input::KeyFetched(Err(why))
    }

    fn fetch_key_from(
        self,
        group: GroupName,
        key: Fingerprint,
        peer: PeerId,
    ) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async move {
            let sealed = within(KEY_PATIENCE, self.client.post_group_key(peer)).await;
            let sealed = sealed.map_err(in_words)?;
            let from = self.certificate_of(&peer).ok_or("its certificate is not here yet")?;
            blocking(move || {
                let from = Certificate::parse(&from)?;
                let key = open_group_key(&sealed, &self.identity.openpgp, &from, &group, &key)?;
                keep_key(&self.home, &group, &key)
            })
            .await
        })
    }

    fn certificate_of(&self, peer: &PeerId) -> Option<Vec<u8>> {
        let snapshot = self.directory.snapshot();
        snapshot.peers.get(peer).and_then(|known| known.certificate.as_ref()).map(|bytes| bytes.to_vec())
    }

    /// Asks these holders in turn to write down that this peer leaves.
    pub(super) async fn ask_leave(self, stage: LeaveStage, ask: Vec<PeerId>) -> Input {
        let mut last = CallFailed::Unreachable { why: "no other member holds the group key".to_owned() };
        for peer in ask {
            match within(KEY_PATIENCE, self.client.post_leave(peer, stage)).await {
                Ok(bytes) => match check_gd(bytes).await {
                    Some(signed) => return Input::LeaveAnswered(Ok(Box::new(signed))),
                    None => last = CallFailed::Bad { why: format!("{peer} answered with no group descriptor") },
                },
                Err(failed) => last = failed,
            }
        }
        Input::LeaveAnswered(Err(last))
    }
}

fn in_words(failed: CallFailed) -> String {
    match failed {
        CallFailed::Unreachable { why } | CallFailed::Refused { why, .. } | CallFailed::Bad { why } => why,
    }
}
