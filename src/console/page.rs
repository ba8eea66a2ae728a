//! The web page: what waits and how safe it is, who holds what, who asks for consent. Plain HTML that is whole in itself, with
//! forms for what can be done; it asks nobody, and no byte of a mail or an address stands in it unescaped.

use std::fmt::Write as _;
use std::time::Duration;

use super::protocol::{GroupStatus, PeerStatus, SealedLine};
use crate::core::postbox::io::Requests;
use crate::core::replicator::OwnerStatus;
use crate::model::WallTime;

/// How often an open page asks again, seconds. A closed one costs nothing.
const REFRESH_S: u32 = 10;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:62rem;margin:1.5rem auto;padding:0 1rem;\
color:#1a1a1a;background:#fdfdfc}h1{font-size:1.35rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.3rem .7rem .3rem 0;\
border-bottom:1px solid #ddd}th{font-weight:600;color:#555}code{font:12px ui-monospace,monospace;color:#555;\
word-break:break-all}.bad{color:#a40000;font-weight:600}.good{color:#1b6e1b}.box{background:#fff4d6;\
border:1px solid #e0c36a;padding:.5rem .8rem;margin:.8rem 0}form{display:inline}button{font:inherit;\
padding:.15rem .7rem}ul{margin:.2rem 0;padding-left:1.2rem}.small{color:#666;font-size:.88em}\
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}td,th{border-color:#3a3a3a}code,th,.small{color:#aaa}\
.box{background:#3a3213;border-color:#6d5f22}.bad{color:#ff8a80}.good{color:#8fd68f}}";

/// What the front page shows.
pub(super) struct Shown<'a> {
    pub(super) status: PeerStatus,
    pub(super) owners: Vec<OwnerStatus>,
    pub(super) requests: Requests,
    /// What the last form came to.
    pub(super) said: Option<String>,
    /// What every form carries.
    pub(super) form: &'a str,
    pub(super) now: WallTime,
}

/// Text as it may stand in HTML, between tags and in quoted attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Neither control characters nor those that turn the direction of what follows.
            c if (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn whole(title: &str, head: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">{head}<title>{}</title>\
         <style>{STYLE}</style></head><body>\n{body}</body></html>\n",
        escaped(title)
    )
}

/// What a browser sees that has shown no token.
pub(super) fn login(why: Option<&str>) -> String {
    let why = why.map(|why| format!("<p class=\"bad\">{}</p>", escaped(why))).unwrap_or_default();
    let body = format!(
        "<h1>Roost</h1>{why}<p>This is the page of a peer on this machine. <code>roost console</code> prints a link that \
         opens it; or give its token, which is in <code>identity/console.token</code> of the peer's home:</p>\
         <form method=\"post\" action=\"/login\"><input type=\"password\" name=\"token\" size=\"40\" autocomplete=\"off\"> \
         <button>Open</button></form>\n"
    );
    whole("Roost", "", &body)
}

/// The front page.
pub(super) fn front(shown: &Shown<'_>) -> String {
    let Shown { status, owners, requests, said, form, now } = shown;
    let mut body = format!(
        "<h1>{}</h1><p class=\"small\">up for {}, version {}, {}</p>\n",
        escaped(&status.address.to_string()),
        span(now.since(status.started)),
        escaped(&status.version),
        status.peer_id
    );
    if let Some(said) = said {
        let _ = writeln!(body, "<p class=\"box\" role=\"status\">{}</p>", escaped(said));
    }
    attention(&mut body, &status.attention);
    consent(&mut body, requests, form, *now);
    outbox(&mut body, status, form, *now);
    group(&mut body, &status.group);
    mirrors(&mut body, owners);
    pulls(&mut body, status);
    let _ = writeln!(
        body,
        "<p class=\"small\">On disk: {} of own sealed mail, {} for other members. SMTP {}, IMAP {}. \
         <a href=\"/status.json\">status.json</a> <a href=\"/metrics\">metrics</a></p>",
        size(status.stored_own_bytes),
        size(status.stored_mirror_bytes),
        escaped(&status.ports.smtp),
        escaped(&status.ports.imap)
    );
    let refresh = format!("<meta http-equiv=\"refresh\" content=\"{REFRESH_S};url=/\">");
    whole(&format!("Roost: {}", status.address), &refresh, &body)
}

fn attention(out: &mut String, sentences: &[String]) {
    if sentences.is_empty() {
        out.push_str("<p class=\"good\">Nothing needs attention.</p>\n");
        return;
    }
    out.push_str("<div class=\"box\"><b>Needs attention</b><ul>");
    out.extend(sentences.iter().map(|sentence| format!("<li>{}</li>", escaped(sentence))));
    out.push_str("</ul></div>\n");
}

/// A button that sends a form.
fn button(action: &str, form: &str, fields: &[(&str, &str)], text: &str) -> String {
    let hidden =
        |(name, value): &(&str, &str)| format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escaped(value));
    let fields: String = [("form", form)].iter().chain(fields).map(hidden).collect();
    format!("<form method=\"post\" action=\"{action}\">{fields}<button>{text}</button></form>")
}

