//! The web page's addresses: `/`, `/status.json`, `/metrics`, login, and the forms. It asks the brains what the commands ask
//! them, and decides nothing; who may see or do what is `login`'s.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;

use super::login::ConsoleToken;
use super::page::{self, Shown};
use super::seen::Seen;
use super::{cancel, consent, listing, metrics, report};
use crate::actors::peer::Peer;
use crate::core::postbox::Verdict;
use crate::net::console_server::{Page, PageRequest, Pages};

/// The pages of one peer.
pub struct WebPages {
    peer: Arc<Peer>,
    token: ConsoleToken,
    port: u16,
    /// What the last form came to, until the page has shown it.
    said: Mutex<Option<String>>,
}

impl WebPages {
    /// Of `peer`, for whoever has `token`; the server listens at `port`.
    pub fn new(peer: Arc<Peer>, token: ConsoleToken, port: u16) -> Self {
        Self { peer, token, port, said: Mutex::default() }
    }

    async fn route(&self, request: PageRequest) -> Page {
        let path = request.path.clone();
        let may = self.token.may(&request, self.port);
        match (path.as_str(), request.is_post) {
            ("/login", _) => self.login(&request),
            ("/metrics", false) if may || self.peer.config.console.open_metrics => self.metrics().await,
            ("/status.json", false) if may => self.status().await,
            ("/metrics" | "/status.json", false) => Page::text(
                401,
                "This takes the header `Authorization: Bearer TOKEN`; TOKEN is in identity/console.token.\n",
            ),
            ("/", false) if may => self.front().await,
            ("/", false) => Page::html(401, page::login(None)),
            ("/judge" | "/cancel", true) if !self.token.may_change(&request, self.port) => {
                Page::text(403, "This form was not sent by this page, or its login is over; load the page again.\n")
            }
            ("/judge", true) => self.say(self.judge(&request).await),
            ("/cancel", true) => self.say(self.cancel(&request).await),
            _ => Page::text(404, "There is nothing here.\n"),
        }
    }

    /// By the link that `roost console` prints, or by the form.
    fn login(&self, request: &PageRequest) -> Page {
        match request.field("token") {
            Some(token) if request.is_from_own_page && self.token.is(token) => {
                Page { cookie: Some(self.token.cookie(self.port)), ..Page::see("/") }
            }
            Some(_) => Page::html(403, page::login(Some("That is not the token of this peer."))),
            None => Page::html(401, page::login(None)),
        }
    }

    async fn metrics(&self) -> Page {
        match Seen::of(&self.peer).await {
            Ok(seen) => Page { kind: metrics::KIND, ..Page::text(200, metrics::text(&seen)) },
            Err(why) => Page::text(503, why),
        }
    }

    async fn status(&self) -> Page {
        let status = report::status(&self.peer).await;
        match status.and_then(|status| serde_json::to_string(&status).map_err(|e| e.to_string())) {
            Ok(json) => Page { kind: "application/json", ..Page::text(200, json) },
            Err(why) => Page::text(503, why),
        }
    }

    async fn front(&self) -> Page {
        let (seen, requests) = match (Seen::of(&self.peer).await, self.peer.postbox.requests().await) {
            (Ok(seen), Ok(requests)) => (seen, requests),
            (Err(why), _) => return Page::text(503, why),
            (_, Err(stopped)) => return Page::text(503, stopped.to_string()),
        };
        let mut status = report::status_of(&self.peer, &seen);
        listing::subjects(&self.peer, &mut status.outbox).await;
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (form, now) = (self.token.form(), self.peer.clock.now().wall);
        Page::html(
            200,
            page::front(&Shown { status, owners: seen.replicator.owners, requests, said, form: &form, now }),
        )
    }

    fn say(&self, what: Result<String, String>) -> Page {
        let said = what.unwrap_or_else(|why| format!("Not done: {why}"));
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        Page::see("/")
    }

    async fn judge(&self, request: &PageRequest) -> Result<String, String> {
        let sender = request.field("sender").ok_or("the form names no sender")?;
        let (verdict, done) = match request.field("verdict") {
            Some("accept") => (Verdict::Granted, "accepted: its mail is in INBOX now"),
            Some("refuse") => (Verdict::Refused, "refused, also for what it sends later"),
            _ => return Err("the form says neither accept nor refuse; load the page again".to_owned()),
        };
        // The form names the key, which is what is judged; people know the address that asked with it.
        let waiting = self.peer.postbox.requests().await.map_err(|e| e.to_string())?.waiting;
        let asked = waiting.iter().find(|request| request.sender.to_string() == sender);
        let who = asked.map_or_else(|| sender.to_owned(), |request| request.from.to_string());
        let judged = consent::judge(&self.peer, sender, verdict).await?;
        Ok(format!("{who} is {done} ({} mail(s)).", judged.mails))
    }

    async fn cancel(&self, request: &PageRequest) -> Result<String, String> {
        let mail = request.field("mail").ok_or("the form names no mail")?;
        let cancelled = cancel::cancel(&self.peer, mail, 0).await?;
        let each = cancelled.receivers.iter().map(|(address, answer)| format!("{address}: {}", answer.word()));
        Ok(format!("{}: {}.", cancelled.submission, each.collect::<Vec<_>>().join(", ")))
    }
}

impl Pages for WebPages {
    fn answer(&self, request: PageRequest) -> BoxFuture<'_, Page> {
        Box::pin(self.route(request))
    }
}
