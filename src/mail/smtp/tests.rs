//! The submission server as a mail program sees it: over a pipe in memory, and over loopback with a real SMTP client.

use std::time::Duration;

use lettre::message::{Attachment, MultiPart, SinglePart, header::ContentType};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::{Message, SmtpTransport, Transport};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::memory::{MemoryPort, Taken};
use super::{Channel, SmtpConfig, SubmitError, serve, serve_connection};
use crate::clock::Clock;
use crate::model::{ByteSize, WallTime};

fn config() -> SmtpConfig {
    SmtpConfig::new(Clock::fixed(WallTime(1_000_000_000_000)))
}

/// A mail program at one end of a pipe.
struct Program {
    stream: BufReader<DuplexStream>,
    port: MemoryPort,
    server: JoinHandle<std::io::Result<()>>,
    stop: watch::Sender<bool>,
}

impl Program {
    async fn connect_with(port: MemoryPort, config: SmtpConfig, pipe: usize) -> Program {
        let (ours, theirs) = tokio::io::duplex(pipe);
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve_connection(theirs, port.clone(), config, stopped));
        let mut program = Program { stream: BufReader::new(ours), port, server, stop };
        assert_eq!(program.reply().await, "220 acme ESMTP Roost");
        program
    }

    async fn connect() -> Program {
        Program::connect_with(MemoryPort::default(), config(), 1 << 16).await
    }

    /// Greeted and logged in.
    async fn ready() -> Program {
        Program::connect().await.logged_in().await
    }

    async fn logged_in(mut self) -> Program {
        self.says(
            "EHLO me",
            "250-acme\n250-PIPELINING\n250-SIZE 1048576\n250-8BITMIME\n250-ENHANCEDSTATUSCODES\n250 AUTH PLAIN LOGIN",
        )
        .await;
        self.says("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "235 2.7.0").await;
        self
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).await.unwrap();
    }

    /// The next reply, its lines joined.
    async fn reply(&mut self) -> String {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            let line = line.trim_end_matches(['\r', '\n']).to_owned();
            let more = line.get(3..4) == Some("-");
            lines.push(line);
            if !more {
                return lines.join("\n");
            }
        }
    }

    /// Sends a line and checks how the reply begins.
    async fn says(&mut self, line: &str, begins: &str) {
        self.send(format!("{line}\r\n").as_bytes()).await;
        let reply = self.reply().await;
        assert!(reply.starts_with(begins), "{line:?} was answered {reply:?}, not {begins:?}");
    }

    /// Up to the text of a mail to bob.
    async fn data(&mut self) {
        self.says("MAIL FROM:<alice@acme>", "250 2.1.0").await;
        self.says("RCPT TO:<bob@acme>", "250 2.1.5").await;
        self.says("DATA", "354 ").await;
    }

    /// Submits a text as it stands, with its end.
    async fn submits(&mut self, text: &[u8], begins: &str) {
        self.data().await;
        self.send(text).await;
        let reply = self.reply().await;
        assert!(reply.starts_with(begins), "{reply:?}, not {begins:?}");
    }

    fn taken(&self) -> Vec<Taken> {
        self.port.with(|s| s.taken.clone())
    }

    async fn expect_end(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    }
}

const DATED: &str = "Date: x\r\nMessage-ID: <1@x>\r\nFrom: alice@acme\r\n";

#[tokio::test]
async fn rfc5321_commands_before_their_time_are_refused() {
    let mut p = Program::connect().await;
    p.says("MAIL FROM:<alice@acme>", "503 5.5.1").await;
    p.says("HELO me", "250 acme").await;
    p.says("MAIL FROM:<alice@acme>", "530 5.7.0").await;
    p.says("RCPT TO:<bob@acme>", "530 5.7.0").await;
    p.says("DATA", "530 5.7.0").await;
    let mut p = p.logged_in().await;
    p.says("RCPT TO:<bob@acme>", "503 5.5.1").await;
    p.says("DATA", "503 5.5.1").await;
    p.says("MAIL FROM:<alice@acme>", "250 2.1.0").await;
    p.says("MAIL FROM:<alice@acme>", "503 5.5.1").await;
    p.says("DATA", "554 5.5.1").await;
    p.says("RSET", "250 2.0.0").await;
    p.says("DATA", "503 5.5.1").await;
    p.says("QUIT", "221 2.0.0").await;
    p.expect_end().await;
}

