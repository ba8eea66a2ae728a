//! Two groups of one name: a key that is pinned stays, whatever an impostor publishes; without a pin both are shown, and the user
//! chooses (R11).

use std::process::{Command, Output};

use roost::console::protocol::{PeerStatus, Request};
use serde_json::Value;

use crate::harness::{Machine, ROOST, Team, wait_for};

fn roost(team: &Team, name: &str, args: &[&str]) -> Output {
    let mut command = Command::new(ROOST);
    command.args(args).arg("--json").arg("--home").arg(team.home(name).root());
    command.output().unwrap()
}

fn said(done: &Output) -> Value {
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {out} {err}"))
}

/// Somebody founds a second group `acme`, calls himself dave@acme, and finds rita by her card: his gd and his descriptor lie in the
/// DHT beside the real ones.
fn impostor(team: &Team) -> (Machine, String) {
    let card = said(&roost(team, "rita", &["card"]))["card"].as_str().unwrap().to_owned();
    let mut mallory = Machine::new(&team.folder(), "mallory");
    mallory.roost(&["init", "dave@acme"], "");
    mallory.reachable_on_loopback();
    mallory.start();
    let founded = mallory.roost(&["group", "create", "acme", "--mode", "full", "--copies", "1"], "");
    let added = mallory.roost(&["contacts", "add", &card], "");
    assert!(added["pinned_since"].is_u64(), "{added}");
    (mallory, founded["group"]["key"].as_str().unwrap().to_owned())
}

#[test]
fn an_impostors_gd_and_descriptor_change_no_pin_and_are_shown_and_his_mail_is_refused() {
    let team = Team::of_two_groups();
    let card = said(&roost(&team, "dave", &["card"]))["card"].as_str().unwrap().to_owned();
    let (mallory, forged) = impostor(&team);
    mallory.roost(&["send", "--to", "rita@readers", "--subject", "I am dave"], "send me money\n");
    wait_for("rita's peer refuses him", || team.log("rita").contains("the key pinned for acme").then_some(()));
    // Adding the card once more reads the gd anew, of dave's peer and of the DHT.
    wait_for("rita is told that there is another candidate", || {
        assert!(roost(&team, "rita", &["contacts", "add", &card]).status.success());
        let status: PeerStatus = team.ask("rita", &Request::Status);
        let told = |line: &String| line.contains("other candidates for group acme") && line.contains(&forged);
        status.attention.iter().any(told).then_some(())
    });
    let mail = team.submit("rita", &["dave"], team.letter("rita", "dave", 30_000));
    team.reader("dave").reads_in_the_end(&mail);
    wait_for("it was delivered", || team.waiting("rita").is_empty().then_some(()));
    assert!(mallory.inbox().is_empty(), "nothing came to the impostor");
    let inbox: Vec<roost::console::protocol::InboxLine> = team.ask("rita", &Request::Inbox { mailbox: None });
    assert!(inbox.is_empty(), "{inbox:?}");
}

#[test]
fn two_candidates_of_an_unpinned_group_are_shown_and_the_one_moved_to_inbox_is_pinned() {
    let team = Team::of_two_groups();
    let real = team.status("dave").group.key.unwrap();
    let (mallory, forged) = impostor(&team);
    let _: Value = team.ask("rita", &Request::ContactRemove { address: team.address("dave") });
    let mail = team.submit("rita", &["dave"], team.letter("rita", "dave", 30_000));
    let status = wait_for("both are in the status", || {
        let status = said(&roost(&team, "rita", &["status"]));
        (status["candidates"]["acme"].as_array()?.len() == 2).then_some(status)
    });
    let attention = status["attention"].to_string();
    assert!(
        attention.contains(&real) && attention.contains(&forged) && attention.contains("contacts add --group acme"),
        "{attention}"
    );
    let text = Command::new(ROOST).args(["status", "--home"]).arg(team.home("rita").root()).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains(&real) && text.contains(&forged), "{text}");
    assert_eq!(team.waiting("rita").len(), 1, "it waits, and nothing is chosen silently");

    let mut rita = team.reader("rita");
    let cards = wait_for("a card each", || {
        rita.imap.select("Requests").unwrap();
        let cards = rita.imap.uid_search("ALL").unwrap();
        (cards.len() == 2).then_some(cards)
    });
    let texts: Vec<String> = cards
        .iter()
        .map(|uid| String::from_utf8(rita.imap.fetch(*uid, "", &mut |_, _| {}).unwrap()).unwrap())
        .collect();
    assert!(texts.iter().any(|text| text.contains(&forged)), "{texts:?}");
    let chosen = texts.iter().position(|text| text.contains(&real)).unwrap();
    rita.imap.command(&format!("UID MOVE {} INBOX", cards[chosen])).unwrap();
    team.reader("dave").reads_in_the_end(&mail);
    wait_for("it was delivered", || team.waiting("rita").is_empty().then_some(()));
    wait_for("no card is left", || {
        rita.imap.select("Requests").unwrap();
        rita.imap.uid_search("ALL").unwrap().is_empty().then_some(())
    });
    assert!(mallory.inbox().is_empty(), "nothing came to the impostor");
    assert!(team.status("rita").candidates.is_empty());
}

#[test]
fn a_group_is_pinned_by_command_and_a_card_that_is_added_turns_requests_into_stubs() {
    let team = Team::of_two_groups();
    let key = team.status("dave").group.key.unwrap();
    let card = said(&roost(&team, "dave", &["card"]))["card"].as_str().unwrap().to_owned();
    assert!(roost(&team, "rita", &["contacts", "remove", "dave@acme"]).status.success());
    let asking = team.submit("dave", &["rita"], team.letter("dave", "rita", 20_000));
    wait_for("dave asks", || {
        said(&roost(&team, "rita", &["requests"])).to_string().contains("dave@acme").then_some(())
    });
    assert!(team.reader("rita").uids_of(&asking).is_empty());
    let added = said(&roost(&team, "rita", &["contacts", "add", &card]));
    assert!(added["pinned_since"].is_u64(), "{added}");
    team.reader("rita").reads_in_the_end(&asking);
    assert!(!said(&roost(&team, "rita", &["requests"]))["waiting"].to_string().contains("dave"));
    wait_for("dave knows", || team.waiting("dave").is_empty().then_some(()));

    assert!(roost(&team, "rita", &["contacts", "remove", "dave@acme"]).status.success());
    let mail = team.submit("rita", &["dave"], team.letter("rita", "dave", 20_000));
    wait_for("the group is missed", || {
        team.status("rita").candidates.keys().any(|g| g.as_str() == "acme").then_some(())
    });
    let wrong = roost(&team, "rita", &["contacts", "add", "--group", "acme", "--key", "nonsense"]);
    assert_eq!(wrong.status.code(), Some(2));
    let pinned = said(&roost(&team, "rita", &["contacts", "add", "--group", "acme", "--key", &key]));
    assert_eq!((&pinned["ok"], &pinned["key"]), (&true.into(), &key.as_str().into()), "{pinned}");
    team.reader("dave").reads_in_the_end(&mail);
    let other = "00".repeat(20);
    let refused = roost(&team, "rita", &["contacts", "add", "--group", "acme", "--key", &other]);
    assert_eq!(refused.status.code(), Some(1), "a pinned key is not replaced");
    assert!(said(&refused)["error"].as_str().unwrap().contains(&key), "{refused:?}");
}
