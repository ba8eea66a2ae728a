//! What each command is answered: questions to the brains, put into the control socket's words.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::consent;
use super::control::Progress;
use super::listing;
use super::membership;
use super::protocol::{Contact, Founded, Line, Read, Request, Submitted};
use super::report;
use crate::actors::backup;
use crate::actors::peer::Peer;
use crate::actors::shell::Stopped;
use crate::core::outbox;
use crate::core::postbox::access::{Flag, MailboxName, MailboxReply, MailboxRequest, Message, Uid, View};
use crate::core::{fetch, group};
use crate::mail::port::submit_file;
use crate::model::{Address, Secret};
use crate::wire::code;

/// How often a waiting command is told how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// The end of a command: its value, or a sentence.
pub(super) type Ending = Result<Value, String>;

fn stopped(stopped: Stopped) -> String {
    stopped.to_string()
}

fn value<T: Serialize>(value: T) -> Ending {
    serde_json::to_value(value).map_err(|e| format!("the answer has no JSON form: {e}"))
}

/// Answers one command.
pub(super) async fn answer(peer: &Arc<Peer>, request: Request, progress: Progress) -> Ending {
    match request {
        Request::Status => value(report::status(peer).await?),
        Request::Ports => value(report::ports(peer)),
        Request::GroupStatus => value(report::group(peer).await?),
        Request::Outbox => value(report::outbox(peer).await?),
        Request::OutboxAfter { after, last } => value(report::outbox_page(peer, after, last).await?),
        Request::OutboxEnded => value(report::outbox_ended(peer).await?),
        Request::Cancel { which, wait_s } => value(super::cancel::cancel(peer, &which, wait_s).await?),
        Request::Doctor => value(report::doctor(peer).await?),
        Request::Reach => value(super::reach::checks(peer).await?),
        Request::GroupCreate { group, policy } => create(peer, group, policy).await,
        Request::GroupInvite { name, valid } => {
            let (secret, valid) = (Secret::new(random()?), valid.unwrap_or(group::INVITE_VALIDITY));
            let ask = move |token| group::Input::Invite { token, name, secret, valid };
            match peer.group.ask(ask).await.map_err(stopped)? {
                group::Reply::Invite(invite) => value(Line { line: code::to_line(&invite) }),
                other => Err(refusal(other)),
            }
        }
        Request::GroupJoin { code } => {
            let invite = code::from_line(&code).map_err(|e| e.to_string())?;
            progress.tell("asking the members that the invite names", None);
            match peer.group.ask(move |token| group::Input::Join { token, invite }).await.map_err(stopped)? {
                group::Reply::Joined { .. } => value(report::group(peer).await?),
                other => Err(refusal(other)),
            }
        }
        Request::GroupPolicy { policy } => {
            match peer.group.ask(move |token| group::Input::SetPolicy { token, policy }).await.map_err(stopped)? {
                group::Reply::PolicySet { .. } => value(report::group(peer).await?),
                other => Err(refusal(other)),
            }
        }
        Request::GroupRemove { address } => membership::remove(peer, address).await,
        Request::GroupGrant { address } => membership::grant(peer, address, &progress).await,
        Request::GroupRecover { code } => membership::recover(peer, code).await,
        Request::GroupRecoveryCode => membership::recovery_code(peer).await,
        Request::GroupLeave { now, stay } => membership::leave(peer, now, stay, &progress).await,
        Request::Card => match peer.group.ask(|token| group::Input::MakeCard { token }).await.map_err(stopped)? {
            group::Reply::Card(card) => value(Line { line: code::to_line(&card) }),
            other => Err(refusal(other)),
        },
        Request::ContactAdd { card } => add_contact(peer, &card).await,
        Request::ContactRemove { address } => {
            let ask = move |token| group::Input::RemoveContact { token, address };
            match peer.group.ask(ask).await.map_err(stopped)? {
                group::Reply::ContactRemoved { .. } => Ok(json!({})),
                other => Err(refusal(other)),
            }
        }
        Request::Contacts => value(report::contacts(peer).await?),
        Request::PinGroup { group, key } => value(consent::pin(peer, group, key).await?),
        Request::Requests => value(peer.postbox.requests().await.map_err(stopped)?),
        Request::Judge { who, verdict } => value(consent::judge(peer, &who, verdict).await?),
        Request::Verify { mailbox, uid, file, export } => {
            let (_, messages) = open(peer, mailbox).await?;
            value(super::proof::verify(peer, messages, uid, file, export).await?)
        }
        Request::Send { file, receivers, wait_safe } => send(peer, file, receivers, wait_safe, progress).await,
        Request::Inbox { mailbox } => value(listing::messages(peer, mailbox, 0, None).await?),
        Request::InboxAfter { mailbox, after, last } => value(listing::messages(peer, mailbox, after, last).await?),
        Request::Read { mailbox, uid } => read(peer, mailbox, Uid(uid), progress).await,
        Request::Backup { pid } => value(stage(peer, pid).await?),
        Request::Stop => Ok(json!({})),
    }
}

async fn stage(peer: &Arc<Peer>, pid: u32) -> Result<backup::Staged, String> {
    let peer = peer.clone();
    let stage = move || {
        let now = peer.clock.now().wall;
        backup::stage(&peer.home, &peer.config.address, &peer.identity, &peer.journal, pid, now)
    };
    tokio::task::spawn_blocking(stage).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

fn refusal(reply: group::Reply) -> String {
    match reply {
        group::Reply::Refused(why) => why.to_string(),
        other => format!("an unexpected answer: {other:?}"),
    }
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| format!("the operating system gives no randomness: {e}"))?;
    Ok(bytes)
}

