//! How others reach the group: the HTTPS routes' requests, the commands, and what is published. It only translates.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::calls::check_beat;
use super::keys::signed_descriptor;
use crate::actors::directory::{Directory, Snapshot};
use crate::actors::shell::{Handle, Stopped};
use crate::core::group::{Candidates, Group, GroupError, Input, Reply};
use crate::model::PeerId;
use crate::model::card::JoinRequest;
use crate::model::group::{Heartbeat, HeartbeatAnswer, Roster};
use crate::net::peer_api::ApiError;
use crate::seal::record::verify_descriptor;

/// When to come again after "not now".
const RETRY: Duration = Duration::from_secs(10);

/// The group as others use it: cloneable, from any thread.
#[derive(Clone)]
pub struct GroupPort {
    /// The brain: create, invite, join, policy, card, contacts, status.
    pub handle: Handle<Group>,
    directory: Directory,
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
    pub(super) fn new(handle: Handle<Group>, directory: Directory, watched: Watched) -> Self {
        Self { handle, directory, watched }
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
        let member = self.directory.snapshot().roster.has(&caller);
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
}
