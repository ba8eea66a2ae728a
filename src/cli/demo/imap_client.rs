//! A small blocking IMAP client for one's own peer: enough to log in, look, search and fetch. It holds a fetched mail in
//! memory and never retries.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tokio::time::Instant;

/// Longest silence of a peer: while it pulls it sends a line every 5 s.
const SILENCE: Duration = Duration::from_secs(120);
/// Longest line that is read, bytes.
const LINE_MAX: u64 = 1 << 20;
/// Longest literal that is read, bytes: the longest mail there is, and some more.
const LITERAL_MAX: u64 = 2 << 30;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum ImapError {
    /// The connection broke.
    #[error("the connection to IMAP on {server} broke: {source}")]
    Broken {
        /// Whom it was to.
        server: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// NO or BAD.
    #[error("IMAP says {answer}")]
    Refused {
        /// From NO or BAD on.
        answer: String,
    },
    /// An answer that is none, or without what was asked for.
    #[error("IMAP answers with what is no answer: {line}")]
    Protocol {
        /// What it said.
        line: String,
    },
}

impl ImapError {
    /// Whether this is `NO [UNAVAILABLE]`: the body cannot be had now.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, ImapError::Refused { answer } if answer.starts_with("NO [UNAVAILABLE]"))
    }
}

/// One response: its text, each literal replaced by `{}`, and the literals.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// Without the line break.
    pub text: String,
    /// In order.
    pub literals: Vec<Vec<u8>>,
}

/// A selected mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Selected {
    /// Messages in it.
    pub exists: u32,
    /// The UID that the next one gets.
    pub uid_next: u32,
    /// Its UIDVALIDITY.
    pub uid_validity: u32,
}

/// A connection to a peer's IMAP.
#[derive(Debug)]
pub struct ImapClient {
    server: String,
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    commands: u32,
    /// Messages in the selected mailbox, as it last said.
    exists: u32,
}

impl ImapClient {
    /// Connects and reads the greeting.
    ///
    /// # Errors
    /// [`ImapError`]: nobody listens, or what listens is no IMAP.
    pub fn connect(server: &str) -> Result<Self, ImapError> {
        Self::connect_within(server, SILENCE)
    }

