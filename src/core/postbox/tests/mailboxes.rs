//! What mail programs do to mailboxes: UIDs, flags, copies, moves, names; any of it in any order.

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::*;
use crate::core::postbox::access::FlagChange;

fn append(world: &mut World, which: &MailboxName) -> Uid {
    let request = MailboxRequest::Append {
        mailbox: which.clone(),
        file: PathBuf::from("temporary"),
        flags: BTreeSet::from([Flag::Seen, Flag::Keyword("$Safe9".to_owned())]),
        internal_date: Some(WallTime(5)),
    };
    match world.ask(request) {
        MailboxReply::Appended(_, uid) => uid,
        other => panic!("{other:?}"),
    }
}

fn mailbox(text: &str) -> MailboxName {
    MailboxName::new(text).unwrap()
}

#[test]
fn rfc3501_append_copy_expunge_keep_uids_ascending_and_share_one_file() {
    let mut world = World::new();
    let sent = name(Standard::Sent);
    let first = append(&mut world, &sent);
    let second = append(&mut world, &sent);
    assert!(second > first);
    let copy = MailboxRequest::Copy { mailbox: sent.clone(), uids: vec![first, Uid(99)], to: name(Standard::Trash) };
    let MailboxReply::Copied { uids, .. } = world.ask(copy) else { panic!() };
    assert_eq!(uids, [(first, Uid(1))]);
    assert_eq!(world.files.len(), 2, "copies share one file");
    world.delete(Standard::Sent, first);
    assert_eq!(world.files.len(), 2, "the copy still needs it");
    world.delete(Standard::Trash, Uid(1));
    assert_eq!(world.files.len(), 1);
    let third = append(&mut world, &sent);
    assert!(third > second);
    let message = &world.listed(Standard::Sent)[1];
    assert_eq!((message.internal_date, message.size), (WallTime(5), 55));
    assert_eq!(message.flags, BTreeSet::from([Flag::Seen]), "what only the peer knows nobody else sets");
}

#[test]
fn the_full_view_has_uids_of_its_own_given_when_bodies_arrive() {
    let mut world = World::new();
    world.send(&ns(1), true);
    world.send(&ns(2), true);
    let inbox = name(Standard::Inbox);
    let (stubs, full) = (world.listed_in(View::Stubs, &inbox).0, world.listed_in(View::Full, &inbox).0);
    assert_ne!(stubs.uid_validity, full.uid_validity);
    assert_eq!((stubs.exists, full.exists), (2, 0));
    world.open(Standard::Inbox, Uid(2));
    world.open(Standard::Inbox, Uid(1));
    let (info, messages) = world.listed_in(View::Full, &inbox);
    assert_eq!((info.exists, info.uid_next), (2, Uid(3)));
    let uids: Vec<(Uid, MessageKey)> = messages.iter().map(|m| (m.uid, m.key)).collect();
    let stubs = world.listed(Standard::Inbox);
    assert_eq!(uids, [(Uid(1), stubs[1].key), (Uid(2), stubs[0].key)], "in the order of arrival of the bodies");
    let flag = |uid| MailboxRequest::Flags {
        mailbox: inbox.clone(),
        uids: vec![uid],
        change: FlagChange::Add,
        flags: BTreeSet::from([Flag::Flagged]),
    };
    let Some(MailboxReply::Changed(changed)) = world.ask_in(View::Full, flag(Uid(1))) else { panic!() };
    assert_eq!((changed[0].uid, changed[0].key), (Uid(1), stubs[1].key));
    assert!(world.listed(Standard::Inbox)[1].flags.contains(&Flag::Flagged));
    let to = name(Standard::Trash);
    let mv = MailboxRequest::Move { mailbox: inbox.clone(), uids: vec![Uid(1)], to };
    let Some(MailboxReply::Copied { uids, .. }) = world.ask_in(View::Full, mv) else { panic!() };
    assert_eq!(uids, [(Uid(1), Uid(1))]);
    assert_eq!(world.listed_in(View::Full, &inbox).0.exists, 1);
}

#[test]
fn rfc3501_a_mailbox_made_again_has_a_greater_uidvalidity() {
    let mut world = World::new();
    let work = mailbox("work/2024");
    assert_eq!(world.ask(MailboxRequest::Create(work.clone())), MailboxReply::Done);
    assert_eq!(
        world.ask(MailboxRequest::Create(mailbox("work"))),
        MailboxReply::Failed(MailboxFailure::Exists(mailbox("work")))
    );
    append(&mut world, &work);
    let before = world.listed_in(View::Stubs, &work).0;
    let deleted = world.ask(MailboxRequest::Delete(mailbox("work")));
    assert!(matches!(deleted, MailboxReply::Failed(MailboxFailure::Cannot(_))));
    assert_eq!(world.ask(MailboxRequest::Delete(work.clone())), MailboxReply::Done);
    assert_eq!(world.files.len(), 0);
    world.crash();
    world.run();
    world.ask(MailboxRequest::Create(work.clone()));
    let after = world.listed_in(View::Stubs, &work).0;
    assert!(after.uid_validity > before.uid_validity && after.exists == 0);
}

