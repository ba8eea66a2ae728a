//! `roost status` for people: what waits, what is safe, who holds what, what needs attention. It only shows.

use std::collections::BTreeMap;
use std::path::Path;

use super::control::Control;
use super::group;
use super::output::{self, Shown};
use crate::clock::system_wall;
use crate::console::protocol::{EndedLine, OutboxLine, PeerStatus, Pulled, Request, SealedLine};
use crate::model::{Address, WallTime};

/// `roost status`.
pub(super) fn run(home: &Path) -> anyhow::Result<Shown> {
    let status: PeerStatus = Control::of(home).ask(&Request::Status)?;
    Shown::of(&status, text(&status, system_wall()))
}

/// What ended of late in another way than being received.
pub(super) fn ended_text(lines: &[EndedLine], now: WallTime) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut out = "\nended in the last 7 days, not plainly received:\n".to_owned();
    for line in lines {
        let age = output::seconds(now.since(line.ended_at));
        out.push_str(&format!("\n{}, {}, ended {age} ago\n", line.submission, output::size(line.size)));
        for (state, receivers) in by_state(&line.receivers) {
            out.push_str(&format!("  {state}: {}\n", receivers.join(", ")));
        }
    }
    out
}

fn text(status: &PeerStatus, now: WallTime) -> String {
    let mut out = format!(
        "{}, up for {}, pid {}, version {}\nSMTP {}, IMAP {}, HTTPS {}, libp2p {}",
        status.address,
        output::seconds(now.since(status.started)),
        status.pid,
        status.version,
        status.ports.smtp,
        status.ports.imap,
        status.ports.https,
        status.ports.libp2p
    );
    if let Some(console) = &status.ports.console {
        out.push_str(&format!(", console http://{console}"));
    }
    out.push_str("\n\n");
    if status.attention.is_empty() {
        out.push_str("nothing needs attention\n");
    } else {
        out.push_str("needs attention:\n");
        status.attention.iter().for_each(|line| out.push_str(&format!("  {}\n", output::one_line(line))));
    }
    out.push('\n');
    out.push_str(&group::text(&status.group));
    out.push('\n');
    out.push_str(&outbox_text(&status.outbox, status.outbox_total, now));
    out.push_str(&ended_text(&status.outbox_ended, now));
    out.push_str(&format!(
        "\non disk: {} of own sealed mail, {} for other members\n",
        output::size(status.stored_own_bytes),
        output::size(status.stored_mirror_bytes)
    ));
    if let Some(pull) = status.pulls.last() {
        out.push_str(&format!("last pull: {}\n", pull_text(pull)));
    }
    out
}

fn pull_text(pull: &Pulled) -> String {
    let from = pull.sources.iter().map(|source| {
        let bad = if source.bad_blocks > 0 { format!(" ({} BAD BLOCKS)", source.bad_blocks) } else { String::new() };
        format!("{} from {}{bad}", output::size(source.bytes), source.address)
    });
    let from = from.collect::<Vec<_>>().join(", ");
    let how = if pull.ok { "whole" } else { "not whole" };
    format!("{how} after {}; {from}", output::seconds(std::time::Duration::from_millis(pull.took_ms)))
}

/// What waits, a block of lines a mail.
pub(super) fn outbox_text(lines: &[OutboxLine], total: usize, now: WallTime) -> String {
    if lines.is_empty() && total == 0 {
        return "outbox: nothing waits\n".to_owned();
    }
    let mut out = format!("outbox: {total} waiting\n");
    if lines.len() < total {
        out.push_str(&format!("the last {} of them (`roost outbox --all` lists every one):\n", lines.len()));
    }
    for line in lines {
        let age = output::seconds(now.since(line.at));
        out.push_str(&format!("\n{}, {}, submitted {age} ago\n", line.submission, output::size(line.size)));
        if let Some(subject) = &line.subject {
            out.push_str(&format!("  subject: {}\n", output::one_line(subject)));
        }
        for (state, receivers) in by_state(&line.receivers) {
            out.push_str(&format!("  {state}: {}\n", receivers.join(", ")));
        }
        line.sealed.iter().for_each(|sealed| out.push_str(&sealed_text(sealed)));
    }
    out
}

fn by_state(receivers: &BTreeMap<Address, String>) -> BTreeMap<&str, Vec<String>> {
    let mut states: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (address, state) in receivers {
        states.entry(state).or_default().push(address.to_string());
    }
    states
}

fn sealed_text(sealed: &SealedLine) -> String {
    let mut out =
        format!("  {} {}, {}, {}\n", sealed.h, output::size(sealed.length), sealed.encoding, safe_text(sealed.safe));
    for (holder, part) in &sealed.holders {
        out.push_str(&format!("    {holder} has {part}\n"));
    }
    out
}

/// safe(f) in words.
pub(super) fn safe_text(safe: i32) -> String {
    match safe {
        i32::MIN..0 => "UNSAFE: only this peer has all of it".to_owned(),
        0 => "safe without this peer, if no member is lost".to_owned(),
        1 => "safe without this peer and 1 member more".to_owned(),
        f => format!("safe without this peer and {f} members more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::protocol::Source;
    use crate::model::{MailId, SubmissionId};

    #[test]
    fn what_waits_is_shown_with_who_holds_what() {
        let line = OutboxLine {
            submission: SubmissionId::new([1; 16]),
            subject: Some("a\x1b[2Jb".to_owned()),
            sealed: vec![SealedLine {
                h: MailId::new([2; 20]),
                length: 1 << 20,
                encoding: "fragments 3 of 5".to_owned(),
                safe: 1,
                holders: [("bob@acme".parse().unwrap(), "fragment 0".to_owned())].into(),
                refused: std::collections::BTreeMap::new(),
            }],
            receivers: [("rita@readers".parse().unwrap(), "announced".to_owned())].into(),
            size: 900_000,
            at: WallTime(1_000),
        };
        let text = outbox_text(&[line], 1, WallTime(6_000));
        assert!(
            text.contains("878.9 KiB, submitted 5.00 s ago\n  subject: a\u{fffd}[2Jb\n  announced: rita@readers\n"),
            "{text}"
        );
        assert!(text.contains("1.0 MiB, fragments 3 of 5, safe without this peer and 1 member more\n"), "{text}");
        assert!(text.contains("    bob@acme has fragment 0\n"), "{text}");
        assert!(outbox_text(&[], 0, WallTime(0)).contains("nothing waits"));
        let cut = outbox_text(&[], 100_000, WallTime(0));
        assert!(cut.starts_with("outbox: 100000 waiting\nthe last 0 of them"), "{cut}");
        assert!(safe_text(-1).starts_with("UNSAFE"));
    }

    #[test]
    fn a_source_that_lied_stands_out() {
        let source = Source { address: "eve@acme".to_owned(), bytes: 0, bad_blocks: 2 };
        let pull = Pulled {
            h: MailId::new([2; 20]),
            sources: vec![source],
            took_ms: 40,
            first_block_ms: Some(3),
            last_block_ms: Some(39),
            ok: true,
        };
        assert_eq!(pull_text(&pull), "whole after 0.04 s; 0 B from eve@acme (2 BAD BLOCKS)");
    }
}
