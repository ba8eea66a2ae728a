//! Removing, granting, recovering and leaving for the command line: the brain decides, this puts its answers into words and
//! waits where a member that leaves has to wait.

use std::time::Duration;

use super::answers::Ending;
use super::control::Progress;
use super::protocol::{GroupChanged, Line};
use super::report;
use crate::actors::peer::Peer;
use crate::actors::shell::Stopped;
use crate::core::group::{self, Input, RecoveryCode, Reply, would_do};
use crate::model::Address;
use crate::model::group::LeaveStage;

/// How often is looked whether a member that leaves may go.
const LOOK: Duration = Duration::from_millis(500);
/// How long a grant waits for the member to fetch the key; it fetches it later all the same.
const KEY_PATIENCE: Duration = Duration::from_secs(10);

fn stopped(stopped: Stopped) -> String {
    stopped.to_string()
}

/// Asks for a change; gives the recovery code if the key is another since.
async fn change(
    peer: &Peer,
    input: impl FnOnce(crate::core::Token) -> Input + Send + 'static,
) -> Result<Option<RecoveryCode>, String> {
    match peer.group.ask(input).await.map_err(stopped)? {
        Reply::Changed { recovery, .. } => Ok(recovery),
        Reply::Refused(why) => Err(why.to_string()),
        other => Err(format!("an unexpected answer: {other:?}")),
    }
}

async fn changed(peer: &Peer, recovery: Option<RecoveryCode>, mut notes: Vec<String>) -> Ending {
    if recovery.is_some() {
        notes.push(
            "the group key is another one: the recovery code of before and open invites are of no use any more; members and contacts follow by themselves"
                .to_owned(),
        );
    }
    let recovery_code = recovery.map(|code| code.0.to_string());
    let changed = GroupChanged { group: report::group(peer).await?, recovery_code, notes };
    serde_json::to_value(changed).map_err(|e| format!("the answer has no JSON form: {e}"))
}

/// `roost group remove`.
pub(super) async fn remove(peer: &Peer, address: Address) -> Ending {
    let whom = address.clone();
    let recovery = change(peer, move |token| Input::Remove { token, address: whom }).await?;
    let mut notes = vec![format!(
        "what {address} sent before stays readable until it ends, while enough of those that hold it stay: members keep its parts, and readers pull them; what members held at it is placed anew"
    )];
    let group = report::group(peer).await?;
    if group.degraded.is_some() {
        let (members, would_do) = (group.members.len(), would_do(group.members.len()));
        notes.push(format!(
            "a group of {members} is smaller than its policy: until it grows every mail is kept whole at each member, which is safe and takes more room; {would_do}"
        ));
    }
    changed(peer, recovery, notes).await
}

/// `roost group grant`.
pub(super) async fn grant(peer: &Peer, address: Address, progress: &Progress) -> Ending {
    let whom = address.clone();
    change(peer, move |token| Input::Grant { token, address: whom }).await?;
    progress.tell(format!("waiting for {address} to fetch the key"), None);
    let start = tokio::time::Instant::now();
    let has_it = loop {
        if peer.group_port.handed_to(&address) {
            break true;
        }
        if start.elapsed() > KEY_PATIENCE {
            break false;
        }
        tokio::time::sleep(LOOK).await;
    };
    let note = if has_it {
        format!("{address} has the group key: it can invite, admit, remove, and change the policy")
    } else {
        format!(
            "{address} is named as a holder and fetches the group key as soon as it is up together with one that has it"
        )
    };
    changed(peer, None, vec![note]).await
}

/// `roost group recover`.
pub(super) async fn recover(peer: &Peer, code: String) -> Ending {
    let code = RecoveryCode(zeroize::Zeroizing::new(code));
    let recovery = change(peer, move |token| Input::Recover { token, code }).await?;
    let note = "this peer alone holds the group key now; `roost group remove ADDRESS` for members that are gone for good, `roost group grant ADDRESS` for a second holder";
    changed(peer, recovery, vec![note.to_owned()]).await
}

/// `roost group recovery-code`.
pub(super) async fn recovery_code(peer: &Peer) -> Ending {
    let code = peer.group_port.recovery_code().await?;
    serde_json::to_value(Line { line: code.0.to_string() }).map_err(|e| format!("the answer has no JSON form: {e}"))
}

