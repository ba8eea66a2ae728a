use super::{PARTS, PLAIN, Program, config};
use crate::core::postbox::access::{Flag, MailboxFailure, Uid};
use crate::mail::imap::ImapConfig;
use crate::mail::imap::memory::{Memory, PASSWORD};

#[tokio::test]
async fn rfc3501_fetch_of_what_the_head_knows_pulls_nothing() {
    let store = Memory::new();
    store.put_stub("INBOX", PLAIN);
    let mut program = Program::select(&store, "INBOX").await;
    assert_eq!(program.ok("FETCH 1:* (FLAGS)").await, "* 1 FETCH (FLAGS (\\Recent))\n");
    let all = program.ok("UID FETCH 1 FULL").await;
    assert!(all.starts_with("* 1 FETCH (UID 1 FLAGS (\\Recent) INTERNALDATE \" 1-Jan-2024 10:00:00 +0000\""), "{all}");
    assert!(all.contains(&format!("RFC822.SIZE {}", PLAIN.len())), "{all}");
    assert!(all.contains("\"=?utf-8?q?Gr=C3=BC=C3=9Fe?=\" ((\"Bob\" NIL \"bob\" \"acme\"))"), "{all}");
    assert!(all.contains(" BODY (\"text\" \"plain\" "), "{all}");
    let header = program.ok("FETCH 1 (BODY[HEADER.FIELDS (Subject \"TO\")] BODYSTRUCTURE)").await;
    assert!(header.contains("BODY[HEADER.FIELDS (Subject \"TO\")] {"), "{header}");
    assert!(header.contains("To: alice@acme\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n"), "{header}");
    let part = program.ok("FETCH 1 BODY.PEEK[HEADER]<6.3>").await;
    assert_eq!(part, "* 1 FETCH (BODY[HEADER]<6> {3}\nBob)\n");
    assert!(program.ok("FETCH 1 RFC822.HEADER").await.contains("From: Bob"));
    assert_eq!(program.ok("FETCH 1 BODY.PEEK[9.HEADER]").await, "* 1 FETCH (BODY[9.HEADER] NIL)\n");
    assert_eq!(store.pulls(), []);
    assert!(store.messages("INBOX")[0].flags.is_empty());
}