fn consent(out: &mut String, requests: &Requests, form: &str, now: WallTime) {
    if requests.waiting.is_empty() {
        return;
    }
    out.push_str("<h2>Requests</h2><table><tr><th>From<th>Key<th>Size<th>Came<th></tr>\n");
    for request in &requests.waiting {
        let sender = request.sender.to_string();
        let judge = |verdict, text| button("/judge", form, &[("sender", &sender), ("verdict", verdict)], text);
        let _ = writeln!(
            out,
            "<tr><td>{}<td><code>{sender}</code><td>{}<td>{} ago<td>{} {}</tr>",
            escaped(&request.from.to_string()),
            size(request.size),
            span(now.since(request.arrived)),
            judge("accept", "Accept"),
            judge("refuse", "Refuse")
        );
    }
    out.push_str("</table>\n");
}

fn outbox(out: &mut String, status: &PeerStatus, form: &str, now: WallTime) {
    let lines = &status.outbox;
    out.push_str("<h2>Outbox</h2>\n");
    if lines.is_empty() {
        out.push_str("<p>Nothing waits.</p>\n");
        return;
    }
    if lines.len() < status.outbox_total {
        let _ = writeln!(out, "<p>{} wait; the last {} are shown.</p>", status.outbox_total, lines.len());
    }
    out.push_str("<table><tr><th>Mail<th>Receivers<th>How safe, and who holds it<th></tr>\n");
    for line in lines {
        let submission = line.submission.to_string();
        let receivers = line.receivers.iter();
        let receivers: String = receivers
            .map(|(address, state)| format!("<li>{}: {}</li>", escaped(&address.to_string()), escaped(state)))
            .collect();
        let sealed: String = line.sealed.iter().map(sealed).collect();
        let sealed = if sealed.is_empty() { "not sealed yet".to_owned() } else { sealed };
        let subject = line.subject.as_deref().filter(|s| !s.trim().is_empty()).unwrap_or("(no subject)");
        let cancel = button("/cancel", form, &[("mail", &submission)], "Cancel");
        let _ = writeln!(
            out,
            "<tr><td>{}<br>{}, {} ago<br><code>{submission}</code><td><ul>{receivers}</ul><td>{sealed}<td>{cancel}</tr>",
            escaped(subject),
            size(line.size),
            span(now.since(line.at))
        );
    }
    out.push_str("</table>\n");
}

fn sealed(mail: &SealedLine) -> String {
    let class = if mail.safe < 0 { "bad" } else { "good" };
    let holders = mail.holders.iter();
    let holders: String =
        holders.map(|(who, part)| format!("<li>{} has {}</li>", escaped(&who.to_string()), escaped(part))).collect();
    let refused = mail.refused.iter();
    let refused: String = refused
        .map(|(who, why)| format!("<li>{} takes no part: {}</li>", escaped(&who.to_string()), escaped(why)))
        .collect();
    format!(
        "<span class=\"{class}\">{}</span> <span class=\"small\">{}, {}</span><br><code>{}</code><ul>{holders}{refused}</ul>",
        safe(mail.safe),
        size(mail.length),
        escaped(&mail.encoding),
        mail.h
    )
}

