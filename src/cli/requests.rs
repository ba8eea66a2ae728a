//! `roost requests`, `accept` and `refuse`: consent for mail of unknown senders from scripts. The peer decides what follows; this
//! passes the user's word on.

use std::path::Path;

use super::args::{AcceptArgs, RefuseArgs};
use super::control::Control;
use super::output::{self, Shown};
use crate::console::protocol::{Judged, Request};
use crate::core::postbox::Verdict;
use crate::core::postbox::io::Requests;

/// Lists who asks, and who was judged.
pub(super) fn list(home: &Path) -> anyhow::Result<Shown> {
    let requests: Requests = Control::of(home).ask(&Request::Requests)?;
    Shown::of(&requests, text(&requests))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Granted => "accepted",
        Verdict::Refused => "refused",
        Verdict::Withdrawn => "asks again",
    }
}

fn text(requests: &Requests) -> String {
    let mut out = String::new();
    if requests.waiting.is_empty() {
        out.push_str("nobody asks\n");
    } else {
        let row = |r: &crate::core::postbox::io::RequestInfo| {
            vec![r.from.to_string(), r.sender.to_string(), r.group_key.to_string(), output::size(r.size)]
        };
        let rows: Vec<_> = requests.waiting.iter().map(row).collect();
        out.push_str(&output::table(&["FROM", "KEY", "GROUP KEY", "SIZE"], &rows));
        out.push_str("accept with `roost accept WHO`, refuse for good with `roost refuse WHO`\n");
    }
    if !requests.senders.is_empty() {
        let row = |(address, key, verdict): &(crate::model::Address, crate::model::Fingerprint, Verdict)| {
            vec![address.to_string(), key.to_string(), word(*verdict).to_owned()]
        };
        let rows: Vec<_> = requests.senders.iter().map(row).collect();
        out.push_str(&format!("\n{}", output::table(&["JUDGED", "KEY", ""], &rows)));
    }
    out
}

/// `roost accept`.
pub(super) fn accept(home: &Path, args: &AcceptArgs) -> anyhow::Result<Shown> {
    let verdict = if args.undo { Verdict::Withdrawn } else { Verdict::Granted };
    judge(home, &args.who, verdict)
}

/// `roost refuse`.
pub(super) fn refuse(home: &Path, args: &RefuseArgs) -> anyhow::Result<Shown> {
    judge(home, &args.who, Verdict::Refused)
}

fn judge(home: &Path, who: &str, verdict: Verdict) -> anyhow::Result<Shown> {
    let judged: Judged = Control::of(home).ask(&Request::Judge { who: who.to_owned(), verdict })?;
    let who = output::one_line(&judged.who);
    let text = match verdict {
        Verdict::Granted => format!("{who} is accepted; {} mail(s) are in INBOX now", judged.mails),
        Verdict::Refused => format!("{who} is refused for good; {} waiting mail(s) were refused", judged.mails),
        Verdict::Withdrawn => format!("the word on {who} is taken back; its later mails ask again"),
    };
    Shown::of(&judged, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Fingerprint;

    #[test]
    fn judged_senders_are_shown_with_the_word_on_them() {
        let senders = vec![("alice@acme".parse().unwrap(), Fingerprint::new([7; 20]), Verdict::Withdrawn)];
        let text = text(&Requests { waiting: Vec::new(), senders });
        assert!(text.starts_with("nobody asks\n") && text.contains("asks again"), "{text}");
    }
}