#[test]
fn rfc3501_rename_takes_what_is_below_along() {
    let mut world = World::new();
    world.ask(MailboxRequest::Create(mailbox("a/b/c")));
    append(&mut world, &mailbox("a/b/c"));
    let rename = |from, to| MailboxRequest::Rename { from: mailbox(from), to: mailbox(to) };
    assert_eq!(world.ask(rename("a/b", "x/y")), MailboxReply::Done);
    assert_eq!(world.listed_in(View::Stubs, &mailbox("x/y/c")).1.len(), 1);
    for (from, to) in [("x", "x/y/z"), ("INBOX", "old"), ("Sent", "old"), ("x/y", "a"), ("nowhere", "old")] {
        assert!(matches!(world.ask(rename(from, to)), MailboxReply::Failed(_)), "{from} to {to}");
    }
    let MailboxReply::Mailboxes(all) = world.ask(MailboxRequest::List) else { panic!() };
    let own: Vec<&str> = all.iter().filter(|m| m.standard.is_none()).map(|m| m.name.as_str()).collect();
    assert_eq!(own, ["a", "x", "x/y", "x/y/c"]);
    assert_eq!(all.iter().filter(|m| m.standard.is_some()).count(), 7);
}

#[test]
fn only_the_peer_puts_messages_into_requests_and_outbox() {
    let mut world = World::new();
    let sent = name(Standard::Sent);
    let uid = append(&mut world, &sent);
    for which in [Standard::Requests, Standard::Outbox] {
        let copy = MailboxRequest::Copy { mailbox: sent.clone(), uids: vec![uid], to: name(which) };
        assert!(matches!(world.ask(copy), MailboxReply::Failed(MailboxFailure::Cannot(_))));
    }
    let nowhere = MailboxRequest::Copy { mailbox: sent, uids: vec![uid], to: mailbox("nowhere") };
    assert_eq!(world.ask(nowhere), MailboxReply::Failed(MailboxFailure::NoMailbox(mailbox("nowhere"))));
}

#[derive(Debug, Clone)]
enum Op {
    Ns(u8),
    Append(u8),
    Transfer(u8, u8, u8, bool),
    Delete(u8, u8),
    Open(u8, u8),
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (1..12u8).prop_map(Op::Ns),
        (0..4u8).prop_map(Op::Append),
        (0..4u8, any::<u8>(), 0..4u8, any::<bool>()).prop_map(|(a, n, b, m)| Op::Transfer(a, n, b, m)),
        (0..4u8, any::<u8>()).prop_map(|(a, n)| Op::Delete(a, n)),
        (0..4u8, any::<u8>()).prop_map(|(a, n)| Op::Open(a, n)),
        Just(Op::Crash),
    ]
}

const ALL: [Standard; 4] = [Standard::Inbox, Standard::Sent, Standard::Trash, Standard::Junk];

fn which(n: u8) -> Standard {
    ALL[usize::from(n)]
}

/// Every UID of a mailbox and view that was ever seen, with its message.
type Seen = BTreeMap<(Standard, View, Uid), MessageKey>;

fn pick(world: &mut World, from: u8, n: u8) -> Option<Uid> {
    let listed = world.listed(which(from));
    let at = usize::from(n).checked_rem(listed.len())?;
    Some(listed[at].uid)
}

fn perform(world: &mut World, op: Op) {
    match op {
        Op::Ns(n) => drop(world.send(&ns(n), true)),
        Op::Append(to) => drop(append(world, &name(which(to)))),
        Op::Crash => {
            world.crash();
            world.run();
        }
        Op::Transfer(from, n, to, moves) => {
            let Some(uid) = pick(world, from, n) else { return };
            let (mailbox, uids, to) = (name(which(from)), vec![uid], name(which(to)));
            world.ask(if moves {
                MailboxRequest::Move { mailbox, uids, to }
            } else {
                MailboxRequest::Copy { mailbox, uids, to }
            });
        }
        Op::Delete(from, n) => {
            if let Some(uid) = pick(world, from, n) {
                world.delete(which(from), uid);
            }
        }
        Op::Open(from, n) => {
            if let Some(uid) = pick(world, from, n) {
                assert!(matches!(world.open(which(from), uid), Some(MailboxReply::Body(_))));
            }
        }
    }
}

fn check(world: &mut World, seen: &mut Seen, versions: &mut BTreeMap<Standard, (u64, Vec<Message>)>, crashed: bool) {
    let mut keys = BTreeSet::new();
    for mailbox in ALL {
        for view in [View::Stubs, View::Full] {
            let (info, messages) = world.listed_in(view, &name(mailbox));
            assert!(messages.windows(2).all(|pair| pair[0].uid < pair[1].uid), "UIDs ascend");
            assert!(messages.iter().all(|m| m.uid < info.uid_next), "UIDNEXT is above all");
            assert_eq!(usize::try_from(info.exists).unwrap(), messages.len());
            for message in &messages {
                let before = *seen.entry((mailbox, view, message.uid)).or_insert(message.key);
                assert_eq!(before, message.key, "a UID names one message for ever");
                assert!(view == View::Stubs || message.body == BodyState::Here);
                keys.insert(message.key);
            }
            if view == View::Stubs {
                let before = versions.insert(mailbox, (info.version, messages.clone()));
                let grew = before.is_none_or(|(version, old)| version < info.version || old == messages);
                assert!(grew || crashed, "a mailbox that changed has a greater version");
            }
        }
    }
    assert_eq!(
        world.files.keys().copied().collect::<BTreeSet<_>>(),
        keys,
        "each message has its files, and no other file is there"
    );
}

proptest! {
    #[test]
    fn whatever_mail_programs_do_uids_stay_true_and_files_follow(ops in proptest::collection::vec(op(), 1..40)) {
        let (mut world, mut seen, mut versions) = (World::new(), Seen::new(), BTreeMap::new());
        for op in ops {
            let crashed = matches!(op, Op::Crash);
            perform(&mut world, op);
            check(&mut world, &mut seen, &mut versions, crashed);
        }
        let mut per_mail: BTreeMap<MailId, usize> = BTreeMap::new();
        world.sender.taken.iter().for_each(|nr| *per_mail.entry(nr.h).or_default() += 1);
        assert!(per_mail.values().all(|count| *count == 1), "one nr a mail: {per_mail:?}");
    }
}
