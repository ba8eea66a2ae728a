//! Six members, any 3 of 5 fragments, the owner dead: every choice of two more dead members opens, and none of three does.

use std::collections::BTreeSet;

use crate::harness::{Mail, Reader, Team, wait_for};

const OTHERS: [&str; 5] = ["bob", "carol", "dave", "erin", "frank"];

/// Which of the others are dead.
type Dead = BTreeSet<usize>;

/// Every choice of two and of three of the five, each once, so that from one to the next a single member dies or comes back.
fn all_choices() -> Vec<Dead> {
    fn longer(way: &mut Vec<Dead>) -> bool {
        if way.len() == 20 {
            return true;
        }
        for member in 0..OTHERS.len() {
            let mut next = way[way.len() - 1].clone();
            if !next.remove(&member) {
                next.insert(member);
            }
            if (2..=3).contains(&next.len()) && !way.contains(&next) {
                way.push(next);
                if longer(way) {
                    return true;
                }
                way.pop();
            }
        }
        false
    }
    let mut way = vec![Dead::from([0, 1])];
    assert!(longer(&mut way), "there is such a way");
    way
}

/// Lets one die or come back, so that `next` are dead.
fn change(team: &Team, now: &Dead, next: &Dead) {
    let names = |set: BTreeSet<&usize>| set.into_iter().map(|i| OTHERS[*i]).collect::<Vec<_>>();
    let (die, return_) = (names(next.difference(now).collect()), names(now.difference(next).collect()));
    if !die.is_empty() {
        team.kill(&die);
    }
    if !return_.is_empty() {
        team.start(&return_);
    }
}

/// Opening the mail is answered with what is missing, and the stub stays what it was.
fn cannot_be_had(reader: &mut Reader, mail: &Mail) {
    let stub = stub_of(reader, mail);
    // Three of the others are dead, so of the three parts that are needed two are there, once both were reached.
    wait_for("it is told how many parts are missing", || {
        let Err(no) = reader.opens(mail) else { panic!("it was opened, with three of the five dead") };
        assert!(no.is_unavailable(), "{no}");
        no.to_string().contains("1 more part(s) are needed: 2 of 3 can be reached").then_some(())
    });
    assert_eq!(stub_of(reader, mail), stub, "the stub stays");
}

fn stub_of(reader: &mut Reader, mail: &Mail) -> (u32, String) {
    let uids = reader.uids_of(mail);
    assert_eq!(uids.len(), 1);
    let shown = reader.imap.fetch_items(uids[0], "RFC822.SIZE FLAGS BODYSTRUCTURE").unwrap();
    assert!(shown.contains(&format!("RFC822.SIZE {}", mail.letter.bytes.len())), "{shown}");
    (uids[0], shown)
}

#[test]
fn with_the_owner_dead_every_choice_of_two_more_opens_and_none_of_three_does() {
    let team = Team::of_six();
    // One for each choice: what was verified of a mail stays here, so each is opened for the first time.
    let mails: Vec<Mail> =
        (0..20).map(|_| team.submit("alice", &["rita"], team.letter("alice", "rita", 100_000))).collect();
    wait_for("every mail is announced, and each of the five holds a part of it", || {
        let lines = team.status("alice").outbox;
        let done = |line: &roost::console::protocol::OutboxLine| {
            let announced = line.receivers.values().all(|state| state == "announced");
            let held = |sealed: &roost::console::protocol::SealedLine| {
                (sealed.safe, sealed.holders.len(), sealed.encoding.as_str()) == (2, 5, "fragments 3 of 5")
            };
            announced && line.sealed.len() == 1 && line.sealed.iter().all(held)
        };
        (lines.len() == mails.len() && lines.iter().all(done)).then_some(())
    });
    let mut rita = team.reader("rita");
    mails.iter().for_each(|mail| {
        rita.sees(mail);
    });
    team.kill(&["alice"]);
    let mut dead = Dead::new();
    let (mut opened, mut refused) = (0, Vec::new());
    for (choice, mail) in all_choices().into_iter().zip(&mails) {
        change(&team, &dead, &choice);
        dead = choice;
        if dead.len() == 2 {
            rita.reads_in_the_end(mail);
            opened += 1;
        } else {
            cannot_be_had(&mut rita, mail);
            refused.push(mail);
        }
    }
    assert_eq!((opened, refused.len()), (10, 10));
    // Nothing was lost by it.
    team.start(&dead.iter().map(|i| OTHERS[*i]).collect::<Vec<_>>());
    for mail in refused {
        rita.reads_in_the_end(mail);
    }
}
