//! Members are lost, taken out, and come back with the disk they had, with an older one, or with none: each time every mail is as
//! safe again as the policy says, no part is held twice, and the group rests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use roost::console::protocol::{GroupChanged, GroupStatus, Request};
use roost::model::{MailId, Part};

use crate::harness::{Mail, OldDisk, Team, wait_for};

const OTHERS: [&str; 4] = ["bob", "carol", "dave", "erin"];

/// Five members, any 2 of 3 fragments: one of the four besides an owner is to spare.
const FIVE: &str = "[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\", \"carol\", \"dave\", \"erin\"]\n\
                    [group.replication]\nmode = \"fragments\"\ncopies = 2\nwhole_below = \"1 KiB\"\nlost_after = \"8 s\"\n\
                    [group.replication.fragments]\nk = 2\nn = 3\n";
const ALL: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// Mails of alice that nobody reads yet.
fn mails(team: &Team, count: usize) -> Vec<Mail> {
    (0..count).map(|_| team.submit("alice", &["carol"], team.letter("alice", "carol", 100_000))).collect()
}

/// Who has what of alice's mails on the disk.
fn on_disks(team: &Team) -> BTreeMap<MailId, BTreeSet<(String, Part)>> {
    let owner = team.address("alice");
    let mut parts: BTreeMap<MailId, BTreeSet<_>> = BTreeMap::new();
    for name in OTHERS {
        for (h, part) in team.home(name).mirrored_parts(&owner).unwrap() {
            parts.entry(h).or_default().insert((name.to_owned(), part));
        }
    }
    parts
}

/// Waits until each of so many mails is safe(1), by three fragments at three members of which nobody is `without`; and until
/// nobody has anything else on the disk.
fn is_whole_again(team: &Team, mails: usize, without: Option<&str>) {
    let fragments: BTreeSet<Part> = (0..3).map(|i| Part::Fragment { k: 2, i }).collect();
    wait_for("every mail is held as the policy says, no part twice", || {
        let lines = team.status("alice").outbox;
        let disks: BTreeMap<_, _> = on_disks(team)
            .into_iter()
            .map(|(h, held)| {
                (h, held.into_iter().filter(|(name, _)| Some(name.as_str()) != without).collect::<Vec<_>>())
            })
            .collect();
        let right = |sealed: &roost::console::protocol::SealedLine| {
            let Some(held) = disks.get(&sealed.h) else { return false };
            let told: BTreeSet<&str> = sealed.holders.keys().map(|holder| holder.name().as_str()).collect();
            let have: BTreeSet<&str> = held.iter().map(|(name, _)| name.as_str()).collect();
            let parts: BTreeSet<Part> = held.iter().map(|(_, part)| *part).collect();
            (sealed.safe, held.len()) == (1, 3) && parts == fragments && told == have
        };
        let sealed: Vec<_> = lines.into_iter().flat_map(|line| line.sealed).collect();
        (sealed.len() == mails && sealed.iter().all(right)).then_some(())
    });
}

fn is_lost(team: &Team, name: &str) -> bool {
    let group: GroupStatus = team.ask("alice", &Request::GroupStatus);
    group.members.iter().any(|member| member.address == team.address(name) && member.lost)
}

/// One of those that hold something of alice's mails.
fn a_holder(team: &Team) -> &'static str {
    let held = on_disks(team);
    let holds = |name: &&&str| held.values().flatten().any(|(holder, _)| holder == **name);
    // carol reads.
    OTHERS.iter().filter(|name| **name != "carol").find(holds).unwrap()
}

#[test]
fn a_lost_member_is_replaced_and_gives_up_what_it_had_when_it_is_back_also_from_an_older_disk() {
    let team = Team::of_text(FIVE);
    let sent = mails(&team, 5);
    is_whole_again(&team, sent.len(), None);
    let away = a_holder(&team);
    team.stop(&[away]);
    let old = OldDisk::of(&team, away);
    wait_for("it is called lost", || is_lost(&team, away).then_some(()));
    let attention = team.status("alice").attention;
    assert!(attention.iter().any(|line| line.contains(&format!("{away}@acme is lost"))), "{attention:?}");
    is_whole_again(&team, sent.len(), Some(away));

    team.start(&[away]);
    wait_for("it is not lost any more", || (!is_lost(&team, away)).then_some(()));
    is_whole_again(&team, sent.len(), None);
    team.rests(&ALL);

    // Some are over meanwhile, and new ones came, of which the older disk knows nothing.
    let mut carol = team.reader("carol");
    sent[..2].iter().for_each(|mail| carol.reads_in_the_end(mail));
    drop(carol);
    let more = mails(&team, 2);
    is_whole_again(&team, 5, None);
    team.kill(&[away]);
    old.put_back(&team, away);
    team.start(&[away]);
    is_whole_again(&team, 5, None);
    team.rests(&ALL);

    team.kill(&["alice", away]);
    let mut carol = team.reader("carol");
    sent[2..].iter().chain(&more).for_each(|mail| carol.reads_in_the_end(mail));
}

#[test]
fn a_member_whose_mirror_is_gone_fills_it_again_and_one_that_was_removed_comes_back_empty() {
    let team = Team::of_text(FIVE);
    let sent = mails(&team, 5);
    is_whole_again(&team, sent.len(), None);
    let away = a_holder(&team);
    team.kill(&[away]);
    // The disk of its mirror was replaced by an empty one.
    for (h, part) in team.home(away).mirrored_parts(&team.address("alice")).unwrap() {
        fs::remove_file(team.home(away).mirror_part(&team.address("alice"), &h, part)).unwrap();
    }
    team.start(&[away]);
    is_whole_again(&team, sent.len(), None);

    team.kill(&[away]);
    let _: GroupChanged = team.ask("alice", &Request::GroupRemove { address: team.address(away) });
    is_whole_again(&team, sent.len(), Some(away));
    // A new disk: another identity under the old name.
    let left: Vec<&str> = ALL.into_iter().filter(|name| *name != away).collect();
    team.rests(&left);
    fs::remove_dir_all(team.home_dir(away)).unwrap();
    team.grow(FIVE);
    is_whole_again(&team, sent.len(), None);
    let mail = team.submit(away, &["carol"], team.letter(away, "carol", 50_000));
    let mut carol = team.reader("carol");
    sent.iter().chain([&mail]).for_each(|mail| carol.reads_in_the_end(mail));
    wait_for("alice's outbox is empty", || team.waiting("alice").is_empty().then_some(()));
    wait_for("the members hold nothing of it", || on_disks(&team).is_empty().then_some(()));
    team.rests(&ALL);
}
