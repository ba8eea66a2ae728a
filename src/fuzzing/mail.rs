//! Targets for what mail programs and senders write: SMTP, IMAP, and the mail itself.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

use super::sealed::NOW;
use crate::clock::Clock;
use crate::core::postbox::access::MailboxFailure;
use crate::mail::imap::memory::{Memory, PASSWORD};
use crate::mail::imap::{ImapConfig, serve_connection as serve_imap};
use crate::mail::smtp::memory::{MemoryPort, Taken};
use crate::mail::smtp::{SmtpConfig, serve_connection as serve_smtp};
use crate::mime::split::{HEADER_MAX, PART_HEADER_MAX, split};
use crate::mime::{Section, Split, Splitter, address, header, section};
use crate::model::ByteSize;
use crate::model::structure::{Extent, Kind, Node, Structure};
use crate::wire::laws::{door, encodes_and_decodes};

/// Largest mail that the SMTP target takes.
const MAIL_MAX: ByteSize = ByteSize::kib(4);
/// What submission may add to it.
const FIELDS_MAX: usize = 1024;

/// Gives its bytes in pieces of at most so many.
struct Pieces<'a>(&'a [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let (now, later) = self.0.split_at(self.1.min(self.0.len()).min(into.remaining()));
        into.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

/// Runs one connection to its end.
fn block_on<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// SMTP: a connection that says whatever it likes, at once and in pieces. What it is told, and what is in the spool, is the same.
pub fn smtp(data: &[u8]) {
    let Some((which, rest)) = door(data, 3) else { return };
    let login = "EHLO x\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n";
    let mail = format!("{login}MAIL FROM:<alice@acme>\r\nRCPT TO:<bob@acme>\r\nDATA\r\n");
    let before = ["", login, &mail][usize::from(which)];
    let input = [before.as_bytes(), rest].concat();
    let (said, taken) = smtp_connection(&input, usize::MAX);
    let (said_in_pieces, taken_in_pieces) = smtp_connection(&input, 5);
    assert_eq!(String::from_utf8_lossy(&said), String::from_utf8_lossy(&said_in_pieces));
    let dated = |taken: &Taken| (header::remove_fields(&taken.bytes, &["Date"]), taken.mail.envelope.clone());
    assert!(taken.iter().map(dated).eq(taken_in_pieces.iter().map(dated)));
    let said = std::str::from_utf8(&said).unwrap();
    assert!(said.is_empty() || said.ends_with("\r\n"));
    for line in said.split_terminator("\r\n") {
        let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
        assert!(code.is_some_and(|code| (200..600).contains(&code)), "{line:?}");
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
    let accepted = said.lines().filter(|line| line.starts_with("250 ") && line.contains("accepted as")).count();
    assert_eq!(accepted, taken.len());
    taken.iter().for_each(mail_is_as_it_must_be);
}

fn smtp_connection(input: &[u8], step: usize) -> (Vec<u8>, Vec<Taken>) {
    let (port, mut said) = (MemoryPort::default(), Vec::new());
    port.with(|script| script.max_mail = Some(MAIL_MAX));
    let (_running, stop) = watch::channel(false);
    block_on(async {
        let stream = tokio::io::join(Pieces(input, step), &mut said);
        let _ = serve_smtp(stream, port.clone(), SmtpConfig::new(Clock::fixed(NOW)), stop).await;
    });
    port.with(|script| {
        assert_eq!(script.open, 0, "a mail is still open");
        (said, std::mem::take(&mut script.taken))
    })
}

/// What is in the spool is a mail of this peer's, with CRLF lines, no Bcc, and the structure that its bytes have.
fn mail_is_as_it_must_be(taken: &Taken) {
    let (bytes, mail) = (&taken.bytes, &taken.mail);
    assert!(bytes.len() <= usize::try_from(MAIL_MAX.bytes()).unwrap() + FIELDS_MAX);
    assert_eq!(split(bytes), mail.split);
    assert!(mail.split.header_is_whole());
    let block = &mail.split.header_block;
    assert_eq!(address::sender(block).unwrap(), mail.envelope.from);
    assert_eq!(mail.envelope.from.to_string(), "alice@acme");
    assert!(header::count(block, "Bcc") == 0 && header::count(block, "Resent-Bcc") == 0);
    assert!(header::count(block, "Date") > 0 && header::count(block, "Message-ID") > 0);
    let breaks = bytes.windows(2).filter(|pair| pair == b"\r\n").count();
    let (returns, feeds) = (bytes.iter().filter(|b| **b == b'\r'), bytes.iter().filter(|b| **b == b'\n'));
    assert!(returns.count() == breaks && feeds.count() == breaks, "a bare CR or LF");
    assert!((1..=100).contains(&mail.envelope.receivers.len()));
}

/// IMAP: commands before the login, behind it, about a mail of the input's own, and a stub that a hostile sender describes.
pub fn imap(data: &[u8]) {
    let Some((which, rest)) = door(data, 4) else { return };
    let store = Memory::new();
    let login = format!("a LOGIN alice \"{PASSWORD}\"\r\n");
    let select = format!("{login}b SELECT INBOX\r\n");
    match which {
        0 => imap_connection(&store, rest),
        1 => {
            store.put("INBOX", b"From: bob@acme\r\nSubject: one\r\n\r\nbody\r\n", &[]);
            let (_, key) = store.put_stub("INBOX", b"From: carol@beta\r\nSubject: two\r\n\r\nnever here\r\n");
            store.fail(key, MailboxFailure::NoMessage);
            imap_connection(&store, &[select.as_bytes(), rest].concat())
        }
        2 => {
            let at = rest.windows(3).position(|w| w == b"\n=\n").unwrap_or(rest.len());
            let (mail, commands) = (&rest[..at], rest.get(at + 3..).unwrap_or_default());
            store.put("INBOX", mail, &[]);
            let fetch = "c FETCH 1 (BODY.PEEK[])\r\nd FETCH 1 (ENVELOPE BODY BODYSTRUCTURE RFC822.SIZE BODY.PEEK[HEADER] \
                         BODY.PEEK[1] BODY.PEEK[1.MIME] BODY.PEEK[TEXT])\r\n";
            let said = imap_connection(&store, &[select.as_bytes(), fetch.as_bytes(), commands].concat());
            let literal = [format!("BODY[] {{{}}}\r\n", mail.len()).as_bytes(), mail].concat();
            assert!(said.windows(literal.len()).any(|w| w == literal), "the mail is not what was put there");
            said
        }
        _ => {
            if let Ok(structure) = crate::wire::decode::<Structure>(rest) {
                stub_is_shown(b"From: x@y\r\nSubject: =?utf-8?q?=c3=bc?=\r\n\r\n", &structure);
            }
            Vec::new()
        }
    };
}

/// A message of which only this is known is shown without a word of its body.
pub(super) fn stub_is_shown(header_block: &[u8], structure: &Structure) {
    let store = Memory::new();
    let key = store.put_described("INBOX", header_block.to_vec(), structure.clone());
    store.fail(key, MailboxFailure::NoMessage);
    let commands = format!(
        "a LOGIN alice \"{PASSWORD}\"\r\nb SELECT INBOX\r\nc FETCH 1 (ENVELOPE BODY BODYSTRUCTURE RFC822.SIZE \
         BODY.PEEK[HEADER])\r\nd FETCH 1 (BODY.PEEK[1.HEADER])\r\ne FETCH 1 (BODY.PEEK[1.1.HEADER.FIELDS (Subject)])\r\n\
         f SEARCH SUBJECT x\r\ng SEARCH LARGER 3\r\nh FETCH 1 BODY.PEEK[1.MIME]\r\n"
    );
    imap_connection(&store, commands.as_bytes());
}

fn imap_connection(store: &Memory, input: &[u8]) -> Vec<u8> {
    let config = ImapConfig {
        auth_pause: Duration::ZERO,
        progress_every: Duration::from_millis(20),
        append_max: 64 * 1024,
        ..ImapConfig::default()
    };
    let mut said = Vec::new();
    block_on(serve_imap(store.clone(), config, Pieces(input, usize::MAX), &mut said));
    responses_are_whole(&said);
    said
}

/// Responses are lines of printable US-ASCII that end in CRLF; everything else stands in literals of the length they tell.
fn responses_are_whole(mut rest: &[u8]) {
    // What follows a literal belongs to the same response.
    let mut goes_on = false;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|w| w == b"\r\n").unwrap_or_else(|| panic!("a line without an end"));
        let line = &rest[..end];
        assert!(line.iter().all(|b| (0x20..0x7f).contains(b)), "{:?}", String::from_utf8_lossy(line));
        rest = &rest[end + 2..];
        let announced = line.strip_suffix(b"}").and_then(|inner| {
            let open = inner.iter().rposition(|b| *b == b'{')?;
            std::str::from_utf8(&inner[open + 1..]).ok()?.parse::<usize>().ok()
        });
        // Text for people may end so, too; a literal is only in data.
        let announced = announced.filter(|_| goes_on || line.starts_with(b"* "));
        goes_on = announced.is_some();
        if let Some(length) = announced {
            rest = rest.get(length..).unwrap_or_else(|| panic!("a literal that ends early"));
        }
    }
}

