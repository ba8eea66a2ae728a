//! Somebody joins the group of a contact: mail to the new name is taken at once, though the contact's group was last looked at
//! before.

use roost::model::Address;

use crate::harness::{Team, wait_for};

fn with_members(members: &str) -> String {
    format!(
        "[[group]]\nname = \"acme\"\nmembers = [{members}]\n\
         [group.replication]\nmode = \"full\"\ncopies = 1\n\
         [[group]]\nname = \"readers\"\nmembers = [\"rita\"]\n\
         [[contacts]]\npeer = \"rita@readers\"\nwith = [\"alice@acme\"]\n"
    )
}

#[test]
fn mail_to_somebody_who_joined_a_contacts_group_a_moment_ago_is_taken_and_announced() {
    let team = Team::of_text(&with_members("\"alice\""));
    team.grow(&with_members("\"alice\", \"bob\""));
    let mail = team.submit("rita", &["bob"], team.letter("rita", "bob", 3_000));
    let bob: Address = team.address("bob");
    wait_for("bob's peer knows of it", || {
        let line = team.outbox_line(&mail)?;
        (line.receivers.get(&bob)?.as_str() == "announced").then_some(())
    });
}
