//! Commands as typed values: imap-codec's, with small parsers of our own in front for what it cannot express. Never acts.

use imap_codec::CommandCodec;
use imap_codec::decode::Decoder;
use imap_types::ToStatic;
use imap_types::command::CommandBody;

use super::cursor::Cursor;
use super::list_request::{self, ListRequest};

/// What a command asks.
#[derive(Debug)]
pub(crate) enum Request {
    /// As the codec reads it.
    Codec(Box<CommandBody<'static>>),
    /// LIST or LSUB.
    List(ListRequest),
    /// CREATE with its mailbox; a wish for a special use (RFC 6154) is passed over.
    Create(Vec<u8>),
    /// NAMESPACE (RFC 2342).
    Namespace,
}

impl Request {
    /// Whether no message may be expunged while it is answered (RFC 3501 section 7.4.1). The UID forms could bear it, but
    /// mail programs send both.
    pub(crate) fn holds_numbers(&self) -> bool {
        let Request::Codec(body) = self else { return false };
        matches!(body.as_ref(), CommandBody::Fetch { .. } | CommandBody::Store { .. } | CommandBody::Search { .. })
    }
}

/// A command.
#[derive(Debug)]
pub(crate) struct Command {
    /// What its response begins with.
    pub(crate) tag: String,
    /// What it asks.
    pub(crate) request: Request,
}

/// Why a command could not be read: its tag, or `*` when it has none, and what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) tag: String,
    pub(crate) text: String,
}

/// Names of commands, for the text of BAD.
const KNOWN: [&str; 33] = [
    "APPEND",
    "AUTHENTICATE",
    "CAPABILITY",
    "CHECK",
    "CLOSE",
    "COPY",
    "CREATE",
    "DELETE",
    "ENABLE",
    "EXAMINE",
    "EXPUNGE",
    "FETCH",
    "ID",
    "IDLE",
    "LIST",
    "LOGIN",
    "LOGOUT",
    "LSUB",
    "MOVE",
    "NAMESPACE",
    "NOOP",
    "RENAME",
    "SEARCH",
    "SELECT",
    "STATUS",
    "STORE",
    "SUBSCRIBE",
    "UID",
    "UNSELECT",
    "UNSUBSCRIBE",
    "SORT",
    "THREAD",
    "COMPRESS",
];

/// The tag that a command begins with, or `*`.
pub(crate) fn tag_of(bytes: &[u8]) -> String {
    Cursor::new(bytes).tag().filter(|tag| tag.len() <= 64).unwrap_or_else(|| "*".to_owned())
}

/// Reads a whole command, its literals included.
///
/// # Errors
/// [`Unreadable`] when it is none.
pub(crate) fn parse(bytes: &[u8]) -> Result<Command, Unreadable> {
    let tag = tag_of(bytes);
    let unreadable = |text: &str| Unreadable { tag: tag.clone(), text: text.to_owned() };
    let mut cursor = Cursor::new(bytes);
    if tag == "*" || cursor.tag().and_then(|_| cursor.space()).is_none() {
        return Err(unreadable("a command is a tag, a space and a name"));
    }
    let name = cursor.word().unwrap_or_default();
    let own = match name.as_str() {
        "LIST" | "LSUB" => list_request::parse(&mut cursor, name == "LSUB").map(Request::List),
        "NAMESPACE" => cursor.at_end().then_some(Request::Namespace),
        "CREATE" => create(&mut cursor).map(Request::Create),
        _ => {
            let decoded = CommandCodec::default().decode(bytes).ok().filter(|(rest, _)| rest.is_empty());
            decoded.map(|(_, command)| Request::Codec(Box::new(command.body.to_static())))
        }
    };
    match own {
        Some(request) => Ok(Command { tag, request }),
        None if KNOWN.contains(&name.as_str()) => Err(unreadable(&format!("{name} does not take these arguments"))),
        None => Err(unreadable("there is no such command")),
    }
}

/// `CREATE mailbox [(USE (\Sent))]`
fn create(cursor: &mut Cursor<'_>) -> Option<Vec<u8>> {
    cursor.space()?;
    let mailbox = cursor.astring(false)?;
    if cursor.sees(b' ') {
        cursor.space()?;
        cursor.list(|cursor| {
            (cursor.word()? == "USE").then_some(())?;
            cursor.space()?;
            cursor.list(|cursor| {
                let _ = cursor.byte(b'\\');
                cursor.word()
            })
        })?;
    }
    cursor.at_end().then_some(mailbox)
}