/// The splitter: whatever chunks the bytes come in, the parts that it finds put together are the input to the byte.
pub fn splitter(data: &[u8]) {
    let Some((step, mail)) = data.split_first() else { return };
    let found = split(mail);
    let mut splitter = Splitter::new();
    mail.chunks(usize::from(*step % 64) + 1).for_each(|chunk| splitter.feed(chunk));
    assert_eq!(splitter.finish(), found);
    let Split { structure, header_block } = &found;
    let whole = Extent { start: 0, end: u64::try_from(mail.len()).unwrap() };
    assert_eq!((structure.size, structure.root.header.start, structure.root.body.end), (whole.end, 0, whole.end));
    assert!(put_together(&structure.root, mail, HEADER_MAX) == mail, "the parts together are not the mail");
    assert_eq!(header_block[..], mail[..header_block.len()]);
    encodes_and_decodes(structure);
    sections_are_where_they_are_said_to_be(structure, header_block, mail);
    let fields: Vec<u8> = header::fields(header_block).flat_map(|field| field.raw.to_vec()).collect();
    assert!(header_block.starts_with(&fields), "the fields together are not the header block");
    let without = header::remove_bcc(header_block);
    assert_eq!(header::count(&without, "Bcc"), 0);
    let replaced = header::replace_field(header_block, "Subject", "a\r\nBcc: b");
    assert_eq!(header::count(&replaced, "Subject"), 1);
    assert_eq!(header::count(&replaced, "Bcc"), header::count(header_block, "Bcc"));
    let (_, _) = (address::sender(header_block), address::named_receivers(header_block));
    header::fields(header_block).for_each(|field| drop(crate::mime::words::decoded(&field.text())));
}