    fn connect_within(server: &str, silence: Duration) -> Result<Self, ImapError> {
        let broken = |source| ImapError::Broken { server: server.to_owned(), source };
        let writer = TcpStream::connect(server).map_err(broken)?;
        writer.set_nodelay(true).map_err(broken)?;
        writer.set_read_timeout(Some(silence)).map_err(broken)?;
        writer.set_write_timeout(Some(silence)).map_err(broken)?;
        let reader = BufReader::new(writer.try_clone().map_err(broken)?);
        let mut client = Self { server: server.to_owned(), reader, writer, commands: 0, exists: 0 };
        let greeting = client.response(&mut |_, _| {})?.text;
        if greeting.starts_with("* OK") { Ok(client) } else { Err(ImapError::Protocol { line: greeting }) }
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// [`ImapError`]: nobody listens, or the login is refused.
    pub fn login(server: &str, login: &str, password: &str) -> Result<Self, ImapError> {
        Self::login_within(server, login, password, SILENCE)
    }

    /// The same, giving up whenever the peer says nothing for `silence`.
    ///
    /// # Errors
    /// [`ImapError`]: nobody listens, or the login is refused.
    pub fn login_within(server: &str, login: &str, password: &str, silence: Duration) -> Result<Self, ImapError> {
        let mut client = Self::connect_within(server, silence)?;
        client.command(&format!("LOGIN {} {}", quoted(login), quoted(password)))?;
        Ok(client)
    }

    /// Does a command; gives the untagged responses.
    ///
    /// # Errors
    /// [`ImapError`].
    pub fn command(&mut self, line: &str) -> Result<Vec<Response>, ImapError> {
        self.command_telling(line, &mut |_, _| {})
    }

    /// Does a command. `told` gets every untagged `OK` as it comes, and how far a long literal is.
    ///
    /// # Errors
    /// [`ImapError`].
    pub fn command_telling(
        &mut self,
        line: &str,
        told: &mut dyn FnMut(&str, Option<u8>),
    ) -> Result<Vec<Response>, ImapError> {
        self.commands += 1;
        let tag = format!("r{}", self.commands);
        let sent = self.writer.write_all(format!("{tag} {line}\r\n").as_bytes());
        sent.map_err(|source| self.broken(source))?;
        let mut untagged = Vec::new();
        loop {
            let response = self.response(told)?;
            match response.text.strip_prefix(&tag).and_then(|rest| rest.strip_prefix(' ')) {
                Some(answer) if answer.starts_with("OK") => return Ok(untagged),
                Some(answer) => return Err(ImapError::Refused { answer: answer.to_owned() }),
                None => {}
            }
            if let Some(text) = response.text.strip_prefix("* OK ") {
                told(text, percent_in(text));
            }
            untagged.push(response);
        }
    }

    /// Messages in the selected mailbox, as the peer last said, whatever it was asked.
    pub fn exists(&self) -> u32 {
        self.exists
    }

    /// Waits (IDLE, RFC 2177) until the selected mailbox has more than `known` messages; gives when it said so.
    ///
    /// # Errors
    /// [`ImapError`]; also when the peer says nothing at all for long.
    pub fn idle_beyond(&mut self, known: u32) -> Result<Instant, ImapError> {
        if self.exists > known {
            return Ok(Instant::now());
        }
        self.commands += 1;
        let tag = format!("r{}", self.commands);
        let sent = self.writer.write_all(format!("{tag} IDLE\r\n").as_bytes());
        sent.map_err(|source| self.broken(source))?;
        let mut idles = false;
        loop {
            let response = self.response(&mut |_, _| {})?;
            idles |= response.text.starts_with('+');
            if idles && self.exists > known {
                break;
            }
            if response.text.starts_with(&tag) {
                return Err(ImapError::Refused { answer: response.text });
            }
        }
        let told = Instant::now();
        self.writer.write_all(b"DONE\r\n").map_err(|source| self.broken(source))?;
        loop {
            let response = self.response(&mut |_, _| {})?;
            match response.text.strip_prefix(&tag).and_then(|rest| rest.strip_prefix(' ')) {
                Some(answer) if answer.starts_with("OK") => return Ok(told),
                Some(answer) => return Err(ImapError::Refused { answer: answer.to_owned() }),
                None => {}
            }
        }
    }

    /// Selects a mailbox.
    ///
    /// # Errors
    /// [`ImapError`].
    pub fn select(&mut self, mailbox: &str) -> Result<Selected, ImapError> {
        let mut selected = Selected::default();
        for response in self.command(&format!("SELECT {}", quoted(mailbox)))? {
            let text = response.text.as_str();
            if let Some(n) = text.strip_prefix("* ").and_then(|t| t.strip_suffix(" EXISTS")) {
                selected.exists = n.parse().unwrap_or_default();
            }
            let code = |name: &str| -> Option<u32> { text.split_once(name)?.1.split(']').next()?.trim().parse().ok() };
            selected.uid_next = code("[UIDNEXT").unwrap_or(selected.uid_next);
            selected.uid_validity = code("[UIDVALIDITY").unwrap_or(selected.uid_validity);
        }
        Ok(selected)
    }

    /// UIDs that match, for example `ALL` or `SUBJECT "x"`.
    ///
    /// # Errors
    /// [`ImapError`].
    pub fn uid_search(&mut self, what: &str) -> Result<Vec<u32>, ImapError> {
        let responses = self.command(&format!("UID SEARCH {what}"))?;
        let found = responses.iter().filter_map(|r| r.text.strip_prefix("* SEARCH"));
        Ok(found.flat_map(str::split_whitespace).filter_map(|uid| uid.parse().ok()).collect())
    }

    /// The UIDs from `first` on.
    ///
    /// # Errors
    /// [`ImapError`].
    pub fn uids_from(&mut self, first: u32) -> Result<Vec<u32>, ImapError> {
        // "n:*" always names the last message, also when its UID is below n (RFC 3501, 6.4.8).
        let uids = self.uid_search(&format!("UID {first}:*"))?;
        Ok(uids.into_iter().filter(|uid| *uid >= first).collect())
    }

    /// One section of a message, for example `""` for all of it or `HEADER`; `\Seen` is not set.
    ///
    /// # Errors
    /// [`ImapError`]; [`ImapError::is_unavailable`] when it cannot be had now.
    pub fn fetch(
        &mut self,
        uid: u32,
        section: &str,
        told: &mut dyn FnMut(&str, Option<u8>),
    ) -> Result<Vec<u8>, ImapError> {
        let responses = self.command_telling(&format!("UID FETCH {uid} BODY.PEEK[{section}]"), told)?;
        let fetched = responses.into_iter().find(|r| r.text.contains(" FETCH ") && !r.literals.is_empty());
        let missing = || ImapError::Protocol { line: format!("no literal for UID {uid}") };
        fetched.and_then(|r| r.literals.into_iter().next()).ok_or_else(missing)
    }

    /// Data items of a message that have no literal, for example `FLAGS` or `RFC822.SIZE`: the response as it stands.
    ///
    /// # Errors
    /// [`ImapError`].
    pub fn fetch_items(&mut self, uid: u32, items: &str) -> Result<String, ImapError> {
        let responses = self.command(&format!("UID FETCH {uid} ({items})"))?;
        let fetched = responses.into_iter().find(|r| r.text.contains(" FETCH "));
        fetched.map(|r| r.text).ok_or_else(|| ImapError::Protocol { line: format!("nothing for UID {uid}") })
    }

    fn response(&mut self, told: &mut dyn FnMut(&str, Option<u8>)) -> Result<Response, ImapError> {
        let mut response = Response::default();
        loop {
            let mut line = Vec::new();
            let read = self.reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
            read.map_err(|source| self.broken(source))?;
            if !line.ends_with(b"\r\n") {
                return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
            }
            let text = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
            let Some((before, length)) = literal_at_end(&text) else {
                response.text.push_str(&text);
                self.count(&response.text);
                return Ok(response);
            };
            if length > LITERAL_MAX {
                return Err(ImapError::Protocol { line: text });
            }
            response.text.push_str(before);
            response.text.push_str("{}");
            response.literals.push(self.literal(length, told)?);
        }
    }

    /// Keeps track of how many messages there are (RFC 3501, 7.3.1 and 7.4.1).
    fn count(&mut self, text: &str) {
        let Some(rest) = text.strip_prefix("* ") else { return };
        if let Some(n) = rest.strip_suffix(" EXISTS") {
            self.exists = n.parse().unwrap_or(self.exists);
        } else if rest.ends_with(" EXPUNGE") {
            self.exists = self.exists.saturating_sub(1);
        }
    }

    fn literal(&mut self, length: u64, told: &mut dyn FnMut(&str, Option<u8>)) -> Result<Vec<u8>, ImapError> {
        const STEP: u64 = 1 << 20;
        let mut bytes = Vec::new();
        let mut left = length;
        while left > 0 {
            let read = self.reader.by_ref().take(left.min(STEP)).read_to_end(&mut bytes);
            let read = u64::try_from(read.map_err(|source| self.broken(source))?).unwrap_or(0);
            if read == 0 {
                return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
            }
            left -= read;
            if length > STEP {
                told("reading", u8::try_from((length - left) * 100 / length).ok());
            }
        }
        Ok(bytes)
    }

    fn broken(&self, source: io::Error) -> ImapError {
        ImapError::Broken { server: self.server.clone(), source }
    }
}

/// `text {123}` as `text ` and 123.
fn literal_at_end(text: &str) -> Option<(&str, u64)> {
    let (before, length) = text.strip_suffix('}')?.rsplit_once('{')?;
    Some((before, length.parse().ok()?))
}

/// The number before the first `%`.
fn percent_in(text: &str) -> Option<u8> {
    let before = text.split_once('%')?.0;
    let start = before.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    before[start..].parse().ok()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that says these lines to one command each, after the greeting.
    fn server(answers: &'static [&'static str]) -> (ImapClient, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let server = listener.local_addr().unwrap().to_string();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            stream.write_all(b"* OK ready\r\n").unwrap();
            let mut heard = Vec::new();
            for answer in answers {
                heard.push(lines.next().unwrap().unwrap());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            heard
        });
        (ImapClient::connect(&server).unwrap(), served)
    }

    #[test]
    fn rfc3501_select_and_search_are_read() {
        let (mut client, served) = server(&[
            "* 3 EXISTS\r\n* OK [UIDVALIDITY 7] ok\r\n* OK [UIDNEXT 12] ok\r\nr1 OK [READ-WRITE] done\r\n",
            "* SEARCH 2 11 12\r\nr2 OK done\r\n",
        ]);
        assert_eq!(client.select("INBOX").unwrap(), Selected { exists: 3, uid_next: 12, uid_validity: 7 });
        assert_eq!(client.uids_from(12).unwrap(), [12]);
        assert_eq!(served.join().unwrap(), ["r1 SELECT \"INBOX\"", "r2 UID SEARCH UID 12:*"]);
    }

    #[test]
    fn rfc2177_idle_ends_when_there_is_more() {
        let (mut client, served) = server(&[
            "* 3 EXISTS\r\nr1 OK [READ-WRITE] done\r\n",
            "+ idling\r\n* OK still here\r\n* 4 EXISTS\r\n",
            "r2 OK done\r\n",
            "* 2 EXPUNGE\r\nr3 OK done\r\n",
        ]);
        client.select("INBOX").unwrap();
        client.idle_beyond(2).unwrap();
        client.idle_beyond(3).unwrap();
        assert_eq!(client.exists(), 4);
        client.command("EXPUNGE").unwrap();
        assert_eq!(client.exists(), 3);
        assert_eq!(served.join().unwrap()[1..], ["r2 IDLE", "DONE", "r3 EXPUNGE"]);
    }

    #[test]
    fn rfc3501_a_body_is_a_literal_and_progress_is_told() {
        let (mut client, served) = server(&[
            "* OK still pulling, 43%\r\n* 1 FETCH (UID 5 BODY[] {9}\r\nA: b\r\n\r\n. FLAGS ())\r\nr1 OK done\r\n",
            "r2 NO [UNAVAILABLE] 1 part is missing\r\n",
        ]);
        let mut told = Vec::new();
        let body = client.fetch(5, "", &mut |text, percent| told.push((text.to_owned(), percent))).unwrap();
        assert_eq!(body, b"A: b\r\n\r\n.");
        assert_eq!(told, [("still pulling, 43%".to_owned(), Some(43))]);
        let error = client.fetch(5, "", &mut |_, _| {}).unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        served.join().unwrap();
    }
}
