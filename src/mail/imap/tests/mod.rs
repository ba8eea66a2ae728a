//! The server, spoken to as a mail program does.

mod append;
mod bodies;
mod commands;
mod programs;

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf};

use super::memory::{Memory, PASSWORD};
use super::{ImapConfig, serve_connection};

/// A mail program that reads line by line.
struct Program {
    reader: BufReader<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
    count: u32,
}

/// Pauses and periods so short that tests wait for nothing.
fn config() -> ImapConfig {
    ImapConfig {
        auth_pause: Duration::from_millis(1),
        progress_every: Duration::from_millis(20),
        append_max: 4 * 1024 * 1024,
        ..ImapConfig::default()
    }
}

impl Program {
    async fn connect(store: &Memory) -> Self {
        Self::connect_with(store, config()).await
    }
    async fn connect_with(store: &Memory, config: ImapConfig) -> Self {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let (reader, writer) = tokio::io::split(far);
        tokio::spawn(serve_connection(store.clone(), config, reader, writer));
        let (reader, writer) = tokio::io::split(near);
        let mut program = Self { reader: BufReader::new(reader), writer, count: 0 };
        assert!(program.line().await.starts_with("* OK [CAPABILITY IMAP4rev1 "));
        program
    }
    async fn login(store: &Memory) -> Self {
        let mut program = Self::connect(store).await;
        program.ok(&format!("LOGIN alice \"{PASSWORD}\"")).await;
        program
    }
    async fn select(store: &Memory, mailbox: &str) -> Self {
        let mut program = Self::login(store).await;
        program.ok(&format!("SELECT {mailbox}")).await;
        program
    }
    async fn send(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
    }
    /// One line without its line break; bytes that are no UTF-8 become U+FFFD.
    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        // Long, so that it also holds on a busy machine; it only turns a hang into a failure.
        let read = self.reader.read_until(b'\n', &mut line);
        tokio::time::timeout(Duration::from_secs(120), read).await.expect("an answer").unwrap();
        assert!(line.ends_with(b"\r\n"), "cut off after {:?}", String::from_utf8_lossy(&line));
        String::from_utf8_lossy(&line[..line.len() - 2]).into_owned()
    }
    async fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.reader.read_exact(&mut bytes).await.unwrap();
        bytes
    }
    /// Sends a command; gives its tag.
    async fn start(&mut self, command: &str) -> String {
        self.count += 1;
        let tag = format!("t{}", self.count);
        self.send(format!("{tag} {command}\r\n").as_bytes()).await;
        tag
    }
    /// Everything up to the tagged response, and that response without its tag. Literals stand in the text.
    async fn rest(&mut self, tag: &str) -> (String, String) {
        let mut text = String::new();
        loop {
            let line = self.line().await;
            if let Some(status) = line.strip_prefix(&format!("{tag} ")) {
                return (text, status.to_owned());
            }
            text.push_str(&line);
            text.push('\n');
            let literal = line.strip_suffix('}').and_then(|l| l.rsplit_once('{')).and_then(|(_, n)| n.parse().ok());
            if let Some(len) = literal {
                text.push_str(&String::from_utf8_lossy(&self.bytes(len).await));
            }
        }
    }
    /// Sends a command; gives its untagged responses and its status.
    async fn run(&mut self, command: &str) -> (String, String) {
        let tag = self.start(command).await;
        self.rest(&tag).await
    }
    /// The same for a command that succeeds; gives the untagged responses.
    async fn ok(&mut self, command: &str) -> String {
        let (text, status) = self.run(command).await;
        assert!(status.starts_with("OK"), "{command}: {status}");
        text
    }
    /// The same for one that fails; gives the status.
    async fn fails(&mut self, command: &str) -> String {
        let (_, status) = self.run(command).await;
        assert!(!status.starts_with("OK"), "{command}: {status}");
        status
    }
}

const PLAIN: &[u8] = b"From: Bob <bob@acme>\r\nTo: alice@acme\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nDate: Mon, 1 Jan 2024 23:30:00 +0100\r\nMessage-ID: <1@acme>\r\n\r\nHello Alice,\r\nthe owl is home.\r\n";

const PARTS: &[u8] = b"From: carol@acme\r\nTo: alice@acme\r\nSubject: parts\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=xx\r\n\r\n--xx\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nR3LDvMOfZSBhbiBkaWUgRXVsZQ==\r\n--xx\r\nContent-Type: application/octet-stream; name=a.bin\r\nContent-Transfer-Encoding: base64\r\n\r\nAAECAwQ=\r\n--xx--\r\n";
