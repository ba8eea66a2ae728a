//! Real mail programs against a real listener; each is left out, with a word, where it is not installed.

use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;

use super::{PARTS, PLAIN, config};
use crate::core::postbox::access::MailboxFailure;
use crate::mail::imap::memory::{Memory, PASSWORD};
use crate::mail::imap::serve;

async fn listening(store: &Memory) -> (u16, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = watch::channel(false);
    (port, stop, tokio::spawn(serve(listener, store.clone(), config(), stopped)))
}

/// What the program printed, or nothing when it is not installed.
async fn output(program: &str, args: &[&str]) -> Option<(bool, Vec<u8>)> {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    if !there.is_ok_and(|status| status.success()) {
        eprintln!("{program} is not installed; this test is left out");
        return None;
    }
    let done = Command::new(program).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let done = tokio::time::timeout(Duration::from_secs(60), done).await.expect("it ends").unwrap();
    if !done.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&done.stderr));
    }
    Some((done.status.success(), done.stdout))
}

const PYTHON: &str = r#"
import imaplib, sys
port, password = int(sys.argv[1]), sys.argv[2]
def ok(result):
    assert result[0] == 'OK', result
    return result[1]
m = imaplib.IMAP4('127.0.0.1', port)
ok(m.login('alice', password))
assert 'IDLE' in m.capabilities, m.capabilities
assert int(ok(m.select('INBOX'))[0]) == 3
assert ok(m.uid('SEARCH', None, 'ALL'))[0] == b'1 2 3'
assert len(ok(m.fetch('1:*', '(FLAGS)'))) == 3
mail = ok(m.uid('FETCH', '1', '(BODY.PEEK[])'))[0][1]
assert mail == ok(m.fetch('1', '(RFC822)'))[0][1]
assert b'the owl is home' in mail
assert ok(m.search(None, 'UNSEEN'))[0] == b'2 3', ok(m.search(None, 'UNSEEN'))
typ, why = m.fetch('3', '(RFC822)')
assert typ == 'NO' and why[0].startswith(b'[UNAVAILABLE]'), (typ, why)
ok(m.store('2', '+FLAGS', '\\Deleted'))
assert ok(m.expunge()) == [b'2']
ok(m.append('Sent', '\\Seen', imaplib.Time2Internaldate(1700000000), mail))
ok(m.create('"Old mail"'))
ok(m.uid('COPY', '1', '"Old mail"'))
assert b'"Old mail"' in b'\n'.join(ok(m.list()))
ok(m.status('"Old mail"', '(MESSAGES UIDNEXT)'))
ok(m.close())
m.logout()
m = imaplib.IMAP4('127.0.0.1', port)
ok(m.authenticate('PLAIN', lambda _: b'\0alice@acme\0' + password.encode()))
ok(m.select('Sent', readonly=True))
assert ok(m.fetch('1', '(BODY[])'))[0][1] == mail
m.logout()
print('all of it')
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc3501_pythons_imaplib_does_its_work() {
    let store = Memory::new();
    store.put("INBOX", PLAIN, &[]);
    store.put("INBOX", PARTS, &[]);
    let (_, key) = store.put_stub("INBOX", PLAIN);
    store.fail(key, MailboxFailure::Unavailable("2 of 3 parts are missing".into()));
    let (port, stop, server) = listening(&store).await;
    if let Some((success, printed)) = output("python3", &["-c", PYTHON, &port.to_string(), PASSWORD]).await {
        assert!(success);
        assert_eq!(printed, b"all of it\n");
    }
    stop.send(true).unwrap();
    server.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rfc3501_curl_lists_and_fetches() {
    let store = Memory::new();
    store.put("INBOX", PARTS, &[]);
    let (port, stop, server) = listening(&store).await;
    let login = format!("alice:{PASSWORD}");
    let url = |path: &str| format!("imap://127.0.0.1:{port}/{path}");
    if let Some((success, printed)) = output("curl", &["-sS", "--user", &login, &url("INBOX;UID=1")]).await {
        assert!(success);
        assert_eq!(printed, PARTS);
        let (success, printed) = output("curl", &["-sS", "--user", &login, &url("")]).await.unwrap();
        assert!(success && printed.starts_with(b"* LIST ("), "{}", String::from_utf8_lossy(&printed));
        let (success, _) = output("curl", &["-sS", "--user", "alice:wrong", &url("")]).await.unwrap();
        assert!(!success);
    }
    stop.send(true).unwrap();
    server.await.unwrap();
}
