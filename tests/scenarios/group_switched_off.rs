//! What was announced outlives a group that was switched off as a whole: its members keep their shares of the DHT on disk.

use roost::model::Address;

use crate::harness::{Team, wait_for};

#[test]
fn an_announcement_outlives_the_restart_of_everybody_who_keeps_it() {
    let team = Team::of_three();
    team.configure("bob", "mail", "poll = \"2 s\"");
    team.stop(&["bob"]);
    let letter = team.letter("alice", "bob", 3_000);
    let mail = team.submit("alice", &["bob"], letter);
    team.wait_until_safe(&mail, 0);
    let bob: Address = team.address("bob");
    wait_for("it is announced", || {
        let line = team.outbox_line(&mail)?;
        (line.receivers.get(&bob)?.as_str() == "announced").then_some(())
    });
    // Its owner stays away, so nobody announces it again; carol knows of it only what is on her disk.
    team.kill(&["alice"]);
    team.stop(&["carol"]);
    team.start(&["carol", "bob"]);
    team.reader("bob").sees(&mail);
}
