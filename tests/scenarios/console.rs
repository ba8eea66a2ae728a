//! The web page of a running peer, as a browser, a script and a stranger's page find it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use roost::console::protocol::{InboxLine, Request};
use serde_json::Value;

use crate::harness::{ROOST, Team, wait_for};

/// An answer: status, head and body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// A browser without tabs, images or manners of its own.
struct Browser {
    console: String,
    cookie: Option<String>,
}

impl Browser {
    /// Sends `method path` with `headers` (each ends in CRLF) and `body`.
    fn send(&self, line: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.console).unwrap();
        let host = if headers.contains("Host: ") { String::new() } else { format!("Host: {}\r\n", self.console) };
        let cookie = self.cookie.as_ref().map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\n{host}{cookie}{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
    fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), "", "")
    }
    fn post(&self, path: &str, form: &str) -> Answer {
        self.send(&format!("POST {path}"), &format!("Origin: http://{}\r\n", self.console), form)
    }
    /// The page after a login with what `roost console` prints.
    fn logged_in(team: &Team, name: &str) -> Self {
        let mut command = std::process::Command::new(ROOST);
        let out = command.args(["console", "--json", "--home"]).arg(team.home(name).root()).output().unwrap();
        let printed: Value = serde_json::from_slice(&out.stdout).unwrap();
        let console = team.peer(name).console.expect("the cluster's status names the console");
        assert_eq!(printed["console"], console.as_str());
        let mut browser = Self { console, cookie: None };
        let path = printed["url"].as_str().unwrap().strip_prefix(&format!("http://{}", browser.console)).unwrap();
        let answer = browser.get(path);
        assert_eq!(answer.status, 303, "{}", answer.head);
        let cookie = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        browser.cookie = cookie.split(';').next().map(str::to_owned);
        browser
    }
    /// What every form of the page carries.
    fn form(&self) -> String {
        let page = self.get("/").body;
        let (_, after) = page.split_once("name=\"form\" value=\"").expect("the page has a form");
        after.split('"').next().unwrap().to_owned()
    }
}

fn token(team: &Team, name: &str) -> String {
    std::fs::read_to_string(team.home(name).identity_dir().join("console.token")).unwrap()
}

#[test]
fn the_page_shows_who_holds_what_and_takes_a_mail_back() {
    let team = Team::of_three();
    team.stop(&["bob"]);
    let mail = team.submit("alice", &["bob"], team.letter("alice", "bob", 100_000));
    team.wait_until_safe(&mail, 0);
    let browser = Browser::logged_in(&team, "alice");
    let page = browser.get("/");
    assert_eq!(page.status, 200);
    let submission = team.waiting("alice")[0].to_string();
    for shown in ["bob@acme: announced", "safe(0)", "carol@acme has whole", submission.as_str(), ">Cancel</button>"] {
        assert!(page.body.contains(shown), "{shown}: {}", page.body);
    }
    let form = browser.form();
    let done = browser.post("/cancel", &format!("form={form}&mail={submission}"));
    assert_eq!((done.status, done.head.contains("location: /")), (303, true), "{}", done.head);
    assert!(browser.get("/").body.contains(&format!("{submission}: bob@acme: ")), "what it came to is said");
    wait_for("nothing waits", || team.waiting("alice").is_empty().then_some(()));
    assert!(!browser.get("/").body.contains("role=\"status\""), "and said once");
}

#[test]
fn a_first_mail_is_accepted_on_the_page() {
    let team = Team::of_two_groups();
    // rita removes dave's card: he is a stranger to her.
    let _: Value = team.ask("rita", &Request::ContactRemove { address: team.address("dave") });
    let mail = team.submit("dave", &["rita"], team.letter("dave", "rita", 3_000));
    let browser = Browser::logged_in(&team, "rita");
    let page = wait_for("the request is on the page", || {
        let page = browser.get("/").body;
        page.contains(">Accept</button>").then_some(page)
    });
    assert!(page.contains("dave@acme"), "{page}");
    let (_, sender) = page.split_once("name=\"sender\" value=\"").unwrap();
    let sender = sender.split('"').next().unwrap();
    let judged = browser.post("/judge", &format!("form={}&sender={sender}&verdict=accept", browser.form()));
    assert_eq!(judged.status, 303, "{}", judged.body);
    let mut rita = team.reader("rita");
    rita.reads_every_byte_of(&mail);
    assert!(!browser.get("/").body.contains(">Accept</button>"));
    let requests: Vec<InboxLine> = team.ask("rita", &Request::Inbox { mailbox: Some("Requests".to_owned()) });
    assert!(requests.is_empty(), "{requests:?}");
}

