use super::{PARTS, PLAIN, Program, config};
use crate::core::postbox::access::{Flag, Uid};
use crate::mail::imap::ImapConfig;
use crate::mail::imap::memory::{Memory, PASSWORD};

#[tokio::test]
async fn rfc3501_login_and_authenticate_in_all_forms() {
    let store = Memory::new();
    let mut program = Program::connect(&store).await;
    assert!(program.fails("SELECT INBOX").await.starts_with("BAD log in first"));
    assert!(program.fails("LOGIN alice wrong").await.starts_with("NO [AUTHENTICATIONFAILED]"));
    assert!(program.ok("CAPABILITY").await.contains("AUTH=PLAIN"));
    // LOGIN with literals, waited for and not.
    program.send(b"x LOGIN {5}\r\n").await;
    assert!(program.line().await.starts_with("+ "));
    program.send(format!("alice {{{}+}}\r\n{PASSWORD}\r\n", PASSWORD.len()).as_bytes()).await;
    let (_, status) = program.rest("x").await;
    assert!(status.starts_with("OK [CAPABILITY IMAP4rev1 "), "{status}");
    assert!(program.fails("LOGIN alice x").await.starts_with("BAD logged in already"));

    use base64::Engine;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let plain = encode(&format!("\0alice@acme\0{PASSWORD}"));
    Program::connect(&store).await.ok(&format!("AUTHENTICATE PLAIN {plain}")).await;
    let mut program = Program::connect(&store).await;
    let tag = program.start("AUTHENTICATE PLAIN").await;
    assert_eq!(program.line().await, "+ ");
    program.send(format!("{plain}\r\n").as_bytes()).await;
    assert!(program.rest(&tag).await.1.starts_with("OK"));
    let mut program = Program::connect(&store).await;
    let tag = program.start("AUTHENTICATE LOGIN").await;
    assert_eq!(program.line().await, "+ VXNlcm5hbWU6");
    program.send(format!("{}\r\n", encode("alice+full")).as_bytes()).await;
    assert_eq!(program.line().await, "+ UGFzc3dvcmQ6");
    program.send(format!("{}\r\n", encode(PASSWORD)).as_bytes()).await;
    assert!(program.rest(&tag).await.1.starts_with("OK"));
    let mut program = Program::connect(&store).await;
    let tag = program.start("AUTHENTICATE PLAIN").await;
    program.line().await;
    program.send(b"*\r\n").await;
    assert!(program.rest(&tag).await.1.starts_with("BAD"));
}

#[tokio::test]
async fn too_many_failed_logins_end_the_connection() {
    let mut program = Program::connect(&Memory::new()).await;
    for _ in 0..4 {
        program.fails("LOGIN alice wrong").await;
    }
    program.start("LOGIN alice wrong").await;
    assert_eq!(program.line().await, "* BYE too many failed logins");
}

#[tokio::test]
async fn rfc3501_nonsense_is_told_bad_and_the_session_goes_on() {
    let mut program = Program::login(&Memory::new()).await;
    program.send(b"\r\n").await;
    assert!(program.line().await.starts_with("* BAD"));
    assert!(program.fails("FROBNICATE").await.starts_with("BAD there is no such command"));
    assert!(program.fails("SELECT").await.starts_with("BAD"));
    assert!(program.fails("FETCH 1 FLAGS").await.starts_with("BAD select"));
    assert!(program.fails(&"x".repeat(70_000)).await.starts_with("BAD a command has at most 64 KiB"));
    assert!(program.fails("SELECT {9000}").await.starts_with("BAD a literal"));
    program.send(b"y SELECT {9000+}\r\n").await;
    program.send(&vec![b'z'; 9000]).await;
    program.send(b"\r\n").await;
    assert!(program.line().await.starts_with("y BAD a literal"));
    program.send(b"z \xff\xfe\x00\r\n").await;
    assert!(program.line().await.starts_with("z BAD"));
    program.ok("NOOP").await;
    program.send(b"a SELECT {99999999+}\r\n").await;
    assert!(program.line().await.starts_with("* BYE"));
}

