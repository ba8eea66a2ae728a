//! A small blocking SMTP client for one's own peer: AUTH PLAIN, one mail at a time. It speaks only what submission needs and
//! never retries.

use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::model::Address;

/// Longest wait for one reply: a 250 may wait up to 60 s for safe(f).
const SILENCE: Duration = Duration::from_secs(120);
/// Longest reply line that is read, bytes (RFC 5321 allows 512; be generous).
const LINE_MAX: u64 = 8192;

/// Why a mail was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    /// The connection broke.
    #[error("the connection to SMTP on {server} broke: {source}")]
    Broken {
        /// Whom it was to.
        server: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The server says no, or something that is no reply.
    #[error("SMTP says no to {to}: {reply}")]
    Refused {
        /// What was asked.
        to: &'static str,
        /// Its words.
        reply: String,
    },
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its three digits.
    pub code: u16,
    /// Its lines, without the digits, joined by line breaks.
    pub text: String,
}

/// A connection to a peer's submission.
#[derive(Debug)]
pub struct SmtpClient {
    server: String,
    reader: BufReader<TcpStream>,
    writer: BufWriter<TcpStream>,
    /// Whether it wants to know a mail's length first (RFC 1870).
    takes_size: bool,
}

impl SmtpClient {
    /// Connects, greets and logs in.
    ///
    /// # Errors
    /// [`SmtpError`]: nobody listens, or the login is refused.
    pub fn login(server: &str, login: &str, password: &str) -> Result<Self, SmtpError> {
        Self::login_within(server, login, password, SILENCE)
    }

    /// The same, giving up whenever the peer says nothing for `silence`.
    ///
    /// # Errors
    /// [`SmtpError`]: nobody listens, or the login is refused.
    pub fn login_within(server: &str, login: &str, password: &str, silence: Duration) -> Result<Self, SmtpError> {
        let mut client = Self::connect_within(server, silence)?;
        let offers = client.ask("EHLO", "EHLO [127.0.0.1]", 250)?.text;
        client.takes_size = offers.lines().any(|line| line.split(' ').next() == Some("SIZE"));
        let proof = STANDARD.encode(format!("\0{login}\0{password}"));
        client.ask("AUTH", &format!("AUTH PLAIN {proof}"), 235)?;
        Ok(client)
    }

    /// Connects and reads the greeting.
    ///
    /// # Errors
    /// [`SmtpError`]: nobody listens, or what listens is no SMTP.
    pub fn connect(server: &str) -> Result<Self, SmtpError> {
        Self::connect_within(server, SILENCE)
    }

    fn connect_within(server: &str, silence: Duration) -> Result<Self, SmtpError> {
        let broken = |source| SmtpError::Broken { server: server.to_owned(), source };
        let stream = TcpStream::connect(server).map_err(broken)?;
        stream.set_nodelay(true).map_err(broken)?;
        stream.set_read_timeout(Some(silence)).map_err(broken)?;
        stream.set_write_timeout(Some(silence)).map_err(broken)?;
        let reader = BufReader::new(stream.try_clone().map_err(broken)?);
        let mut client = Self { server: server.to_owned(), reader, writer: BufWriter::new(stream), takes_size: false };
        client.reply("the connection", 220)?;
        Ok(client)
    }

    /// Submits a mail; gives the reply to its last byte.
    ///
    /// # Errors
    /// [`SmtpError`]. After [`SmtpError::Broken`] it may have been taken or not.
    pub fn submit(&mut self, from: &Address, to: &[Address], mail: &[u8]) -> Result<Reply, SmtpError> {
        let size = if self.takes_size { format!(" SIZE={}", mail.len()) } else { String::new() };
        self.ask("MAIL", &format!("MAIL FROM:<{from}>{size}"), 250)?;
        for receiver in to {
            self.ask("RCPT", &format!("RCPT TO:<{receiver}>"), 250)?;
        }
        self.ask("DATA", "DATA", 354)?;
        let sent = write_stuffed(mail, &mut self.writer).and_then(|()| self.writer.flush());
        sent.map_err(|source| self.broken(source))?;
        self.reply("the mail", 250)
    }

    /// Sends a line and reads its reply, which must have this code.
    ///
    /// # Errors
    /// [`SmtpError`].
    pub fn ask(&mut self, what: &'static str, line: &str, code: u16) -> Result<Reply, SmtpError> {
        let sent = self.writer.write_all(format!("{line}\r\n").as_bytes()).and_then(|()| self.writer.flush());
        sent.map_err(|source| self.broken(source))?;
        self.reply(what, code)
    }

    fn reply(&mut self, to: &'static str, code: u16) -> Result<Reply, SmtpError> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            let read = self.reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
            if read.map_err(|source| self.broken(source))? == 0 {
                return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let (digits, rest) = line.split_at_checked(3).unwrap_or(("", &line));
            lines.push(rest.get(1..).unwrap_or_default().to_owned());
            if rest.starts_with('-') {
                continue;
            }
            return match digits.parse::<u16>() {
                Ok(found) if found == code => Ok(Reply { code, text: lines.join("\n") }),
                _ => Err(SmtpError::Refused { to, reply: line }),
            };
        }
    }

    fn broken(&self, source: io::Error) -> SmtpError {
        SmtpError::Broken { server: self.server.clone(), source }
    }
}

/// Writes a mail with its dots doubled, and the dot that ends it (RFC 5321, 4.5.2). Its line breaks must be CRLF.
fn write_stuffed(mail: &[u8], out: &mut dyn Write) -> io::Result<()> {
    for line in mail.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            out.write_all(b".")?;
        }
        out.write_all(line)?;
    }
    if !mail.is_empty() && !mail.ends_with(b"\r\n") {
        out.write_all(b"\r\n")?;
    }
    out.write_all(b".\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn rfc5321_dots_at_the_start_of_lines_are_doubled() {
        let mut out = Vec::new();
        write_stuffed(b"A: b\r\n\r\n.\r\n..x\r\nend", &mut out).unwrap();
        assert_eq!(out, b"A: b\r\n\r\n..\r\n...x\r\nend\r\n.\r\n");
    }

    #[test]
    fn rfc5321_a_mail_is_submitted_and_a_refusal_is_the_servers_own_words() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let server = listener.local_addr().unwrap().to_string();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut heard = Vec::new();
            stream.write_all(b"220 peer ESMTP\r\n").unwrap();
            for answer in
                ["250-peer\r\n250-SIZE 1000\r\n250 AUTH PLAIN\r\n", "235 in\r\n", "250 ok\r\n", "550 5.1.1 unknown\r\n"]
            {
                heard.push(lines.next().unwrap().unwrap());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            heard
        });
        let mut client = SmtpClient::login(&server, "alice@acme", "pass").unwrap();
        let (alice, eve) = ("alice@acme".parse().unwrap(), "eve@acme".parse().unwrap());
        let error = client.submit(&alice, &[eve], b"x").unwrap_err().to_string();
        assert_eq!(error, "SMTP says no to RCPT: 550 5.1.1 unknown");
        let heard = served.join().unwrap();
        assert_eq!(heard[1], format!("AUTH PLAIN {}", STANDARD.encode("\0alice@acme\0pass")));
        assert_eq!(heard[2..], ["MAIL FROM:<alice@acme> SIZE=1", "RCPT TO:<eve@acme>"]);
    }
}
