//! `roost send`, `inbox` and `read`: mail from scripts. The peer submits, files and pulls; this hands it a file and shows
//! what comes back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mail_parser::{MessageParser, MimeHeaders as _};
use serde_json::json;

use super::args::{InboxArgs, ReadArgs, SendArgs};
use super::compose::{self, Letter};
use super::control::Control;
use super::output::{self, Shown, WrongUse};
use super::status::safe_text;
use crate::clock::system_wall;
use crate::config::Config;
use crate::console::protocol::{InboxLine, Read, Request, Submitted};
use crate::mime::address::{Mailbox, addresses};
use crate::model::Address;
use crate::store::home::Home;

/// Longest text that is read from standard input, bytes; what is longer is better attached.
const TEXT_MAX: u64 = 16 << 20;
/// Longest header block in which receivers are looked for, bytes.
const HEADER_MAX: u64 = 1 << 20;
/// Longest mail that is shown as text, bytes.
const SHOWN_MAX: u64 = 64 << 20;

/// A file that goes when it is dropped.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // A file that stays is swept at the peer's next start.
        let _ = fs::remove_file(&self.0);
    }
}

/// `roost send`.
pub(super) fn send(home: &Path, args: &SendArgs) -> anyhow::Result<Shown> {
    let home = Home::at(home).initialised()?;
    let mut receivers: Vec<Address> = args.to.iter().chain(&args.cc).chain(&args.bcc).cloned().collect();
    if let (true, Some(file)) = (receivers.is_empty(), &args.file) {
        receivers = receivers_in(file)?;
    }
    receivers.sort();
    receivers.dedup();
    if receivers.is_empty() {
        let why = "nobody is named to send it to; name at least one with --to ADDRESS".to_owned();
        return Err(WrongUse { why }.into());
    }
    let control = Control::of(home.root());
    // Before a text is typed that nobody would take.
    control.reach()?;
    // The name is one that the peer's start sweeps, should this process die.
    let path = home.spool_dir().join(format!(".{}-send.tmp", std::process::id()));
    let mut out = BufWriter::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?);
    let temporary = Temporary(path);
    write_mail(&home, args, &mut out)?;
    out.flush()?;
    drop(out);
    let request = Request::Send { file: fs::canonicalize(&temporary.0)?, receivers, wait_safe: args.wait_safe };
    let submitted: Submitted = control.ask(&request)?;
    let shown = Shown::of(&submitted, taken_text(&submitted))?;
    Ok(if submitted.reached == Some(false) { shown.failed() } else { shown })
}

fn taken_text(submitted: &Submitted) -> String {
    let taken = format!("taken as {}", submitted.submission);
    match (submitted.reached, submitted.safe) {
        (Some(false), Some(safe @ 0..)) => {
            format!("{taken}, but after 60 s only safe({safe}); `roost outbox` shows more")
        }
        (Some(false), Some(_)) => format!("{taken}, but after 60 s still unsafe: keep this peer on"),
        (Some(false), None) => format!("{taken}, but after 60 s not sealed yet; `roost outbox` shows why"),
        (_, Some(safe)) => format!("{taken}; {}", safe_text(safe)),
        (_, None) => taken,
    }
}

