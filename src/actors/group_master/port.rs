//! How others reach the group: the HTTPS routes' requests, the commands, and what is published. It only translates.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::Kit;
use super::calls::check_beat;
use super::keys::signed_descriptor;
use crate::actors::directory::Snapshot;
use crate::actors::shell::{Handle, Stopped};
use crate::core::group::{Candidates, Group, GroupError, Input, RecoveryCode, Reply};
use crate::model::card::JoinRequest;
use crate::model::group::{Heartbeat, HeartbeatAnswer, LeaveStage, Roster};
use crate::model::{Address, PeerId};
use crate::net::peer_api::ApiError;
use crate::seal::record::verify_descriptor;

/// When to come again after "not now".
const RETRY: Duration = Duration::from_secs(10);

/// The group as others use it: cloneable, from any thread.
#[derive(Clone)]
pub struct GroupPort {
    /// The brain: create, invite, join, policy, card, contacts, status.
    pub handle: Handle<Group>,
    kit: Kit,
    /// Members that took the group key from this peer in this run.
    handed: Arc<Mutex<BTreeSet<PeerId>>>,
    watched: Watched,
}

/// What is published of the group, now and whenever it changes.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) roster: watch::Receiver<Arc<Roster>>,
    pub(super) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(super) clock_doubtful: watch::Receiver<bool>,
    pub(super) candidates: watch::Receiver<Candidates>,
}

impl fmt::Debug for GroupPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupPort")
    }
}

fn unavailable(why: impl fmt::Display) -> ApiError {
    ApiError::Unavailable { why: why.to_string(), retry_after: RETRY }
}

/// A refusal as the caller is told it.
fn refusal(error: &GroupError) -> ApiError {
    let why = error.to_string();
    match error {
        GroupError::NotMember { gd_version, .. } => ApiError::Forbidden { why, gd_version: Some(*gd_version) },
        // Another member may admit it, or this one later.
        GroupError::NotKeyHolder { .. }
        | GroupError::KeyNotHere { .. }
        | GroupError::NoCertificate { .. }
        | GroupError::NoGroup { .. }
        | GroupError::Busy { .. }
        | GroupError::Signing { .. } => unavailable(why),
        _ => ApiError::Forbidden { why, gd_version: None },
    }
}

fn mismatch(reply: &Reply) -> ApiError {
    tracing::error!(?reply, "the group's brain answered another question than it was asked");
    unavailable("this peer made a mistake; ask again later")
}

impl GroupPort {
    pub(super) fn new(handle: Handle<Group>, kit: Kit, watched: Watched) -> Self {
        Self { handle, kit, handed: Arc::default(), watched }
    }

    /// The own group, now and whenever it changes.
    pub fn rosters(&self) -> watch::Receiver<Arc<Roster>> {
        self.watched.roster.clone()
    }
    /// Who is who and where, now and whenever it changes.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.watched.snapshot.clone()
    }
    /// Whether this machine's clock is off its members' or not yet compared with theirs, now and whenever that changes: then nothing may expire.
    pub fn clock_doubtful(&self) -> watch::Receiver<bool> {
        self.watched.clock_doubtful.clone()
    }
    /// Groups that mail waits for, with the keys that say they are theirs, now and whenever that changes.
    pub fn candidates(&self) -> watch::Receiver<Candidates> {
        self.watched.candidates.clone()
    }

    async fn ask(&self, input: impl FnOnce(crate::core::Token) -> Input + Send + 'static) -> Result<Reply, ApiError> {
        match self.handle.ask(input).await {
            Ok(Reply::Refused(error)) => Err(refusal(&error)),
            Ok(reply) => Ok(reply),
            Err(stopped @ Stopped) => Err(unavailable(stopped)),
        }
    }

    /// `POST /group/heartbeat`.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] with the gd's version when the caller is no member.
    pub async fn heartbeat(&self, caller: PeerId, heartbeat: Heartbeat) -> Result<HeartbeatAnswer, ApiError> {
        let member = self.kit.directory.snapshot().roster.has(&caller);
        let beat = Box::new(check_beat(heartbeat, caller, member).await);
        match self.ask(move |token| Input::Heartbeat { token, caller, beat }).await? {
            Reply::Heartbeat(answer) => Ok(answer),
            other => Err(mismatch(&other)),
        }
    }

    /// `POST /group/join`: the signed gd that names the caller.
    ///
    /// # Errors
    /// [`ApiError`] says why it is not admitted; [`ApiError::Unavailable`] that another member may admit it.
    pub async fn admit(&self, caller: PeerId, request: JoinRequest) -> Result<Bytes, ApiError> {
        let JoinRequest { descriptor, proof } = request;
        let verified =
            tokio::task::spawn_blocking(move || verify_descriptor(&descriptor)).await.map_err(unavailable)?;
        let verified = verified.map_err(|error| ApiError::BadRequest { why: error.to_string() })?;
        let descriptor = Box::new(signed_descriptor(verified));
        match self.ask(move |token| Input::AdmitJoin { token, caller, descriptor, proof }).await? {
            Reply::Admitted(signed) => Ok(Bytes::from(signed.into_vec())),
            other => Err(mismatch(&other)),
        }
    }

    /// `POST /group/key`: the group key, sealed to the caller, if the gd names it as a holder.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] for everybody else; [`ApiError::Unavailable`] when it is not here either.
    pub async fn hand_key(&self, caller: PeerId) -> Result<Bytes, ApiError> {
        match self.ask(move |token| Input::AskKey { token, caller }).await? {
            Reply::HandKey { key, to } => {
                let group = self.watched.roster.borrow().group.clone();
                tracing::info!(%caller, "the group key goes to a member that the group descriptor names as a holder");
                let sealed = self.kit.clone().seal_key(group, key, to).await.map_err(unavailable)?;
                self.handed.lock().unwrap_or_else(PoisonError::into_inner).insert(caller);
                Ok(sealed)
            }
            other => Err(mismatch(&other)),
        }
    }

    /// Whether this member took the group key from this peer in this run.
    pub fn handed_to(&self, address: &Address) -> bool {
        let snapshot = self.watched.snapshot.borrow().clone();
        let handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.at(address).is_some_and(|known| handed.contains(&known.peer_id))
    }

    /// `POST /group/leave`: the signed gd that says so.
    ///
    /// # Errors
    /// [`ApiError`] says why it was not written down; [`ApiError::Unavailable`] that another holder may do it.
    pub async fn admit_leave(&self, caller: PeerId, stage: LeaveStage) -> Result<Bytes, ApiError> {
        match self.ask(move |token| Input::AdmitLeave { token, caller, stage }).await? {
            Reply::Admitted(signed) => Ok(Bytes::from(signed.into_vec())),
            other => Err(mismatch(&other)),
        }
    }

    /// The recovery code of the group's key, for the user of a peer that holds it.
    ///
    /// # Errors
    /// A sentence when the key is not here.
    pub async fn recovery_code(&self) -> Result<RecoveryCode, String> {
        let status = self.handle.observe().await.map_err(|e| e.to_string())?;
        match status.group_key.filter(|_| status.key_here) {
            Some(key) => self.kit.clone().recovery_code(status.address.group().clone(), key).await,
            None => Err("this peer does not hold the group key; `roost group status` says who does".to_owned()),
        }
    }
}