#[tokio::test]
async fn rfc3501_fetch_of_bodies_and_parts_is_byte_exact() {
    let store = Memory::new();
    store.put("INBOX", PARTS, &[]);
    let mut program = Program::select(&store, "INBOX").await;
    let text = std::str::from_utf8(PARTS).unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1;
    for (item, label, expected) in [
        ("BODY.PEEK[]", "BODY[]", text),
        ("BODY.PEEK[TEXT]", "BODY[TEXT]", body),
        ("BODY.PEEK[1]", "BODY[1]", "R3LDvMOfZSBhbiBkaWUgRXVsZQ=="),
        ("BODY.PEEK[2]<2.4>", "BODY[2]<2>", "ECAw"),
        ("BODY.PEEK[2]<100.4>", "BODY[2]<100>", ""),
        (
            "BODY.PEEK[2.MIME]",
            "BODY[2.MIME]",
            "Content-Type: application/octet-stream; name=a.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        ),
    ] {
        let told = program.ok(&format!("FETCH 1 {item}")).await;
        assert_eq!(told, format!("* 1 FETCH ({label} {{{}}}\n{expected})\n", expected.len()));
    }
    assert!(store.messages("INBOX")[0].flags.is_empty());
    let seen = program.ok("FETCH 1 (FLAGS BODY[1])").await;
    assert!(seen.ends_with("R3LDvMOfZSBhbiBkaWUgRXVsZQ== FLAGS (\\Seen \\Recent))\n"), "{seen}");
    assert!(store.messages("INBOX")[0].flags.contains(&Flag::Seen));
    let again = program.ok("FETCH 1 (RFC822)").await;
    assert_eq!(again, format!("* 1 FETCH (RFC822 {{{}}}\n{text})\n", text.len()));
    assert!(program.fails("FETCH 1 BINARY[1]").await.starts_with("BAD BINARY"));
    assert!(program.fails("FETCH 2 FLAGS").await.starts_with("BAD"));
    assert_eq!(program.ok("UID FETCH 5 FLAGS").await, "");
    assert_eq!(program.ok("UID FETCH 5:* UID").await, "* 1 FETCH (UID 1)\n");
}

#[tokio::test]
async fn examine_reads_without_a_trace() {
    let store = Memory::new();
    store.put("INBOX", PLAIN, &[]);
    let mut program = Program::login(&store).await;
    program.ok("EXAMINE INBOX").await;
    assert!(program.ok("FETCH 1 BODY[]").await.contains("the owl is home"));
    assert!(store.messages("INBOX")[0].flags.is_empty());
}

#[tokio::test]
async fn a_stub_is_delivered_when_its_body_arrives_and_progress_is_told() {
    let store = Memory::new();
    let (_, key) = store.put_stub("INBOX", PLAIN);
    let mut program = Program::select(&store, "INBOX").await;
    store.pulled(key, 43);
    let tag = program.start("FETCH 1 (BODY[])").await;
    assert_eq!(program.line().await, "* OK still pulling, 43%");
    assert!(store.messages("INBOX")[0].flags.is_empty());
    store.arrive(key);
    let (text, status) = program.rest(&tag).await;
    assert!(status.starts_with("OK"));
    let text = text.replace("* OK still pulling, 43%\n", "");
    let mail = std::str::from_utf8(PLAIN).unwrap();
    assert_eq!(text, format!("* 1 FETCH (BODY[] {{{}}}\n{mail} FLAGS (\\Seen \\Recent))\n", mail.len()));
    assert!(store.messages("INBOX")[0].flags.contains(&Flag::Seen));
}

#[tokio::test]
async fn rfc5530_a_body_that_cannot_be_had_is_never_ok() {
    let store = Memory::new();
    let (_, missing) = store.put_stub("INBOX", PLAIN);
    store.put("INBOX", PARTS, &[]);
    let (_, gone) = store.put_stub("INBOX", PLAIN);
    store.fail(missing, MailboxFailure::Unavailable("2 of 3 parts are missing".into()));
    store.fail(gone, MailboxFailure::Gone("the sender took it back".into()));
    let mut program = Program::select(&store, "INBOX").await;
    assert_eq!(program.fails("FETCH 1 (FLAGS BODY[])").await, "NO [UNAVAILABLE] 2 of 3 parts are missing");
    assert_eq!(program.fails("FETCH 3 RFC822").await, "NO [NONEXISTENT] the sender took it back");
    let (text, status) = program.run("FETCH 1:3 BODY.PEEK[TEXT]").await;
    assert!(text.starts_with("* 2 FETCH (BODY[TEXT] {") && text.matches("FETCH").count() == 1, "{text}");
    assert!(status.starts_with("NO [UNAVAILABLE]"), "{status}");
    assert!(store.messages("INBOX").iter().all(|message| message.flags.is_empty()));
    assert_eq!(store.pulls().len(), 4);
}

#[tokio::test]
async fn messages_that_are_here_do_not_wait_for_stubs() {
    let store = Memory::new();
    let (_, key) = store.put_stub("INBOX", PLAIN);
    store.put("INBOX", PARTS, &[]);
    let mut program = Program::select(&store, "INBOX").await;
    let tag = program.start("FETCH 1:2 BODY.PEEK[1]").await;
    assert_eq!(program.line().await, "* 2 FETCH (BODY[1] {28}");
    program.line().await;
    store.arrive(key);
    let (text, status) = program.rest(&tag).await;
    assert!(text.contains("* 1 FETCH (BODY[1] {") && status.starts_with("OK"), "{text} {status}");
}

#[tokio::test]
async fn a_body_of_another_length_than_promised_is_not_delivered() {
    let store = Memory::new();
    let (_, key) = store.put_stub("INBOX", PLAIN);
    store.arrive(key);
    let mut program = Program::select(&store, "INBOX").await;
    store.cut_body(key, 10);
    assert!(program.fails("FETCH 1 BODY[]").await.starts_with("NO [UNAVAILABLE]"));
    assert!(store.messages("INBOX")[0].flags.is_empty());
}

#[tokio::test]
async fn large_bodies_with_every_byte_are_streamed() {
    let store = Memory::new();
    let mut mail = b"Subject: big\r\nContent-Type: application/octet-stream\r\n\r\n".to_vec();
    let start = mail.len();
    mail.extend((0..3_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]));
    store.put("INBOX", &mail, &[]);
    let config = ImapConfig { pulls: 1, ..config() };
    let mut program = Program::connect_with(&store, config).await;
    program.ok(&format!("LOGIN alice \"{PASSWORD}\"")).await;
    program.ok("SELECT INBOX").await;
    program.start("FETCH 1 BODY.PEEK[]").await;
    assert_eq!(program.line().await, format!("* 1 FETCH (BODY[] {{{}}}", mail.len()));
    assert!(program.bytes(mail.len()).await == mail);
    assert_eq!(program.line().await, ")");
    program.line().await;
    program.start("FETCH 1 BODY.PEEK[TEXT]<1000000.500000>").await;
    assert_eq!(program.line().await, "* 1 FETCH (BODY[TEXT]<1000000> {500000}");
    assert!(program.bytes(500_000).await == mail[start + 1_000_000..start + 1_500_000]);
    assert_eq!(store.pulls(), Vec::<Uid>::new());
}