/// `roost group leave`.
pub(super) async fn leave(peer: &Peer, now: bool, stay: bool, progress: &Progress) -> Ending {
    let step = |stage| change(peer, move |token| Input::Leave { token, stage });
    if stay {
        step(LeaveStage::Stay).await?;
        return changed(peer, None, vec!["this peer stays: parts are placed on it again".to_owned()]).await;
    }
    let too_small = without_this_peer(peer).await?;
    if !now {
        step(LeaveStage::Begin).await?;
        if let Some(too_small) = &too_small {
            progress.tell(too_small.clone(), None);
        }
        while let Some(waits_for) = waits_for(peer).await? {
            progress.tell(waits_for, None);
            tokio::time::sleep(LOOK).await;
        }
    }
    let cost = if now { cost(peer).await? } else { None };
    let untaken = untaken(peer).await?;
    step(LeaveStage::Go).await?;
    let mut notes = vec![
        "this peer is no member any more: its mailboxes stay, it sends nothing; `roost group join` with a new invite brings it back"
            .to_owned(),
    ];
    notes.extend(too_small);
    notes.extend(cost);
    notes.extend(untaken);
    changed(peer, None, notes).await
}

/// What becomes of a group that is too small for its policy without this peer.
async fn without_this_peer(peer: &Peer) -> Result<Option<String>, String> {
    let status: group::Status = peer.group.observe().await.map_err(stopped)?;
    let stay = status.members.iter().filter(|m| m.peer_id != status.peer_id && !m.leaving).count();
    let (others, needed) = (stay.saturating_sub(1), usize::from(status.policy.others_needed()));
    Ok((others < needed).then(|| {
        format!(
            "without this peer the group is smaller than its policy: a sender has {others} other member(s), the policy asks for {needed}; until it grows every mail is kept whole at each of them"
        )
    }))
}

/// What is here that others need: parts that they do not hold yet, and own mails that wait; and members that may know of more.
async fn here(peer: &Peer) -> Result<(usize, usize, usize), String> {
    let replicator = peer.replicator.observe().await.map_err(stopped)?;
    let outbox = peer.outbox.observe().await.map_err(stopped)?;
    Ok((replicator.waited_for(), outbox.waiting.max(outbox.mails), outbox.unread))
}

async fn waits_for(peer: &Peer) -> Result<Option<String>, String> {
    let status: group::Status = peer.group.observe().await.map_err(stopped)?;
    let own = status.members.iter().find(|m| m.peer_id == status.peer_id);
    if own.is_none_or(|m| !m.leaving) {
        return Err("this peer is not on its way out any more: somebody removed it, or it was told to stay; see `roost group status`".to_owned());
    }
    let (parts, mails, unread) = here(peer).await?;
    let parts = (parts > 0).then(|| {
        format!(
            "{parts} part(s) here that others do not all hold yet, or whose sender is off and nobody is to spare (those of senders that are no members any more are waited for until nobody took one over for ten minutes)"
        )
    });
    let mails = (mails > 0).then(|| format!("{mails} mail(s) in the outbox that are not read yet"));
    let unread = (unread > 0).then(|| {
        format!(
            "{unread} member(s) that have not said yet what they know of this outbox, as after a crash or from an old backup"
        )
    });
    let what: Vec<String> = [parts, mails, unread].into_iter().flatten().collect();
    Ok((!what.is_empty()).then(|| format!("{}; `--now` does not wait", what.join(", "))))
}

/// What goes with it though it waited.
async fn untaken(peer: &Peer) -> Result<Option<String>, String> {
    let replicator = peer.replicator.observe().await.map_err(stopped)?;
    let parts = replicator.untaken();
    Ok((parts > 0).then(|| {
        format!(
            "{parts} part(s) of mails whose senders are no members any more go with it: nobody took one over for ten minutes"
        )
    }))
}

/// What going at once costs.
async fn cost(peer: &Peer) -> Result<Option<String>, String> {
    let (parts, mails, unread) = here(peer).await?;
    let known = (parts + mails > 0).then(|| {
        format!(
            "{parts} part(s) of others' mails go with it and are made again from those that are left; {mails} own mail(s) stay readable until they end, from the members that hold parts and from this peer while it runs"
        )
    });
    let unread = (unread > 0).then(|| {
        format!(
            "{unread} member(s) have not said yet what they know of this outbox: own mails that only they know of end without a word to their sender"
        )
    });
    let what: Vec<String> = [known, unread].into_iter().flatten().collect();
    Ok((!what.is_empty()).then(|| format!("gone at once: {}", what.join("; "))))
}
