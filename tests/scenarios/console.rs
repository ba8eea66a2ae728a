//! The web page of a running peer, as a browser, a script and a stranger's page find it.

use roost::console::protocol::{EndedLine, InboxLine, Request};
use roost::core::postbox::io::Requests;
use serde_json::Value;

use crate::harness::browser::{Browser, token};
use crate::harness::{ROOST, Team, wait_for};

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

/// What waits for the consent of `name`, and whom it judged.
fn requests(team: &Team, name: &str) -> Requests {
    team.ask(name, &Request::Requests)
}

#[test]
fn a_sender_is_refused_for_good_on_the_page_and_only_by_the_page() {
    let team = Team::of_two_groups();
    let _: Value = team.ask("rita", &Request::ContactRemove { address: team.address("dave") });
    let mut browser = Browser::logged_in(&team, "rita");
    let shown = |browser: &Browser, button: &str| {
        let page = browser.get("/").body;
        page.contains(&format!(">{button}</button>")).then_some(page)
    };
    team.submit("dave", &["rita"], team.letter("dave", "rita", 3_000));
    let page = wait_for("the request is on the page", || shown(&browser, "Refuse"));
    // The same form without the login, without what the page gave it, and from a page of somebody else.
    let (action, form) = Browser::form_of(&page, "Refuse");
    assert!(action == "/judge" && form.contains("verdict=refuse"), "{action} {form}");
    let (own, post) = (format!("Origin: http://{}\r\n", browser.console), format!("POST {action}"));
    let cookie = browser.cookie.take();
    let without_login = browser.send(&post, &own, &form).status;
    browser.cookie = cookie;
    let without_word = browser.send(&post, &own, form.split_once('&').unwrap().1).status;
    let from_elsewhere = browser.send(&post, "Origin: http://evil.example\r\n", &form).status;
    assert_eq!([without_login, without_word, from_elsewhere], [403; 3]);
    assert_eq!(requests(&team, "rita").waiting.len(), 1, "nothing of that did anything");

    assert_eq!(browser.press(&page, "Refuse").status, 303);
    let said = browser.get("/").body;
    assert!(said.contains("dave@acme is refused, also for what it sends later"), "{said}");
    assert!(shown(&browser, "Refuse").is_none());
    let ended = || -> Vec<EndedLine> { team.ask("dave", &Request::OutboxEnded) };
    wait_for("his outbox shows it", || (ended().len() == 1).then_some(()));
    team.submit("dave", &["rita"], team.letter("dave", "rita", 3_000));
    wait_for("his next mail is refused without a question", || (ended().len() == 2).then_some(()));
    let outcomes: Vec<String> = ended().into_iter().flat_map(|line| line.receivers.into_values()).collect();
    assert_eq!(outcomes, ["refused", "refused"]);
    assert!(requests(&team, "rita").waiting.is_empty());
    let inbox: Vec<InboxLine> = team.ask("rita", &Request::Inbox { mailbox: None });
    assert!(inbox.is_empty(), "{inbox:?}");
}

#[test]
fn the_page_is_opened_by_its_token_typed_into_the_form_and_its_buttons_are_pressed_as_they_stand() {
    let team = Team::of_two_groups();
    let _: Value = team.ask("rita", &Request::ContactRemove { address: team.address("dave") });
    let mut browser = Browser { console: team.peer("rita").console.unwrap(), cookie: None };
    let page = browser.get("/");
    assert_eq!(page.status, 401);
    let (action, form) = Browser::form_of(&page.body, "Open");
    assert_eq!((action.as_str(), form.as_str()), ("/login", "token="));
    let wrong = browser.post("/login", "token=wrong");
    assert!(wrong.status == 403 && !wrong.head.contains("set-cookie") && wrong.body.contains("not the token"));
    let good = format!("token={}", token(&team, "rita").trim());
    let elsewhere = browser.send("POST /login", "Origin: http://evil.example\r\n", &good);
    assert!(elsewhere.status == 403 && !elsewhere.head.contains("set-cookie"), "another page logs nobody in");
    let answer = browser.post("/login", &good);
    assert_eq!(answer.status, 303, "{}", answer.head);
    let cookie = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    browser.cookie = cookie.split(';').next().map(str::to_owned);

    let mail = team.submit("dave", &["rita"], team.letter("dave", "rita", 3_000));
    let page = wait_for("the request is on the page", || {
        Some(browser.get("/").body).filter(|page| page.contains(">Accept</button>"))
    });
    assert_eq!(browser.press(&page, "Accept").status, 303);
    assert!(browser.get("/").body.contains("dave@acme is accepted"));
    team.reader("rita").reads_every_byte_of(&mail);

    team.stop(&["dave"]);
    let back = team.submit("rita", &["dave"], team.letter("rita", "dave", 3_000));
    wait_for("the mail waits", || team.outbox_line(&back));
    let page = browser.get("/").body;
    assert_eq!(browser.press(&page, "Cancel").status, 303);
    wait_for("nothing waits", || team.waiting("rita").is_empty().then_some(()));
    team.start(&["dave"]);
    let uncancelled: Vec<InboxLine> = team.ask("dave", &Request::Inbox { mailbox: None });
    assert!(uncancelled.is_empty(), "{uncancelled:?}");
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