#[tokio::test]
async fn rfc5321_the_small_commands_answer() {
    let mut p = Program::ready().await;
    for (line, begins) in [
        ("NOOP", "250 2.0.0"),
        ("noop with words", "250 2.0.0"),
        ("VRFY bob", "252 2.0.0"),
        ("HELP", "214 2.0.0"),
        ("EXPN list", "502 5.5.1"),
        ("STARTTLS", "502 5.5.1"),
        ("XYZZY", "500 5.5.1"),
        ("", "500 5.5"),
        ("EHLO", "501 5.5.4"),
        ("MAIL FROM:alice", "501 5.5.4"),
        ("MAIL FROM:<alice@acme> SMTPUTF8", "555 5.5.4"),
        ("MAIL FROM:<alice@acme> BODY=BINARYMIME", "555 5.5.4"),
        ("MAIL FROM:<alice@acme> WHAT=EVER", "555 5.5.4"),
        ("MAIL FROM:<alice@acme> SIZE=many", "501 5.5.4"),
    ] {
        p.says(line, begins).await;
    }
}

#[tokio::test]
async fn rfc5321_syntax_is_read_liberally() {
    let mut p = Program::ready().await;
    p.says("mail from: <Alice@ACME> size=100 body=8bitmime auth=<>", "250 2.1.0").await;
    p.says("rcpt to:  <BOB@acme>", "250 2.1.5").await;
    p.says("Rcpt To:<@relay.example:bob@acme>", "250 2.1.5").await;
    p.send(b"NOOP\n").await;
    assert!(p.reply().await.starts_with("250"));
    p.says("data", "354 ").await;
    p.send(format!("{DATED}\r\nx\r\n.\r\n").as_bytes()).await;
    assert_eq!(p.reply().await, format!("250 2.0.0 accepted as {}", "01".repeat(16)));
    assert_eq!(p.taken()[0].mail.envelope.receivers, ["bob@acme".parse().unwrap()]);
}