fn piece(mail: &[u8], start: u64, end: u64) -> &[u8] {
    &mail[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()]
}

/// The bytes of an entity, put together from those of the entities inside it and what lies between them.
fn put_together(node: &Node, mail: &[u8], kept: usize) -> Vec<u8> {
    assert!(node.header.start <= node.header.end && node.header.end == node.body.start);
    assert!(node.body.start <= node.body.end);
    let feeds = piece(mail, node.body.start, node.body.end).iter().filter(|b| **b == b'\n').count();
    assert_eq!(usize::try_from(node.lines), Ok(feeds));
    let mut bytes = piece(mail, node.header.start, node.header.end).to_vec();
    let mut at = node.body.start;
    let children = match &node.kind {
        Kind::Leaf => &[],
        Kind::Multipart(children) => &children[..],
        Kind::Message { header_block, inner } => {
            assert!(header_block.len() <= PART_HEADER_MAX.min(kept));
            assert!(piece(mail, inner.header.start, inner.header.end).starts_with(header_block));
            std::slice::from_ref(&**inner)
        }
    };
    for child in children {
        assert!(at <= child.header.start && child.body.end <= node.body.end, "parts overlap");
        bytes.extend_from_slice(piece(mail, at, child.header.start));
        bytes.extend(put_together(child, mail, kept));
        at = child.body.end;
    }
    bytes.extend_from_slice(piece(mail, at, node.body.end));
    bytes
}

/// Every section that resolves lies in the mail, and a header that is known without the body is the one in the mail.
fn sections_are_where_they_are_said_to_be(structure: &Structure, header_block: &[u8], mail: &[u8]) {
    for text in
        ["", "HEADER", "TEXT", "1", "1.MIME", "1.HEADER", "1.TEXT", "2", "2.MIME", "1.1", "1.1.HEADER", "2.1.TEXT"]
    {
        let section: Section = text.parse().unwrap();
        let Some(extent) = section::resolve(structure, &section) else { continue };
        let bytes = piece(mail, extent.start, extent.end);
        if let Some(known) = section::known_header(structure, header_block, &section) {
            assert_eq!(known, bytes, "{text}");
        }
    }
}
