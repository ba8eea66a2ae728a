use super::{PLAIN, Program};
use crate::core::postbox::access::Flag;
use crate::mail::imap::memory::Memory;

#[tokio::test]
async fn rfc4315_append_files_the_message_and_tells_its_uid() {
    let store = Memory::new();
    let mut program = Program::select(&store, "Drafts").await;
    let date = "\"02-Feb-2023 03:04:05 +0100\"";
    let tag = program.start(&format!("APPEND Drafts (\\Seen \\Recent) {date} {{{}}}", PLAIN.len())).await;
    assert!(program.line().await.starts_with("+ "));
    program.send(PLAIN).await;
    program.send(b"\r\n").await;
    let (text, status) = program.rest(&tag).await;
    assert!(text.starts_with("* 1 EXISTS\n"), "{text}");
    assert!(status.starts_with("OK [APPENDUID ") && status.contains(" 1]"), "{status}");
    let message = &store.messages("Drafts")[0];
    assert_eq!(store.mail(message.key), PLAIN);
    assert_eq!(message.internal_date.as_secs(), 1_675_303_445);
    assert!(message.flags.contains(&Flag::Seen) && message.flags.len() == 1);
    // Without asking (RFC 7888), as a literal8, and with a mailbox that is a literal itself.
    let size = PLAIN.len();
    program.send(&[format!("p APPEND {{6+}}\r\nDrafts {{{size}+}}\r\n").as_bytes(), PLAIN, b"\r\n"].concat()).await;
    assert!(program.rest("p").await.1.starts_with("OK [APPENDUID"));
    program.send(&[format!("q APPEND Drafts ~{{{size}+}}\r\n").as_bytes(), PLAIN, b"\r\n"].concat()).await;
    assert!(program.rest("q").await.1.starts_with("OK [APPENDUID"));
    assert_eq!(store.messages("Drafts").len(), 3);
}

#[tokio::test]
async fn rfc3501_append_that_cannot_be_is_refused_and_the_session_goes_on() {
    let store = Memory::new();
    let mut program = Program::connect(&store).await;
    assert!(program.fails("APPEND INBOX {10}").await.starts_with("BAD log in first"));
    let mut program = Program::login(&store).await;
    assert!(program.fails("APPEND nowhere {10}").await.starts_with("NO [TRYCREATE]"));
    assert!(program.fails("APPEND INBOX {99999999999}").await.starts_with("NO [TOOBIG]"));
    assert!(program.fails("APPEND INBOX {9999999}").await.starts_with("NO [TOOBIG]"));
    program.send(b"a APPEND nowhere {10+}\r\n0123456789\r\n").await;
    assert!(program.rest("a").await.1.starts_with("NO [TRYCREATE]"));
    // A second message in the same command is not offered.
    program.send(b"b APPEND INBOX {3+}\r\na\r\n (\\Seen)\r\n").await;
    assert!(program.rest("b").await.1.starts_with("BAD"));
    assert_eq!(store.messages("INBOX").len(), 0);
    assert_eq!(store.appended_files(), 0);
    program.ok("NOOP").await;
}

#[tokio::test]
async fn a_large_append_goes_to_disk_byte_for_byte() {
    let store = Memory::new();
    let mut program = Program::login(&store).await;
    let mut mail = b"Subject: big\r\n\r\n".to_vec();
    mail.extend((0..2_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]));
    program.send(format!("a APPEND Sent {{{}+}}\r\n", mail.len()).as_bytes()).await;
    program.send(&mail).await;
    program.send(b"\r\n").await;
    assert!(program.rest("a").await.1.starts_with("OK"));
    assert!(store.mail(store.messages("Sent")[0].key) == mail);
}