#[test]
fn without_the_token_nothing_is_shown_and_another_sites_page_changes_nothing() {
    let team = Team::of_two();
    team.stop(&["bob"]);
    let mail = team.submit("alice", &["bob"], team.letter("alice", "bob", 2_000));
    wait_for("the mail waits", || team.outbox_line(&mail));
    let submission = team.waiting("alice")[0];
    let browser = Browser::logged_in(&team, "alice");
    let stranger = Browser { console: browser.console.clone(), cookie: None };
    for path in ["/", "/status.json", "/metrics", "/login", "/login?token=wrong"] {
        let answer = stranger.get(path);
        assert!([401, 403].contains(&answer.status), "{path}: {}", answer.status);
        assert!(!answer.body.contains("alice@acme"), "{path}");
    }
    let secret = format!("Authorization: Bearer {}\r\n", token(&team, "alice"));
    assert_eq!(stranger.send("GET /status.json", &secret, "").status, 200);
    // A name that a stranger makes point at 127.0.0.1.
    let rebound = browser.send("GET /", "Host: evil.example\r\n", "");
    assert_eq!((rebound.status, rebound.body.contains("alice@acme")), (421, false));
    let good = format!("form={}&mail={submission}", browser.form());
    let own = format!("Origin: http://{}\r\n", browser.console);
    let refused = [
        ("another site's page", browser.send("POST /cancel", "Origin: http://evil.example\r\n", &good)),
        ("another port's page", browser.send("POST /cancel", "Origin: http://127.0.0.1:1\r\n", &good)),
        ("a form of another site", browser.send("POST /cancel", "Sec-Fetch-Site: cross-site\r\n", &good)),
        ("no form token", browser.post("/cancel", &format!("mail={submission}"))),
        ("a wrong form token", browser.post("/cancel", &format!("form=00&mail={submission}"))),
        ("no cookie", stranger.send("POST /cancel", &own, &good)),
        ("the token alone", stranger.send("POST /cancel", &secret, &format!("mail={submission}"))),
    ];
    for (what, answer) in refused {
        assert_eq!(answer.status, 403, "{what}: {}", answer.body);
    }
    assert_eq!(browser.get(&format!("/cancel?{good}")).status, 404, "a link changes nothing");
    assert_eq!(team.waiting("alice"), [submission]);
    assert_eq!(browser.post("/cancel", &good).status, 303);
}

#[test]
fn metrics_and_status_are_those_of_the_command_line() {
    let team = Team::of_two();
    let browser = Browser::logged_in(&team, "alice");
    let metrics = browser.get("/metrics");
    assert!(metrics.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", metrics.head);
    for line in
        ["roost_group_members 2\n", "roost_member_lost{member=\"bob@acme\"} 0\n", "roost_outbox_unsafe_mails 0\n"]
    {
        assert!(metrics.body.contains(line), "{line}: {}", metrics.body);
    }
    assert!(metrics.body.contains("roost_build_info{version=") && metrics.body.ends_with("# EOF\n"));
    let json: Value = serde_json::from_str(&browser.get("/status.json").body).unwrap();
    let mut command = std::process::Command::new(ROOST);
    let out = command.args(["status", "--json", "--home"]).arg(team.home("alice").root()).output().unwrap();
    let printed: Value = serde_json::from_slice(&out.stdout).unwrap();
    for key in ["address", "peer_id", "pid", "ports", "group", "outbox", "attention"] {
        assert_eq!(json[key], printed[key], "{key}");
    }
    assert_eq!(json["ports"]["console"], browser.console.as_str());
}

#[test]
fn looking_writes_nothing_to_disk() {
    let team = Team::of_two();
    let browser = Browser::logged_in(&team, "alice");
    let pid = team.peer("alice").pid.unwrap();
    let written = || {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().to_owned()
    };
    // Looked at often enough that a peer which is still busy with its start is told from one that writes because of this.
    wait_for("the peer rests while it is looked at", || {
        let before = written();
        for path in ["/", "/metrics", "/status.json", "/login"].repeat(10) {
            browser.get(path);
        }
        (written() == before).then_some(())
    });
}