/// safe(f) in words.
fn safe(f: i32) -> String {
    match f {
        i32::MIN..0 => "unsafe: only this peer has all of it".to_owned(),
        f => format!("safe({f}): {f} more members can go, this peer already gone"),
    }
}

fn group(out: &mut String, group: &GroupStatus) {
    let _ = write!(out, "<h2>Group {}</h2>", escaped(&group.group.to_string()));
    if let Some(degraded) = &group.degraded {
        let _ = write!(out, "<p class=\"bad\">degraded: {}</p>", escaped(degraded));
    }
    out.push_str("<table><tr><th>Member<th>State</tr>\n");
    for member in &group.members {
        let (class, state) = match (member.lost, member.up, member.silent_s) {
            (true, ..) => ("bad", "lost".to_owned()),
            (_, true, _) => ("good", "up".to_owned()),
            (_, _, Some(s)) => ("bad", format!("silent for {}", span(Duration::from_secs(s)))),
            _ => ("bad", "does not answer".to_owned()),
        };
        let acts = if group.acting_master.as_ref() == Some(&member.address) { ", acting master" } else { "" };
        let address = escaped(&member.address.to_string());
        let _ = writeln!(out, "<tr><td>{address}<td><span class=\"{class}\">{state}</span>{acts}</tr>");
    }
    out.push_str("</table>\n");
}

fn mirrors(out: &mut String, owners: &[OwnerStatus]) {
    if owners.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Held for others</h2><table><tr><th>Member<th>Mails<th>Parts here<th>Bytes<th>To be pulled</tr>\n",
    );
    for owner in owners {
        let address = escaped(&owner.address.to_string());
        let (mails, parts, wanted) = (owner.mails, owner.parts, owner.wanted);
        let _ = writeln!(out, "<tr><td>{address}<td>{mails}<td>{parts}<td>{}<td>{wanted}</tr>", size(owner.bytes));
        for conflict in &owner.conflicts {
            let _ = writeln!(out, "<tr><td colspan=\"5\" class=\"bad\">{}</tr>", escaped(conflict));
        }
    }
    out.push_str("</table>\n");
}

fn pulls(out: &mut String, status: &PeerStatus) {
    if status.pulls.is_empty() {
        return;
    }
    out.push_str("<h2>Last pulls</h2><table><tr><th>Mail<th>From<th>Took</tr>\n");
    for pull in status.pulls.iter().rev().take(10) {
        let source = |source: &super::protocol::Source| {
            let bad = match source.bad_blocks {
                0 => String::new(),
                bad => format!(" <span class=\"bad\">{bad} bad blocks</span>"),
            };
            format!("<li>{} from {}{bad}</li>", size(source.bytes), escaped(&source.address))
        };
        let sources: String = pull.sources.iter().map(source).collect();
        let end = if pull.ok { "" } else { " <span class=\"bad\">not whole</span>" };
        let took = span(Duration::from_millis(pull.took_ms));
        let _ = writeln!(out, "<tr><td><code>{}</code>{end}<td><ul>{sources}</ul><td>{took}</tr>", pull.h);
    }
    out.push_str("</table>\n");
}

fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, per)| bytes >= *per) {
        Some((unit, per)) => format!("{}.{} {unit}", bytes / per, bytes % per * 10 / per),
        None => format!("{bytes} B"),
    }
}