#[tokio::test]
async fn rfc4954_every_way_to_log_in() {
    for lines in [
        &[("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "235 2.7.0")][..],
        &[("AUTH PLAIN", "334 "), ("AGFsaWNlAHNlY3JldA==", "235 2.7.0")],
        &[("auth plain", "334 "), ("YWxpY2UAYWxpY2UAc2VjcmV0", "235 2.7.0")],
        &[("AUTH LOGIN", "334 VXNlcm5hbWU6"), ("YWxpY2VAYWNtZQ==", "334 UGFzc3dvcmQ6"), ("c2VjcmV0", "235 2.7.0")],
        &[("AUTH LOGIN YWxpY2U=", "334 UGFzc3dvcmQ6"), ("c2VjcmV0", "235 2.7.0")],
    ] {
        let mut p = Program::connect().await;
        p.says("EHLO me", "250-acme").await;
        for (line, begins) in lines {
            p.says(line, begins).await;
        }
        p.says("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "503 5.5.1").await;
        p.says("MAIL FROM:<alice@acme>", "250 2.1.0").await;
    }
}

#[tokio::test]
async fn rfc4954_what_is_no_login_is_refused() {
    let mut p = Program::connect().await;
    p.says("EHLO me", "250-acme").await;
    p.says("AUTH CRAM-MD5", "504 5.5.4").await;
    p.says("AUTH", "501 5.5.4").await;
    p.says("AUTH PLAIN", "334 ").await;
    p.says("*", "501 5.7.0").await;
    p.says("AUTH LOGIN", "334 ").await;
    p.says("!!", "501 5.5.2").await;
    p.says("AUTH PLAIN =", "501 5.5.2").await;
    p.says("NOOP", "250 2.0.0").await;
    p.says("AUTH PLAIN AGFsaWNlAHdyb25n", "535 5.7.8").await;
    p.says("AUTH PLAIN AGJvYgBzZWNyZXQ=", "535 5.7.8").await;
    p.says("AUTH LOGIN YWxpY2U=", "334 ").await;
    p.says("d3Jvbmc=", "421 4.7.0").await;
    p.expect_end().await;
}

#[tokio::test]
async fn rfc4954_no_password_passes_an_open_channel() {
    let open = SmtpConfig { channel: Channel::Open, ..config() };
    let mut p = Program::connect_with(MemoryPort::default(), open, 1 << 16).await;
    p.says("EHLO me", "250-acme\n250-PIPELINING\n250-SIZE 1048576\n250-8BITMIME\n250 ENHANCEDSTATUSCODES").await;
    p.says("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "538 5.7.11").await;
}

#[tokio::test]
async fn rfc6409_the_sender_is_this_peer() {
    let mut p = Program::ready().await;
    for wrong in ["<>", "<bob@acme>", "<alice@other>", "<alice+x@acme>"] {
        p.says(&format!("MAIL FROM:{wrong}"), "550 5.7.1").await;
    }
    for header in [
        "From: bob@acme\r\n",
        "Subject: no From\r\n",
        "From: alice@acme\r\nFrom: bob@acme\r\n",
        "From: alice@acme, bob@acme\r\n",
        "From: \"alice@acme\" <bob@acme>\r\n",
        "",
    ] {
        p.submits(format!("{header}\r\nFrom: alice@acme\r\n.\r\n").as_bytes(), "550 5.7.1").await;
    }
    p.submits(b"no header at all\r\n.\r\n", "550 5.7.1").await;
    p.submits(b".\r\n", "550 5.7.1").await;
    p.submits(b"From: \"bob@acme\" <Alice@acme>\r\n\r\nx\r\n.\r\n", "250 2.0.0").await;
    assert_eq!((p.taken().len(), p.port.with(|s| s.open)), (1, 0));
}

#[tokio::test]
async fn rfc6409_date_and_message_id_come_and_bcc_goes_and_every_other_byte_stays() {
    let mut p = Program::ready().await;
    let body = b"\r\n..two dots\r\n\0\xff 8 bit\r\n.\r\nBcc: in the body\r\n";
    let header = "Bcc: eve@acme,\r\n dan@acme\r\nFrom: alice@acme\r\nodd line\r\nSubject: x\r\n y\r\n";
    let stuffed = [header.as_bytes(), b"\r\n...two dots\r\n\0\xff 8 bit\r\n..\r\nBcc: in the body\r\n.\r\n"].concat();
    p.submits(&stuffed, "250 2.0.0").await;
    let taken = p.taken().remove(0);
    let text = String::from_utf8_lossy(&taken.bytes).into_owned();
    let kept = "From: alice@acme\r\nodd line\r\nSubject: x\r\n y\r\n";
    let added = &text[..text.find("From:").unwrap()];
    assert!(added.starts_with("Date: Sun, 9 Sep 2001 01:46:") && added.contains("\r\nMessage-ID: <"), "{added}");
    assert_eq!(taken.bytes, [added.as_bytes(), kept.as_bytes(), body].concat());
    assert_eq!(taken.mail.split, crate::mime::split::split(&taken.bytes));
}

#[tokio::test]
async fn rfc5321_receivers_are_answered_one_by_one() {
    let mut p = Program::ready().await;
    p.port.with(|s| s.unknown.insert("nobody@acme".parse().unwrap()));
    p.says("MAIL FROM:<alice@acme>", "250 2.1.0").await;
    p.says("RCPT TO:<nobody@acme>", "550 5.1.1").await;
    p.says("RCPT TO:<someone@example.org>", "550 5.1.2").await;
    p.says("RCPT TO:<some+one@example.org>", "550 5.1.2 some+one@example.org is outside: Roost carries mail only")
        .await;
    p.says("RCPT TO:<>", "550 5.1.2").await;
    p.says("RCPT TO:<bob>", "501 5.1.3").await;
    p.says("RCPT TO:<bob@acme> NOTIFY=NEVER", "555 5.5.4").await;
    for i in 0..100 {
        p.says(&format!("RCPT TO:<m{i}@acme>"), "250 2.1.5").await;
    }
    p.says("RCPT TO:<m101@acme>", "452 4.5.3").await;
    p.says("RCPT TO:<M7@acme>", "250 2.1.5").await;
    p.says("DATA", "354 ").await;
    p.send(format!("{DATED}\r\n.\r\n").as_bytes()).await;
    assert!(p.reply().await.starts_with("250 2.0.0"));
    let mail = p.taken().remove(0).mail;
    assert_eq!((mail.envelope.receivers.len(), mail.envelope.from), (100, "alice@acme".parse().unwrap()));
}

#[tokio::test]
async fn rfc2920_pipelined_commands_are_answered_in_order() {
    for pipe in [1 << 16, 5] {
        let p = Program::connect_with(MemoryPort::default(), config(), pipe).await;
        let mail = format!("{DATED}\r\nbody {}\r\n.\r\n", "x".repeat(10_000));
        let all = format!(
            "EHLO me\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nMAIL FROM:<alice@acme>\r\nRCPT TO:<x@y.z>\r\nRCPT TO:<bob@acme>\r\nDATA\r\n{mail}\
             MAIL FROM:<alice@acme>\r\nRCPT TO:<bob@acme>\r\nDATA\r\n{mail}QUIT\r\n"
        );
        let (read, mut write) = tokio::io::split(p.stream.into_inner());
        let writer = tokio::spawn(async move {
            write.write_all(all.as_bytes()).await.unwrap();
            write
        });
        let mut text = String::new();
        BufReader::new(read).read_to_string(&mut text).await.unwrap();
        let codes: Vec<_> = text.lines().filter(|l| l.get(3..4) == Some(" ")).map(|l| &l[..3]).collect();
        assert_eq!(codes, ["250", "235", "250", "550", "250", "354", "250", "250", "250", "354", "250", "221"]);
        writer.await.unwrap();
        p.server.await.unwrap().unwrap();
        let taken = p.port.with(|s| s.taken.clone());
        assert_eq!(taken.len(), 2);
        assert_eq!(taken[1].bytes.len(), mail.len() - 3);
        drop(p.stop);
    }
}

#[tokio::test]
async fn rfc1870_a_mail_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let mut p = Program::ready().await;
    p.says("MAIL FROM:<alice@acme> SIZE=1048577", "552 5.3.4").await;
    p.says("MAIL FROM:<alice@acme> SIZE=999999999999999999", "552 5.3.4").await;
    let line = [vec![b'x'; 10_000], b"\r\n".to_vec()].concat();
    let large = [format!("{DATED}\r\n").into_bytes(), line.repeat(110), b".\r\n".to_vec()].concat();
    p.submits(&large, "552 5.3.4").await;
    let fits = [format!("{DATED}\r\n").into_bytes(), line.repeat(100), b".\r\n".to_vec()].concat();
    p.submits(&fits, "250 2.0.0").await;
    assert_eq!((p.taken().len(), p.port.with(|s| s.open)), (1, 0));
    assert_eq!(p.taken()[0].bytes, fits[..fits.len() - 3]);
}

#[tokio::test]
async fn rfc1870_the_largest_mail_is_that_of_the_policy_of_this_moment() {
    let mut p = Program::ready().await;
    p.port.with(|s| s.max_mail = Some(ByteSize(2000)));
    p.says("EHLO me", "250-acme\n250-PIPELINING\n250-SIZE 2000\n").await;
    p.says("MAIL FROM:<alice@acme> SIZE=2001", "552 5.3.4").await;
    p.says("MAIL FROM:<alice@acme> SIZE=2000", "250 2.1.0").await;
    p.says("RCPT TO:<bob@acme>", "250 2.1.5").await;
    p.port.with(|s| s.max_mail = Some(ByteSize(100)));
    p.says("DATA", "354 ").await;
    p.send(format!("{DATED}\r\n{}\r\n.\r\n", "x".repeat(200)).as_bytes()).await;
    assert!(p.reply().await.starts_with("552 5.3.4"));
}

#[tokio::test]
async fn rfc1870_neither_stuffed_dots_nor_fields_that_submission_adds_make_a_mail_too_large() {
    let mut p = Program::ready().await;
    // No Date and no Message-ID.
    let mail = b"From: alice@acme\r\nSubject: x\r\n\r\n....\r\n";
    let stuffed = [&mail[..mail.len() - 6], b".....\r\n.\r\n"].concat();
    p.port.with(|s| s.max_mail = Some(ByteSize(u64::try_from(mail.len()).unwrap())));
    p.submits(&stuffed, "250 2.0.0").await;
    assert!(p.taken()[0].bytes.ends_with(mail) && p.taken()[0].bytes.len() > mail.len());
    p.port.with(|s| s.max_mail = Some(ByteSize(u64::try_from(mail.len()).unwrap() - 1)));
    p.submits(&stuffed, "552 5.3.4").await;
}

#[tokio::test]
async fn a_mail_far_beyond_the_bound_closes_the_connection() {
    let port = MemoryPort::default();
    port.with(|s| s.max_mail = Some(ByteSize(10)));
    let mut p = Program::connect_with(port, config(), 1 << 20).await;
    p.says("EHLO me", "250-acme").await;
    p.says("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "235 2.7.0").await;
    p.data().await;
    let chunk = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while sent < 100 && p.stream.get_mut().write_all(&chunk).await.is_ok() {
        sent += 1;
    }
    assert!(p.reply().await.starts_with("552 5.3.4"));
    assert!((60..100).contains(&sent), "{sent}");
}

#[tokio::test]
async fn headers_that_do_not_fit_an_ns_are_refused() {
    let mut p = Program::ready().await;
    let field = format!("X: {}\r\n", "x".repeat(990));
    for count in [50, 130, 200] {
        p.submits(format!("{DATED}{}\r\nx\r\n.\r\n", field.repeat(count)).as_bytes(), "552 5.3.4").await;
    }
    let parts = "--b\r\nContent-Type: text/plain; charset=utf-8; name=long-name\r\n\r\nx\r\n".repeat(600);
    let many = format!("{DATED}Content-Type: multipart/mixed; boundary=b\r\n\r\n{parts}--b--\r\n.\r\n");
    p.submits(many.as_bytes(), "552 5.3.4").await;
    let bcc = format!("Bcc: {}eve@acme\r\n", "somebody@acme,\r\n ".repeat(4000));
    p.submits(format!("{DATED}{bcc}\r\nx\r\n.\r\n").as_bytes(), "250 2.0.0").await;
    assert_eq!((p.taken().len(), p.port.with(|s| s.open)), (1, 0));
}

#[tokio::test]
async fn rfc5321_a_bare_line_break_smuggles_nothing() {
    let smuggled = "MAIL FROM:<alice@acme>\r\nRCPT TO:<eve@acme>\r\nDATA\r\nFrom: alice@acme\r\n\r\nsmuggled\r\n";
    for end in ["\n.\n", "\n.\r\n", "\r.\r\n", "\r\n.\n", "\r\n.\r"] {
        let mut p = Program::ready().await;
        p.submits(format!("{DATED}\r\nx{end}{smuggled}.\r\n").as_bytes(), "550 5.6.11").await;
        p.says("NOOP", "250 2.0.0").await;
        assert_eq!((p.taken().len(), p.port.with(|s| s.open)), (0, 0), "{end:?}");
    }
    let mut p = Program::ready().await;
    p.submits(b"From: bob@acme\nTo: x\n\nall in LF\r\n.\r\n", "550 5.6.11").await;
}

#[tokio::test]
async fn rfc5321_broken_mime_and_long_lines_pass_to_the_byte() {
    let long = "x".repeat(70_000);
    for text in [
        format!("{DATED}Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nno end {long}\r\n"),
        format!("{DATED}Content-Type: ;;;=\"\r\n\r\n\0\0\r\n"),
        DATED.to_owned(),
        format!("{DATED}\r\n"),
    ] {
        let mut p = Program::connect_with(MemoryPort::default(), config(), 1000).await.logged_in().await;
        p.submits(format!("{text}.\r\n").as_bytes(), "250 2.0.0").await;
        assert_eq!(p.taken()[0].bytes, text.as_bytes());
    }
}

#[tokio::test]
async fn what_the_spool_says_becomes_the_reply() {
    let full = SubmitError::DiskFull;
    for (error, begins) in [
        (full.clone(), "452 4.3.1"),
        (SubmitError::Busy { why: "too many mails".into() }, "451 4.3.2"),
        (SubmitError::Internal { why: "x".into() }, "451 4.3.0"),
        (SubmitError::TooLarge { limit: ByteSize(1) }, "552 5.3.4"),
    ] {
        let mut p = Program::ready().await;
        p.port.with(|s| s.commit_error = Some(error));
        p.submits(format!("{DATED}\r\n.\r\n").as_bytes(), begins).await;
        assert_eq!((p.taken().len(), p.port.with(|s| s.open)), (0, 0));
    }
    let mut p = Program::ready().await;
    p.port.with(|s| s.write_error = Some(full.clone()));
    p.submits(format!("{DATED}\r\nx\r\n.\r\n").as_bytes(), "452 4.3.1").await;
    p.port.with(|s| (s.write_error, s.begin_error) = (None, Some(full)));
    p.says("MAIL FROM:<alice@acme>", "250 2.1.0").await;
    p.says("RCPT TO:<bob@acme>", "250 2.1.5").await;
    p.says("DATA", "452 4.3.1").await;
    p.port.with(|s| s.begin_error = None);
    p.says("DATA", "354 ").await;
}

#[tokio::test]
async fn a_mail_that_is_cut_off_leaves_nothing() {
    let mut p = Program::ready().await;
    p.data().await;
    p.send(format!("{DATED}\r\nhalf\r\n.").as_bytes()).await;
    let (port, server) = (p.port.clone(), p.server);
    drop(p.stream);
    server.await.unwrap().unwrap();
    port.with(|s| assert_eq!((s.taken.len(), s.begun, s.open), (0, 1, 0)));
}

#[tokio::test]
async fn nonsense_is_bounded() {
    let mut p = Program::connect().await;
    p.says(&format!("NOOP {}", "x".repeat(3000)), "500 5.5.6").await;
    p.says(&"x".repeat(200_000), "500 5.5.6").await;
    p.says(&"\0".repeat(13_000), "500 5.5.6").await;
    for _ in 0..16 {
        p.says("XYZZY", "500 5.5.1").await;
    }
    p.says("XYZZY", "421 4.7.0").await;
    p.expect_end().await;

    let mut p = Program::connect_with(MemoryPort::default(), config(), 1 << 22).await;
    p.send(&vec![b'x'; 1 << 21]).await;
    assert!(p.reply().await.starts_with("421 4.7.0"));
}

#[tokio::test]
async fn silence_and_a_stop_end_a_connection() {
    let short = SmtpConfig { idle: Duration::from_millis(20), ..config() };
    let mut p = Program::connect_with(MemoryPort::default(), short, 1 << 16).await;
    assert!(p.reply().await.starts_with("421 4.4.2"));
    p.expect_end().await;

    let mut p = Program::ready().await;
    p.data().await;
    p.stop.send(true).unwrap();
    p.send(format!("{DATED}\r\n.\r\n").as_bytes()).await;
    assert!(p.reply().await.starts_with("250 2.0.0"));
    assert!(p.reply().await.starts_with("421 4.3.2"));
    p.expect_end().await;
}

async fn on_loopback(config: SmtpConfig) -> (u16, MemoryPort, watch::Sender<bool>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (number, port) = (listener.local_addr().unwrap().port(), MemoryPort::default());
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(serve(listener, port.clone(), config, stopped));
    (number, port, stop, server)
}

#[tokio::test]
async fn a_real_client_submits_over_loopback() {
    let (number, port, stop, server) = on_loopback(config()).await;
    let attachment = vec![0xa5_u8; 200_000];
    let mail = Message::builder()
        .from("Alice <alice@acme>".parse().unwrap())
        .to("Bob <bob@acme>".parse().unwrap())
        .bcc("eve@acme".parse().unwrap())
        .subject("Gr\u{fc}\u{df}e")
        .multipart(MultiPart::mixed().singlepart(SinglePart::plain("hello\n.\n".to_owned())).singlepart(
            Attachment::new("a.bin".into()).body(attachment, ContentType::parse("application/x-bin").unwrap()),
        ))
        .unwrap();
    // This client puts an empty line at the end of every mail.
    let sent = [mail.formatted(), b"\r\n".to_vec()].concat();
    tokio::task::spawn_blocking(move || {
        for mechanism in [Mechanism::Plain, Mechanism::Login] {
            let client = SmtpTransport::builder_dangerous("127.0.0.1")
                .port(number)
                .credentials(Credentials::new("alice".into(), "secret".into()))
                .authentication(vec![mechanism])
                .build();
            client.send(&mail).unwrap();
        }
        let wrong = SmtpTransport::builder_dangerous("127.0.0.1")
            .port(number)
            .credentials(Credentials::new("alice".into(), "wrong".into()))
            .build();
        assert!(wrong.send(&mail).unwrap_err().is_permanent());
    })
    .await
    .unwrap();
    let taken = port.with(|s| s.taken.clone());
    assert_eq!(taken.len(), 2);
    for one in &taken {
        assert!(one.bytes.ends_with(&sent[sent.len() - 200_000..]));
        assert!(!String::from_utf8_lossy(&one.bytes).contains("eve@acme"));
        assert_eq!(one.mail.envelope.receivers.len(), 2);
    }
    stop.send(true).unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn connections_are_bounded() {
    let (number, _port, stop, server) = on_loopback(SmtpConfig { connections_max: 1, ..config() }).await;
    let mut first = BufReader::new(TcpStream::connect(("127.0.0.1", number)).await.unwrap());
    let mut line = String::new();
    first.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("220 "));
    let mut second = String::new();
    TcpStream::connect(("127.0.0.1", number)).await.unwrap().read_to_string(&mut second).await.unwrap();
    assert!(second.starts_with("421 4.3.2"), "{second}");
    stop.send(true).unwrap();
    server.await.unwrap();
}