async fn create(peer: &Peer, group: crate::model::GroupName, policy: crate::model::Policy) -> Ending {
    let policy = policy.check().map_err(|e| e.to_string())?;
    match peer.group.ask(move |token| group::Input::CreateGroup { token, group, policy }).await.map_err(stopped)? {
        group::Reply::Created { recovery, .. } => {
            value(Founded { group: report::group(peer).await?, recovery_code: recovery.0.to_string() })
        }
        other => Err(refusal(other)),
    }
}

async fn add_contact(peer: &Peer, line: &str) -> Ending {
    let card: crate::model::card::Card = code::from_line(line).map_err(|e| e.to_string())?;
    let (address, key) = (card.address.clone(), card.group_key);
    match peer.group.ask(move |token| group::Input::AddContact { token, card }).await.map_err(stopped)? {
        group::Reply::ContactAdded { note, .. } => {
            if let Some(note) = note {
                tracing::info!(%address, %note, "a contact was added; not everything could be had yet");
            }
            let mails = consent::card_added(peer, &address).await?;
            if mails > 0 {
                tracing::info!(%address, mails, "requests of a new contact are in INBOX now");
            }
            let known = report::contacts(peer).await?.into_iter().find(|c| c.address == address);
            value(known.unwrap_or(Contact {
                address,
                group_key: key.to_string(),
                pinned_since: None,
                fingerprint: None,
            }))
        }
        other => Err(refusal(other)),
    }
}

async fn send(
    peer: &Arc<Peer>,
    file: PathBuf,
    receivers: Vec<Address>,
    wait_safe: Option<u8>,
    progress: Progress,
) -> Ending {
    let submission = submit_file(peer, file, receivers).await?;
    let Some(f) = wait_safe.map(i32::from) else { return value(Submitted { submission, safe: None, reached: None }) };
    progress.tell("waiting for members to confirm their parts", None);
    match peer.outbox.ask(move |token| outbox::Input::WaitSafe { token, submission, f }).await.map_err(stopped)? {
        outbox::Reply::Safe { safe, reached } => value(Submitted { submission, safe, reached: Some(reached) }),
        other => Err(format!("an unexpected answer: {other:?}")),
    }
}

pub(super) async fn open(peer: &Peer, mailbox: Option<String>) -> Result<(MailboxName, Vec<Message>), String> {
    let name = mailbox.as_deref().map_or(Ok(MailboxName::inbox()), MailboxName::new).map_err(|e| e.to_string())?;
    match peer.postbox.request(View::Stubs, MailboxRequest::Open(name.clone())).await {
        MailboxReply::Opened { messages, .. } => Ok((name, messages)),
        MailboxReply::Failed(why) => Err(why.to_string()),
        other => Err(format!("an unexpected answer: {other:?}")),
    }
}

async fn read(peer: &Arc<Peer>, mailbox: Option<String>, uid: Uid, progress: Progress) -> Ending {
    let (mailbox, messages) = open(peer, mailbox).await?;
    let message =
        messages.into_iter().find(|m| m.uid == uid).ok_or_else(|| format!("there is no message {}", uid.0))?;
    let body = peer.postbox.request(View::Stubs, MailboxRequest::Body { mailbox: mailbox.clone(), uid });
    tokio::pin!(body);
    let reply = loop {
        tokio::select! {
            reply = &mut body => break reply,
            () = tokio::time::sleep(PROGRESS_EVERY) => {
                let ask = MailboxRequest::Progress { key: message.key };
                if let MailboxReply::Pulled(percent) = peer.postbox.request(View::Stubs, ask).await {
                    progress.tell("pulling", percent);
                }
            }
        }
    };
    match reply {
        MailboxReply::Body(file) => {
            let flags = BTreeSet::from([Flag::Seen]);
            let change = crate::core::postbox::access::FlagChange::Add;
            let seen = MailboxRequest::Flags { mailbox, uids: vec![uid], change, flags };
            if let MailboxReply::Failed(why) = peer.postbox.request(View::Stubs, seen).await {
                tracing::warn!(%why, "a message that was read is not marked so");
            }
            value(Read { file, size: message.size })
        }
        MailboxReply::Failed(why) => Err(why.to_string()),
        other => Err(format!("an unexpected answer: {other:?}")),
    }
}

/// The pulls that the fetcher reports, with addresses instead of PeerIds where they are known.
pub(super) fn pulls(peer: &Peer, status: &fetch::Status) -> Vec<super::protocol::Pulled> {
    let snapshot = peer.directory.snapshot();
    let names: BTreeMap<_, _> = snapshot.peers.iter().filter_map(|(id, p)| Some((id, p.address.as_ref()?))).collect();
    let source = |(id, report): (&crate::model::PeerId, &fetch::SourceReport)| super::protocol::Source {
        address: names.get(id).map_or_else(|| id.to_string(), |a| a.to_string()),
        bytes: report.bytes,
        bad_blocks: report.bad_blocks,
    };
    let pulled = |r: &fetch::Report| super::protocol::Pulled {
        h: r.h,
        sources: r.sources.iter().map(source).collect(),
        took_ms: r.took_ms,
        first_block_ms: r.first_block_ms,
        last_block_ms: r.last_block_ms,
        ok: r.ok,
    };
    status.reports.iter().map(pulled).collect()
}
