//! `roost card` and `roost contacts`: how people outside the group are found and pinned. The peer keeps them; this asks it.

use std::path::Path;

use serde_json::{Value, json};

use super::args::ContactsCommand;
use super::control::Control;
use super::output::{self, Shown};
use super::qr;
use crate::console::protocol::{Contact, Line, PinnedNow, Request};

/// This peer's card.
pub(super) fn card(home: &Path) -> anyhow::Result<Shown> {
    let line: Line = Control::of(home).ask(&Request::Card)?;
    output::note(
        "Whoever adds this with `roost contacts add` can write to you, and you to them once you added theirs.",
    );
    Shown::of(&json!({ "card": line.line }), qr::with_code(&line.line))
}

/// Does what was asked of the contacts of the peer on `home`.
pub(super) fn run(home: &Path, command: &ContactsCommand) -> anyhow::Result<Shown> {
    let control = Control::of(home);
    match command {
        ContactsCommand::List => {
            let contacts: Vec<Contact> = control.ask(&Request::Contacts)?;
            Shown::list("contacts", &contacts, text(&contacts))
        }
        ContactsCommand::Add { group: Some(group), key: Some(key), .. } => {
            let pinned: PinnedNow = control.ask(&Request::PinGroup { group: group.clone(), key: *key })?;
            let note = pinned.note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
            Shown::of(&pinned, format!("{} is pinned to group key {}{note}", pinned.group, pinned.key))
        }
        ContactsCommand::Add { card, .. } => {
            let card = card.clone().unwrap_or_default();
            let contact: Contact = control.ask(&Request::ContactAdd { card })?;
            Shown::of(
                &contact,
                format!("{} is a contact now, pinned to group key {}", contact.address, contact.group_key),
            )
        }
        ContactsCommand::Remove { address } => {
            let _: Value = control.ask(&Request::ContactRemove { address: address.clone() })?;
            Shown::of(&json!({ "removed": address }), format!("{address} is no contact any more"))
        }
    }
}

fn text(contacts: &[Contact]) -> String {
    if contacts.is_empty() {
        return "no contacts; add one with `roost contacts add CARD`".to_owned();
    }
    let row = |c: &Contact| {
        let fingerprint = c.fingerprint.clone().unwrap_or_else(|| "not fetched yet".to_owned());
        let since = c.pinned_since.map_or_else(|| "before this was noted".to_owned(), output::day);
        vec![c.address.to_string(), c.group_key.clone(), since, fingerprint]
    };
    output::table(&["ADDRESS", "GROUP KEY", "PINNED SINCE", "OWN KEY"], &contacts.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_listed_with_what_is_pinned() {
        let contact = Contact {
            address: "rita@readers".parse().unwrap(),
            group_key: "AB".to_owned(),
            pinned_since: Some(crate::model::WallTime(1_790_000_000_000)),
            fingerprint: None,
        };
        assert!(text(&[contact]).ends_with("rita@readers  AB         2026-09-21    not fetched yet\n"));
        assert!(text(&[]).contains("contacts add CARD"));
    }
}
