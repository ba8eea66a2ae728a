//! `roost verify` on the peer's side: finds the message that is meant, and has its kept proof checked. It changes nothing.

use std::path::{Path, PathBuf};

use super::protocol::Verified;
use crate::actors::peer::Peer;
use crate::core::postbox::access::{Message, Uid};
use crate::mime::{Splitter, header};

/// Largest file that is compared with kept mails, bytes.
const FILE_MAX: u64 = 1 << 30;

/// Checks the mail under `uid`, or the one that `file` is a copy of, among `messages`.
///
/// # Errors
/// A sentence: there is no such mail here, or nothing is proven.
pub(super) async fn verify(
    peer: &Peer,
    messages: Vec<Message>,
    uid: Option<u32>,
    file: Option<PathBuf>,
    export: Option<PathBuf>,
) -> Result<Verified, String> {
    let message = match (uid, &file) {
        (Some(uid), _) => {
            messages.into_iter().find(|m| m.uid == Uid(uid)).ok_or(format!("there is no message {uid}"))?
        }
        (None, Some(file)) => copied_from(peer, messages, file).await?,
        (None, None) => return Err("no message is named; give a UID of `roost inbox`, or a file".to_owned()),
    };
    let proof = peer.postbox.prove(message.key, file, export).await.map_err(|e| e.to_string())?;
    let snapshot = peer.directory.snapshot();
    let group = proof.from.as_ref().and_then(|from| snapshot.groups.get(from.group()));
    let member = group.and_then(|g| g.gd.as_ref()).zip(proof.from.as_ref()).and_then(|(gd, from)| gd.member_at(from));
    let named_by_group = member.map(|member| member.fingerprint == proof.fingerprint);
    Ok(Verified { uid: message.uid.0, group_key: group.map(|g| g.key.to_string()), named_by_group, proof })
}

/// The message with the Message-ID of the mail in `file`.
async fn copied_from(peer: &Peer, messages: Vec<Message>, file: &Path) -> Result<Message, String> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        if std::fs::metadata(&path)?.len() > FILE_MAX {
            return Err(std::io::Error::other("it is larger than 1 GiB"));
        }
        let mut splitter = Splitter::new();
        splitter.feed(&std::fs::read(&path)?);
        Ok(splitter.finish().header_block)
    });
    let block =
        read.await.map_err(|e| e.to_string())?.map_err(|e| format!("{} cannot be read: {e}", file.display()))?;
    let id = |block: &[u8]| header::first(block, "Message-ID").map(|f| f.text());
    let wanted = id(&block).ok_or("the file is no mail with a Message-ID; name the message by its UID")?;
    for message in messages {
        let head = peer.postbox.head(message.key).await.map_err(|e| e.to_string())?;
        if id(&head.header_block).as_ref() == Some(&wanted) {
            return Ok(message);
        }
    }
    Err(format!("no message of this mailbox has the Message-ID {wanted}; name another with --mailbox"))
}