#[tokio::test]
async fn rfc3501_select_tells_what_the_mailbox_is() {
    let store = Memory::new();
    store.put("INBOX", PLAIN, &[Flag::Seen, Flag::Keyword("$Safe0".into())]);
    store.put("INBOX", PARTS, &[]);
    let mut program = Program::login(&store).await;
    let examined = program.ok("EXAMINE inbox").await;
    assert!(examined.contains("* OK [PERMANENTFLAGS ()]") && examined.contains("* 2 RECENT"), "{examined}");
    assert!(program.fails("STORE 1 +FLAGS (\\Seen)").await.starts_with("NO [CANNOT]"));
    let tag = program.start("SELECT \"INBOX\"").await;
    let (text, status) = program.rest(&tag).await;
    for part in [
        "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Safe0)\n",
        "[PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Safe0 \\*)]",
        "* 2 EXISTS\n",
        "* 2 RECENT\n",
        "* OK [UNSEEN 2]",
        "* OK [UIDNEXT 3]",
        "* OK [UIDVALIDITY ",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(status.starts_with("OK [READ-WRITE]"));
    assert!(program.fails("SELECT nowhere").await.starts_with("NO [NONEXISTENT]"));
    assert!(program.fails("FETCH 1 FLAGS").await.starts_with("BAD select"));
    let status = program.ok("STATUS INBOX (MESSAGES RECENT UIDNEXT UNSEEN)").await;
    assert_eq!(status, "* STATUS \"INBOX\" (MESSAGES 2 RECENT 0 UIDNEXT 3 UNSEEN 1)\n");
    assert!(program.fails("STATUS nowhere (MESSAGES)").await.starts_with("NO [NONEXISTENT]"));
}

#[tokio::test]
async fn rfc3501_mailboxes_are_made_listed_renamed_and_deleted() {
    let store = Memory::new();
    let mut program = Program::login(&store).await;
    assert_eq!(program.ok("LIST \"\" \"\"").await, "* LIST (\\Noselect) \"/\" \"\"\n");
    program.ok("CREATE \"Entw&APw-rfe/2024\" (USE (\\Drafts))").await;
    assert!(program.fails("CREATE INBOX").await.starts_with("NO [ALREADYEXISTS]"));
    assert!(program.fails("CREATE \"a&b\"").await.starts_with("NO [CANNOT]"));
    let all = program.ok("LIST \"\" *").await;
    assert!(all.contains("* LIST (\\HasNoChildren \\Trash) \"/\" \"Trash\"\n"), "{all}");
    assert!(all.contains("* LIST (\\HasNoChildren) \"/\" \"Entw&APw-rfe/2024\"\n"), "{all}");
    let top = program.ok("LIST \"\" %").await;
    assert!(top.contains("* LIST (\\Noselect \\HasChildren) \"/\" \"Entw&APw-rfe\"\n"), "{top}");
    assert!(!top.contains("2024"), "{top}");
    assert_eq!(program.ok("LIST \"\" inbox").await, "* LIST (\\HasNoChildren) \"/\" \"INBOX\"\n");
    assert!(program.ok("LIST \"Entw&APw-rfe/\" %").await.contains("2024"));
    program.ok("RENAME \"Entw&APw-rfe/2024\" Old").await;
    program.ok("UNSUBSCRIBE Old").await;
    assert!(!program.ok("LSUB \"\" *").await.contains("Old"));
    program.ok("SUBSCRIBE Old").await;
    assert!(program.ok("LSUB \"\" *").await.contains("\"Old\""));
    program.ok("SELECT Old").await;
    program.ok("DELETE Old").await;
    program.ok("NOOP").await;
    assert!(program.fails("DELETE INBOX").await.starts_with("NO [CANNOT]"));
    assert!(program.fails("DELETE Old").await.starts_with("NO [NONEXISTENT]"));
    assert_eq!(program.ok("NAMESPACE").await, "* NAMESPACE ((\"\" \"/\")) NIL NIL\n");
    assert!(program.ok("ID (\"name\" \"x\")").await.starts_with("* ID (\"name\" \"roost\""));
    assert_eq!(program.ok("ENABLE CONDSTORE").await, "* ENABLED\n");
}

#[tokio::test]
async fn rfc6154_rfc5819_special_use_and_status_in_list() {
    let store = Memory::new();
    store.put("Sent", PLAIN, &[]);
    let mut program = Program::login(&store).await;
    let list = program.ok("LIST (SPECIAL-USE) \"\" \"*\" RETURN (SPECIAL-USE STATUS (MESSAGES))").await;
    assert_eq!(list.matches("* LIST").count(), 4, "{list}");
    assert!(list.contains("\\Sent) \"/\" \"Sent\"\n* STATUS \"Sent\" (MESSAGES 1)\n"), "{list}");
    assert!(program.fails("LIST (RECURSIVEMATCH) \"\" *").await.starts_with("BAD"));
}

#[tokio::test]
async fn rfc3501_store_in_all_forms() {
    let store = Memory::new();
    store.put("INBOX", PLAIN, &[Flag::Draft]);
    store.put("INBOX", PLAIN, &[]);
    let mut program = Program::select(&store, "INBOX").await;
    let told = program.ok("STORE 1:2 +FLAGS (\\Seen $Forwarded)").await;
    assert!(told.starts_with("* FLAGS ("), "{told}");
    assert!(told.contains("* 1 FETCH (FLAGS (\\Seen \\Draft $Forwarded \\Recent))\n"), "{told}");
    assert_eq!(program.ok("STORE 1 -FLAGS.SILENT \\Draft").await, "");
    assert_eq!(program.ok("UID STORE 2 FLAGS ()").await, "* 2 FETCH (UID 2 FLAGS (\\Recent))\n");
    assert!(program.fails("STORE 3 FLAGS ()").await.starts_with("BAD"));
    assert_eq!(program.ok("UID STORE 77 FLAGS ()").await, "");
    // What somebody else changed in the same message is told in spite of the wish for silence.
    store.flag("INBOX", Uid(2), Flag::Answered);
    let told = program.ok("STORE 2 +FLAGS.SILENT (\\Flagged)").await;
    assert_eq!(told, "* 2 FETCH (FLAGS (\\Answered \\Flagged \\Recent))\n");
}

#[tokio::test]
async fn rfc4315_expunge_uid_expunge_and_copyuid() {
    let store = Memory::new();
    for _ in 0..4 {
        store.put("INBOX", PLAIN, &[]);
    }
    let mut program = Program::select(&store, "INBOX").await;
    program.ok("STORE 1:3 +FLAGS.SILENT (\\Deleted)").await;
    assert_eq!(program.ok("UID EXPUNGE 2,4").await, "* 2 EXPUNGE\n");
    assert_eq!(program.ok("EXPUNGE").await, "* 2 EXPUNGE\n* 1 EXPUNGE\n");
    let (_, status) = program.run("UID COPY 4 Trash").await;
    assert!(status.starts_with("OK [COPYUID ") && status.contains(" 4 1]"), "{status}");
    assert!(program.fails("COPY 1 nowhere").await.starts_with("NO [TRYCREATE]"));
    program.ok("STORE 1 +FLAGS (\\Deleted)").await;
    program.ok("UNSELECT").await;
    assert_eq!(store.messages("INBOX").len(), 1);
    program.ok("SELECT INBOX").await;
    program.ok("CLOSE").await;
    assert_eq!(store.messages("INBOX").len(), 0);
}

#[tokio::test]
async fn rfc6851_move_tells_copyuid_before_expunge() {
    let store = Memory::new();
    store.put("INBOX", PLAIN, &[]);
    store.put("INBOX", PARTS, &[]);
    let mut program = Program::select(&store, "INBOX").await;
    let told = program.ok("MOVE 1 Junk").await;
    assert!(told.starts_with("* OK [COPYUID ") && told.ends_with("\n* 1 EXPUNGE\n"), "{told}");
    assert_eq!(program.ok("UID MOVE 1 Junk").await, "");
    assert!(program.fails("UID MOVE 2 nowhere").await.starts_with("NO [TRYCREATE]"));
    assert_eq!(store.messages("Junk").len(), 1);
}

#[tokio::test]
async fn rfc2177_idle_tells_what_others_do() {
    let store = Memory::new();
    store.put("INBOX", PLAIN, &[]);
    let mut program = Program::select(&store, "INBOX").await;
    let tag = program.start("IDLE").await;
    assert!(program.line().await.starts_with("+ "));
    store.put("INBOX", PARTS, &[]);
    assert_eq!(program.line().await, "* 2 EXISTS");
    assert_eq!(program.line().await, "* 2 RECENT");
    store.flag("INBOX", Uid(2), Flag::Flagged);
    assert_eq!(program.line().await, "* 2 FETCH (FLAGS (\\Flagged \\Recent))");
    store.remove("INBOX", Uid(1));
    assert_eq!(program.line().await, "* 1 EXPUNGE");
    program.send(b"done\r\n").await;
    assert!(program.rest(&tag).await.1.starts_with("OK"));
    let tag = program.start("IDLE").await;
    program.line().await;
    program.send(b"NOOP\r\n").await;
    assert!(program.rest(&tag).await.1.starts_with("BAD"));
}

#[tokio::test]
async fn rfc3501_no_expunge_while_sequence_numbers_are_in_use() {
    let store = Memory::new();
    for _ in 0..3 {
        store.put("INBOX", PLAIN, &[]);
    }
    let mut program = Program::select(&store, "INBOX").await;
    store.remove("INBOX", Uid(1));
    store.put("INBOX", PARTS, &[]);
    let told = program.ok("FETCH 2 (UID)").await;
    assert_eq!(told, "* 2 FETCH (UID 2)\n* 4 EXISTS\n* 4 RECENT\n");
    assert!(!program.ok("SEARCH ALL").await.contains("EXPUNGE"));
    assert!(!program.ok("STORE 3 +FLAGS (\\Seen)").await.contains("EXPUNGE"));
    assert_eq!(program.ok("NOOP").await, "* 1 EXPUNGE\n");
    assert_eq!(program.ok("FETCH 1 (UID)").await, "* 1 FETCH (UID 2)\n");
}

#[tokio::test]
async fn rfc3501_search_keys() {
    let store = Memory::new();
    store.put("INBOX", PLAIN, &[Flag::Seen, Flag::Keyword("$Safe0".into())]);
    store.put("INBOX", PARTS, &[Flag::Answered]);
    store.put_stub("INBOX", PLAIN);
    let mut program = Program::select(&store, "INBOX").await;
    for (keys, hits) in [
        ("ALL", " 1 2 3"),
        ("UNSEEN", " 2 3"),
        ("NOT UNSEEN", " 1"),
        ("OR SEEN ANSWERED", " 1 2"),
        ("KEYWORD $safe0", " 1"),
        ("UNKEYWORD $Safe0 UNANSWERED", " 3"),
        ("NEW", " 2 3"),
        ("OLD", ""),
        ("2:*", " 2 3"),
        ("UID 3 (UNSEEN UNDELETED)", " 3"),
        ("FROM bob", " 1 3"),
        ("FROM \"BOB@\"", " 1 3"),
        ("TO alice@acme SUBJECT parts", " 2"),
        ("HEADER Message-ID \"\"", " 1 3"),
        ("HEADER X-None \"\"", ""),
        ("SUBJECT \"=?utf-8\"", " 1 3"),
        ("LARGER 250", " 2"),
        ("SMALLER 250", " 1 3"),
        ("ON 1-Jan-2024", " 1 2 3"),
        ("BEFORE 1-Jan-2024", ""),
        ("SINCE 1-Jan-2024", " 1 2 3"),
        ("SENTON 1-Jan-2024", " 1 3"),
        ("SENTBEFORE 1-Jan-2024", ""),
        ("SENTSINCE 1-Jan-2024", " 1 3"),
        ("BODY \"OWL IS\"", " 1"),
        ("TEXT owl", " 1"),
        ("TEXT bob", " 1 3"),
        ("BODY AAECAwQ", ""),
        ("NOT BODY owl", " 2 3"),
    ] {
        assert_eq!(program.ok(&format!("SEARCH {keys}")).await, format!("* SEARCH{hits}\n"), "{keys}");
    }
    for (keys, hits) in [("SUBJECT", " 1 3"), ("BODY", " 2")] {
        let word = if keys == "BODY" { "die EULE" } else { "GRÜßE" };
        let tag = program.start(&format!("UID SEARCH CHARSET UTF-8 {keys} {{{}+}}\r\n{word}", word.len())).await;
        assert_eq!(program.rest(&tag).await.0, format!("* SEARCH{hits}\n"));
    }
    assert!(program.fails("SEARCH CHARSET KOI8-R ALL").await.starts_with("NO [BADCHARSET (US-ASCII UTF-8)]"));
    assert_eq!(store.pulls(), []);
}

#[tokio::test]
async fn the_full_view_shows_only_what_is_here() {
    let store = Memory::new();
    let (_, key) = store.put_stub("INBOX", PLAIN);
    let mut program = Program::connect(&store).await;
    program.ok(&format!("LOGIN alice+full \"{PASSWORD}\"")).await;
    assert!(program.ok("SELECT INBOX").await.contains("* 0 EXISTS\n"));
    store.arrive(key);
    assert!(program.ok("NOOP").await.contains("* 1 EXISTS\n"));
}

#[tokio::test]
async fn a_mailbox_that_vanishes_ends_the_session_with_a_word() {
    let store = Memory::new();
    let mut program = Program::login(&store).await;
    program.ok("CREATE Mine").await;
    program.ok("SELECT Mine").await;
    let mut other = Program::login(&store).await;
    other.ok("DELETE Mine").await;
    program.start("NOOP").await;
    assert!(program.line().await.starts_with("* BYE the mailbox is gone"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_login_is_closed() {
    let config = ImapConfig { login_timeout: std::time::Duration::from_secs(9), ..config() };
    let mut program = Program::connect_with(&Memory::new(), config).await;
    assert!(program.line().await.starts_with("* BYE nothing was heard"));
}
