//! Reads the own msglist from a member, for adoption, and opens the notes that the owner sealed to itself. It believes nothing
//! of it; the brain does, once chain and heads are checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Tools;
use crate::actors::read_entries::ReadEntries;
use crate::core::outbox::{Input, OwnPage, OwnerNote};
use crate::model::msglist::{Cursor, EntryBody};
use crate::model::{MailId, PeerId};
use crate::seal::open_for_owner;
use crate::wire::decode;
use crate::wire::msglist::{Page, decode_entry};

/// Asks a member for what comes after `since`. A member that knows nothing of this owner has not answered.
pub(super) async fn read(tools: Arc<Tools>, read: Arc<ReadEntries>, member: PeerId, since: Cursor) -> Option<Input> {
    let answer = match tools.client.get_mirror_msglist(member, &tools.address, since).await {
        Ok(page) => {
            let told = tokio::task::spawn_blocking(move || with_notes(&tools, page)).await.ok();
            if told.as_ref().is_some_and(|told| told.reaches_beyond(since)) {
                // A receive notification in the DHT may be about a mail that this tells of.
                read.read_again();
            }
            told
        }
        Err(error) => {
            tracing::debug!(%member, %error, "a member does not tell what it has of this peer's msglist");
            None
        }
    };
    Some(Input::OwnList { member, since, answer })
}

fn with_notes(tools: &Tools, page: Page) -> OwnPage {
    let mut notes: BTreeMap<MailId, OwnerNote> = BTreeMap::new();
    for entry in page.runs.iter().flat_map(|run| &run.entries).filter_map(|bytes| decode_entry(bytes).ok()) {
        let EntryBody::Mail(mail) = entry.body else { continue };
        let opened = open_for_owner(&mail.for_owner, &tools.identity.openpgp).map_err(|e| e.to_string());
        match opened.and_then(|note| decode::<OwnerNote>(&note).map_err(|e| e.to_string())) {
            Ok(note) => {
                notes.insert(mail.h, note);
            }
            Err(error) => tracing::warn!(mail = %mail.h, %error, "a note to this peer itself cannot be opened"),
        }
    }
    OwnPage { page, notes }
}