fn write_mail(home: &Home, args: &SendArgs, out: &mut dyn io::Write) -> anyhow::Result<()> {
    if let Some(file) = &args.file {
        let from = File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
        return Ok(compose::copy_with_crlf(&mut BufReader::new(from), out)?);
    }
    let config = Config::load(&home.config_file())?;
    let mut text = Vec::new();
    if io::stdin().is_terminal() {
        output::note("Type the text; end it with Ctrl-D on a line of its own.");
    }
    io::stdin().lock().take(TEXT_MAX + 1).read_to_end(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > TEXT_MAX {
        anyhow::bail!("the text is longer than {}; attach it as a file with --attach", output::size(TEXT_MAX));
    }
    let letter = Letter {
        from: &config.address,
        to: &args.to,
        cc: &args.cc,
        subject: &args.subject,
        date: system_wall(),
        text: &text,
        attach: &args.attach,
    };
    letter.write(out)
}

/// Everybody in To, Cc and Bcc of the mail in `file`.
fn receivers_in(file: &Path) -> anyhow::Result<Vec<Address>> {
    let mut block = Vec::new();
    let opened = File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
    opened.take(HEADER_MAX).read_to_end(&mut block)?;
    let named = ["To", "Cc", "Bcc"].iter().flat_map(|name| addresses(&block, name));
    let parse = |m: Mailbox| {
        let why = |_| {
            format!("the mail names {:?}, which is no address of this network; name its receivers with --to", m.address)
        };
        m.address.parse().map_err(|e| WrongUse { why: why(e) })
    };
    Ok(named.map(parse).collect::<Result<_, WrongUse>>()?)
}

/// `roost inbox`.
pub(super) fn inbox(home: &Path, args: &InboxArgs) -> anyhow::Result<Shown> {
    let control = Control::of(home);
    let mut lines: Vec<InboxLine> = Vec::new();
    loop {
        // Only the first page counts from the end; the others go on where it ended.
        let (after, last) = lines.last().map_or((0, args.last), |line| (line.uid, None));
        let page: Vec<InboxLine> = control.ask(&Request::InboxAfter { mailbox: args.mailbox.clone(), after, last })?;
        if page.is_empty() {
            return Shown::list("messages", &lines, inbox_text(&lines));
        }
        lines.extend(page);
    }
}

fn inbox_text(lines: &[InboxLine]) -> String {
    if lines.is_empty() {
        return "no messages".to_owned();
    }
    let row = |line: &InboxLine| {
        let new = if line.flags.iter().any(|flag| flag == "\\Seen") { "" } else { "N" };
        vec![
            line.uid.to_string(),
            new.to_owned(),
            line.body.clone(),
            output::size(line.size),
            output::one_line(&line.date),
            output::one_line(&line.decoded.from),
            output::one_line(&line.decoded.subject),
        ]
    };
    let head = ["UID", "", "BODY", "SIZE", "DATE", "FROM", "SUBJECT"];
    output::table(&head, &lines.iter().map(row).collect::<Vec<_>>())
}

/// `roost read`.
pub(super) fn read(home: &Path, args: &ReadArgs, json: bool) -> anyhow::Result<Shown> {
    if json && args.raw {
        let why = "--raw prints the mail itself, so there is no room for --json; use -o FILE with it".to_owned();
        return Err(WrongUse { why }.into());
    }
    let read: Read = Control::of(home).ask(&Request::Read { mailbox: args.mailbox.clone(), uid: args.uid })?;
    let open = || File::open(&read.file).with_context(|| format!("{} cannot be read", read.file.display()));
    let mut answer = json!({ "uid": args.uid, "size": read.size, "file": read.file });
    if let Some(path) = &args.output {
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let out = out.as_mut().map_err(|e| anyhow::anyhow!("{} cannot be written: {e}", path.display()))?;
        io::copy(&mut open()?, out)?;
        answer["file"] = json!(path);
        return Shown::of(&answer, format!("{} written to {}", output::size(read.size), path.display()));
    }
    if args.raw {
        io::copy(&mut open()?, &mut io::stdout().lock())?;
        return Shown::of(&answer, "");
    }
    if json {
        return Shown::of(&answer, "");
    }
    if read.size > SHOWN_MAX {
        anyhow::bail!("the mail has {}, too much to show; write it to a file with -o FILE", output::size(read.size));
    }
    let mut mail = Vec::new();
    open()?.read_to_end(&mut mail)?;
    Shown::of(&answer, shown(&mail))
}

/// A mail for people: who, when, what, its text, and what is attached.
fn shown(mail: &[u8]) -> String {
    let Some(parsed) = MessageParser::new().parse(mail) else {
        return output::plain(&String::from_utf8_lossy(mail));
    };
    let mut out = String::new();
    for name in ["From", "To", "Cc", "Date", "Subject"] {
        if let Some(value) = parsed.header_raw(name) {
            let decoded = if name == "Subject" { parsed.subject() } else { None };
            out.push_str(&format!("{name}: {}\n", output::one_line(decoded.unwrap_or(value.trim()))));
        }
    }
    out.push('\n');
    if let Some(text) = parsed.body_text(0) {
        out.push_str(&output::plain(&text.replace("\r\n", "\n")));
    }
    for attachment in parsed.attachments() {
        let name = attachment.attachment_name().unwrap_or("without a name");
        let size = u64::try_from(attachment.contents().len()).unwrap_or(u64::MAX);
        out.push_str(&format!("\n[attached: {}, {}]", output::one_line(name), output::size(size)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::protocol::Decoded;

    #[test]
    fn a_mail_is_shown_without_its_control_sequences() {
        let mail =
            b"From: a@b\r\nSubject: =?utf-8?B?w7xi?=\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHi\x1b[2J\r\n";
        assert_eq!(shown(mail), "From: a@b\nSubject: üb\n\nHi\u{fffd}[2J\n");
    }

    #[test]
    fn receivers_of_a_mail_file_are_those_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.eml");
        fs::write(&path, "To: Bob <bob@acme>\nCc: rita@readers\nBcc: dave@acme\n\nTo: no@body\n").unwrap();
        let found: Vec<String> = receivers_in(&path).unwrap().iter().map(Address::to_string).collect();
        assert_eq!(found, ["bob@acme", "rita@readers", "dave@acme"]);
        fs::write(&path, "To: bob+x@acme\n\n").unwrap();
        assert!(receivers_in(&path).unwrap_err().is::<WrongUse>());
    }

    #[test]
    fn unread_stubs_are_told_from_read_messages() {
        let line = |uid, body: &str, flags: &[&str]| InboxLine {
            uid,
            from: "a@b".to_owned(),
            subject: "=?utf-8?q?s=07?=".to_owned(),
            decoded: Decoded { from: "a@b".to_owned(), subject: "s\x07".to_owned() },
            date: "d".to_owned(),
            size: 5,
            body: body.to_owned(),
            flags: flags.iter().map(|f| (*f).to_owned()).collect(),
        };
        let text = inbox_text(&[line(1, "stub", &[]), line(2, "here", &["\\Seen"])]);
        assert!(text.contains("1    N  stub  5 B") && text.contains("2       here  5 B"), "{text}");
        assert!(!text.contains('\x07') && text.contains("s\u{fffd}"), "{text}");
    }

    #[test]
    fn a_wait_that_was_too_short_says_what_was_reached() {
        let text = |safe, reached| {
            taken_text(&Submitted { submission: crate::model::SubmissionId::new([1; 16]), safe, reached })
        };
        let taken = format!("taken as {}", "01".repeat(16));
        assert_eq!(text(None, None), taken);
        assert!(text(Some(0), Some(false)).starts_with(&format!("{taken}, but after 60 s only safe(0)")));
        assert!(text(Some(-1), Some(false)).contains("still unsafe"));
        assert!(text(None, Some(false)).contains("not sealed yet"));
        assert!(text(Some(2), Some(true)).starts_with(&format!("{taken}; ")));
    }
}
