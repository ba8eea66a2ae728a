//! LIST and LSUB answered from the postbox's mailboxes. Never shows a mailbox that does not match.

use std::collections::BTreeMap;

use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Connection, Outcome};
use super::list_request::{ListRequest, matches};
use super::mailbox::some;
use super::respond::{self, Status};
use super::{MailStore, utf7};
use crate::core::postbox::access::{MailboxInfo, Standard};

/// A name in the tree of mailboxes: a mailbox, or only something above mailboxes.
#[derive(Debug, Default)]
struct Place<'a> {
    info: Option<&'a MailboxInfo>,
    has_children: bool,
    /// Something below is subscribed.
    subscribed_below: bool,
    /// Something below has a special use.
    special_below: bool,
}

impl Place<'_> {
    fn subscribed(&self) -> bool {
        self.info.is_some_and(|info| info.subscribed)
    }
    fn special(&self) -> Option<&'static str> {
        self.info.and_then(|info| info.standard).and_then(special_use)
    }
}

/// The attribute of RFC 6154.
fn special_use(standard: Standard) -> Option<&'static str> {
    match standard {
        Standard::Sent => Some("\\Sent"),
        Standard::Drafts => Some("\\Drafts"),
        Standard::Junk => Some("\\Junk"),
        Standard::Trash => Some("\\Trash"),
        Standard::Inbox | Standard::Requests | Standard::Outbox => None,
    }
}

/// All names by their text; INBOX first is not needed, mail programs sort by themselves.
fn tree(list: &[MailboxInfo]) -> BTreeMap<&str, Place<'_>> {
    let mut tree: BTreeMap<&str, Place<'_>> = BTreeMap::new();
    for info in list {
        let name = info.name.as_str();
        tree.entry(name).or_default().info = Some(info);
        for (at, _) in name.match_indices('/') {
            let above = tree.entry(&name[..at]).or_default();
            above.has_children = true;
            above.subscribed_below |= info.subscribed;
            above.special_below |= info.standard.and_then(special_use).is_some();
        }
    }
    tree
}

/// The patterns as text, each behind the reference.
fn patterns(request: &ListRequest) -> Option<Vec<String>> {
    let reference = utf7::decode(&request.reference)?;
    let join = |pattern: &Vec<u8>| {
        let joined = format!("{reference}{}", utf7::decode(pattern)?);
        // INBOX is compared without case.
        let inbox = joined.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("inbox"));
        let whole = joined.len() == 5 || joined.as_bytes().get(5) == Some(&b'/');
        Some(if inbox && whole { format!("INBOX{}", &joined[5..]) } else { joined })
    };
    request.patterns.iter().map(join).collect()
}

/// The attributes of a place, or nothing when the request does not select it.
fn attributes(request: &ListRequest, place: &Place<'_>) -> Option<(Vec<&'static str>, Option<&'static str>)> {
    let chosen =
        (!request.only_subscribed || place.subscribed()) && (!request.only_special || place.special().is_some());
    let below = (request.only_subscribed && place.subscribed_below) || (request.only_special && place.special_below);
    let child_info =
        (!chosen && below && (request.recursive || request.lsub)).then_some("(\"CHILDINFO\" (\"SUBSCRIBED\"))");
    if !chosen && child_info.is_none() {
        return None;
    }
    let mut words = Vec::new();
    if place.info.is_none() || (request.lsub && !chosen) {
        words.push("\\Noselect");
    }
    words.push(if place.has_children { "\\HasChildren" } else { "\\HasNoChildren" });
    words.extend(place.special());
    if request.return_subscribed && place.subscribed() {
        words.push("\\Subscribed");
    }
    Some((words, child_info.filter(|_| !request.lsub && request.only_subscribed)))
}

impl<S: MailStore, R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Connection<S, R, W> {
    /// LIST and LSUB.
    pub(super) async fn list(&mut self, request: &ListRequest) -> Outcome {
        let word = if request.lsub { "LSUB" } else { "LIST" };
        if let [pattern] = &request.patterns[..]
            && pattern.is_empty()
        {
            // A question for the delimiter (RFC 3501 section 6.3.8).
            self.output.line(&format!("* {word} (\\Noselect) \"/\" \"\""));
            return Ok(Status::ok("done"));
        }
        let Some(patterns) = patterns(request) else {
            return Ok(Status::ok("no name is like this"));
        };
        let list = some!(self.mailboxes().await);
        for (name, place) in tree(&list) {
            if !patterns.iter().any(|pattern| matches(pattern, name)) {
                continue;
            }
            let Some((words, extended)) = attributes(request, &place) else { continue };
            let out = &mut self.output.buffer;
            out.extend_from_slice(format!("* {word} ({}) \"/\" ", words.join(" ")).as_bytes());
            respond::mailbox(out, name);
            if let Some(extended) = extended {
                out.extend_from_slice(format!(" {extended}").as_bytes());
            }
            out.extend_from_slice(b"\r\n");
            if let (Some(info), false) = (place.info, request.status.is_empty()) {
                self.write_status(info, &request.status).await?;
            }
            self.output.relieve().await?;
        }
        Ok(Status::ok("done"))
    }
}
