//! SEARCH and UID SEARCH (RFC 3501 section 6.4.4). Never pulls a body: of a stub only its header block is searched.

use imap_types::core::Charset;
use imap_types::search::SearchKey;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Connection, Outcome};
use super::mailbox::some;
use super::pull::open_body;
use super::respond::Status;
use super::search_key::{Known, Search};
use super::search_text;
use super::selected::{Numbers, Shown};
use super::{End, MailStore};
use crate::core::postbox::access::{BodyState, MailboxName, View};

impl<S: MailStore, R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Connection<S, R, W> {
    /// SEARCH.
    pub(super) async fn search(
        &mut self,
        charset: Option<&Charset<'_>>,
        keys: &[SearchKey<'_>],
        numbers: Numbers,
    ) -> Outcome {
        let known = ["US-ASCII", "UTF-8"];
        if charset.is_some_and(|name| !known.iter().any(|known| name.as_ref().eq_ignore_ascii_case(known))) {
            return Ok(Status::no("BADCHARSET (US-ASCII UTF-8)", "text is searched in UTF-8"));
        }
        let (Some(view), Some(selected)) = (self.state.view(), self.state.selected()) else {
            return Ok(Status::bad("select a mailbox first"));
        };
        let Some(search) = Search::new(keys, selected) else {
            return Ok(Status::no("LIMIT", "a search has at most 512 keys"));
        };
        let mailbox = selected.name.clone();
        let mut line = String::from("* SEARCH");
        let mut sequence = 0;
        // By number, as the list is the session's and stays so.
        while let Some(shown) = self.state.selected().and_then(|selected| selected.get(sequence + 1)).cloned() {
            sequence += 1;
            if some!(self.matches(&search, sequence, &shown, view, &mailbox).await?) {
                let number = if numbers == Numbers::Uids { shown.message.uid.0 } else { sequence };
                line.push_str(&format!(" {number}"));
            }
        }
        self.output.line(&line);
        Ok(Status::ok("done"))
    }

    /// Whether a message matches: looks first at what is at hand, then at the head, then at the body if it is here.
    async fn matches(
        &self,
        search: &Search,
        sequence: u32,
        shown: &Shown,
        view: View,
        mailbox: &MailboxName,
    ) -> Result<Result<bool, Status>, End> {
        let mut known = Known { sequence, shown, head: None, found: None };
        if let Some(answer) = search.key.answer(&known) {
            return Ok(Ok(answer));
        }
        // A message that is gone by now matches nothing.
        let Ok(head) = self.shared.store.head(shown.message.key).await else { return Ok(Ok(false)) };
        known.head = Some(&head);
        if let Some(answer) = search.key.answer(&known) {
            return Ok(Ok(answer));
        }
        let nothing = vec![false; search.texts.len()];
        let found = match shown.message.body {
            BodyState::Here => match open_body(&self.shared.store, view, mailbox.clone(), shown.message.uid).await {
                Ok(path) => match search_text::find(path, head.clone(), search.texts.clone()).await {
                    Ok(found) => found,
                    Err(error) => return Ok(Err(Status::no("UNAVAILABLE", format!("a body cannot be read: {error}")))),
                },
                Err(_) => nothing,
            },
            BodyState::Absent | BodyState::Cancelled | BodyState::Expired => nothing,
        };
        known.found = Some(&found);
        Ok(Ok(search.key.answer(&known).unwrap_or(false)))
    }
}