/// The APPEND whose message literal is announced at the end of `bytes` (from `at` on), if that is what it is.
pub(crate) fn append_before_literal(bytes: &[u8], at: usize) -> Option<Command> {
    let mut cursor = Cursor::new(bytes);
    let tag = cursor.tag()?;
    cursor.space()?;
    if cursor.word()? != "APPEND" {
        return None;
    }
    // With an empty message in the place of the one to come it is a whole command.
    let whole = [bytes.get(..at)?, b"{0}\r\n\r\n"].concat();
    let (rest, command) = CommandCodec::default().decode(&whole).ok()?;
    (rest.is_empty() && matches!(command.body, CommandBody::Append { .. }))
        .then(|| Command { tag, request: Request::Codec(Box::new(command.body.to_static())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3501_commands_are_read_and_nonsense_keeps_its_tag() {
        for good in [
            "a NOOP\r\n",
            "a uid fetch 1:* (FLAGS)\r\n",
            "a LIST \"\" %\r\n",
            "a CREATE x (USE (\\Sent))\r\n",
            "a NAMESPACE\r\n",
            "a LOGIN {5}\r\nalice \"pw\"\r\n",
            "a UID EXPUNGE 1:3\r\n",
            "a MOVE 1 x\r\n",
            "a ID NIL\r\n",
            "a AUTHENTICATE PLAIN AGEAYg==\r\n",
        ] {
            assert!(parse(good.as_bytes()).is_ok(), "{good}");
        }
        let bad = parse(b"a7 FROB\r\n").unwrap_err();
        assert_eq!((bad.tag.as_str(), bad.text.as_str()), ("a7", "there is no such command"));
        assert_eq!(parse(b"b FETCH x\r\n").unwrap_err().text, "FETCH does not take these arguments");
        for none in [&b"\r\n"[..], b"*\r\n", b"\xff\xfe\r\n", b"a\r\n", b"+ NOOP\r\n"] {
            assert!(parse(none).is_err());
        }
    }

    #[test]
    fn rfc3501_the_message_of_append_is_told_from_other_literals() {
        let line = b"a APPEND \"x y\" (\\Seen) \"01-Jan-2024 10:00:00 +0000\" {310}\r\n";
        assert!(append_before_literal(line, line.len() - 7).is_some());
        let mailbox = b"a APPEND {3}\r\n";
        assert!(append_before_literal(mailbox, mailbox.len() - 5).is_none());
        let both = b"a APPEND {3}\r\nx y {9}\r\n";
        assert!(append_before_literal(both, both.len() - 5).is_some());
        let login = b"a LOGIN {3}\r\n";
        assert!(append_before_literal(login, login.len() - 5).is_none());
    }

    const SEEDS: [&[u8]; 14] = [
        b"a UID FETCH 1:*,7 (FLAGS BODY.PEEK[1.2.HEADER.FIELDS (From \"To\")]<0.9> BINARY[1])\r\n",
        b"a SEARCH CHARSET UTF-8 OR (FROM {3+}\r\nx\xc3\xbc SINCE 1-Feb-2024) NOT 2:* KEYWORD $x\r\n",
        b"a STORE 1:2 +FLAGS.SILENT (\\Seen $Forwarded)\r\n",
        b"a APPEND \"x y\" (\\Seen) \"01-Jan-2024 10:00:00 +0000\" {3}\r\nabc\r\n",
        b"a LOGIN {5}\r\nalice \"p\\\"w\"\r\n",
        b"a AUTHENTICATE PLAIN AGEAYg==\r\n",
        b"a LIST (SUBSCRIBED) \"\" (\"a/%\" {2}\r\nb*) RETURN (CHILDREN STATUS (MESSAGES))\r\n",
        b"a ID (\"name\" \"x\" \"os\" NIL)\r\n",
        b"a STATUS INBOX (MESSAGES UIDNEXT)\r\n",
        b"a ENABLE CONDSTORE UTF8=ACCEPT\r\n",
        b"a SETQUOTA \"\" (STORAGE 512)\r\n",
        b"a GETMETADATA (MAXSIZE 1024) \"INBOX\" (/shared/comment)\r\n",
        b"a UID THREAD REFERENCES UTF-8 SINCE 1-Jan-2024\r\n",
        b"a SORT (REVERSE DATE) UTF-8 ALL\r\n",
    ];

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 4000, ..Default::default() })]
        #[test]
        fn no_command_however_mangled_stops_the_server(
            seed in 0..SEEDS.len(),
            edits in proptest::collection::vec((0..100usize, proptest::num::u8::ANY, 0..4u8), 0..6),
        ) {
            let mut bytes = SEEDS[seed].to_vec();
            for (at, byte, how) in edits {
                let at = at.min(bytes.len() - 1);
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    2 => bytes.insert(at, b"\"\\{}()[]<>*%~+ \r\n"[usize::from(byte) % 17]),
                    _ if bytes.len() > 1 => drop(bytes.remove(at)),
                    _ => {}
                }
            }
            let _ = parse(&bytes);
            if let Some(literal) = crate::mail::imap::input::announced(&bytes) {
                let _ = append_before_literal(&bytes, literal.at);
            }
            crate::mail::imap::addresses::parse(&bytes);
        }
    }
}