fn span(span: Duration) -> String {
    match span.as_secs() {
        0..=9 => format!("{:.1} s", span.as_secs_f64()),
        10..=119 => format!("{} s", span.as_secs()),
        120..=7199 => format!("{} min", span.as_secs() / 60),
        7200..=172_799 => format!("{} h", span.as_secs() / 3600),
        more => format!("{} days", more / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::protocol::OutboxLine;
    use crate::core::postbox::io::RequestInfo;
    use crate::model::{Fingerprint, MailId, PeerId, SubmissionId};

    fn shown(form: &str) -> Shown<'_> {
        let address: crate::model::Address = "alice@acme".parse().unwrap();
        let group = GroupStatus {
            group: address.group().clone(),
            version: 1,
            key: None,
            policy: crate::model::Policy::default(),
            acting_master: Some(address.clone()),
            degraded: Some("too <small>".to_owned()),
            conflicts: Vec::new(),
            role: String::new(),
            members: Vec::new(),
            invited: Vec::new(),
        };
        let sealed = SealedLine {
            h: MailId::new([2; 20]),
            length: 1 << 20,
            encoding: "fragments 3 of 5".to_owned(),
            safe: -1,
            holders: [("bob@acme".parse().unwrap(), "fragment 0".to_owned())].into(),
            refused: [("carol@acme".parse().unwrap(), "its disk is full".to_owned())].into(),
        };
        let line = OutboxLine {
            submission: SubmissionId::new([1; 16]),
            subject: Some("Grüße <b>\u{202e}".to_owned()),
            sealed: vec![sealed],
            receivers: [("rita@readers".parse().unwrap(), "announced".to_owned())].into(),
            size: 900_000,
            at: WallTime(1_000),
        };
        let ports = super::super::protocol::Ports {
            smtp: "127.0.0.1:1".to_owned(),
            imap: "127.0.0.1:2".to_owned(),
            https: String::new(),
            libp2p: String::new(),
            console: None,
        };
        let status = PeerStatus {
            address,
            peer_id: PeerId::new([0; 32]),
            pid: 1,
            version: "0".to_owned(),
            started: WallTime(0),
            ports,
            group,
            candidates: crate::core::group::Candidates::new(),
            outbox: vec![line],
            outbox_total: 1,
            outbox_ended: Vec::new(),
            pulls: Vec::new(),
            attention: vec!["<script>alert('x')</script>".to_owned()],
            disk_full: Vec::new(),
            stored_own_bytes: 1,
            stored_mirror_bytes: 2,
            served_bytes: 3,
            brains: std::collections::BTreeMap::new(),
        };
        let request = RequestInfo {
            from: "eve@elsewhere".parse().unwrap(),
            sender: Fingerprint::new([9; 20]),
            group_key: Fingerprint::new([8; 20]),
            size: 2048,
            arrived: WallTime(2_000),
            expiry: WallTime(9_000),
        };
        let requests = Requests { waiting: vec![request], senders: Vec::new() };
        Shown { status, owners: Vec::new(), requests, said: Some("a & b".to_owned()), form, now: WallTime(5_000) }
    }

    #[test]
    fn the_page_shows_what_waits_and_has_a_form_for_what_can_be_done() {
        let html = front(&shown("proof"));
        assert!(
            html.contains("unsafe: only this peer has all of it") && html.contains("bob@acme has fragment 0"),
            "{html}"
        );
        assert!(html.contains("<input type=\"hidden\" name=\"verdict\" value=\"accept\"><button>Accept</button>"));
        assert!(html.contains(&format!("name=\"mail\" value=\"{}\"><button>Cancel", "01".repeat(16))));
        assert_eq!(html.matches("name=\"form\" value=\"proof\"").count(), 3);
        assert!(html.contains("a &amp; b") && html.contains("2.0 KiB") && html.contains("878.9 KiB"));
    }

    #[test]
    fn the_page_is_whole_in_itself_and_nothing_in_it_runs() {
        let html = front(&shown("proof"));
        assert!(
            html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") && !html.contains("<script"),
            "{html}"
        );
        assert!(html.contains("too &lt;small&gt;"));
        assert!(html.contains("Grüße &lt;b&gt;\u{fffd}") && !html.contains("<b>\u{202e}"), "a subject is text only");
        for outside in ["http://", "https://", "src=", "@import", "url(", "javascript:"] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert_eq!(escaped("\u{202e}\x1b\"<>&'"), "\u{fffd}\u{fffd}&quot;&lt;&gt;&amp;&#39;");
    }
}
