//! A member that was away for longer than its group remembers: 45 days, while owners drop what is over from their msglists, 30
//! days after its expiry (R3, R7). Two written stories, no drawn ones; the checker watches them all the same.

use std::collections::BTreeSet;

use roost::core::outbox;
use roost::core::postbox::access::Standard;
use roost::model::policy::KOfN;
use roost::model::{ByteSize, MailId, Mode, Part, PeerId, Policy, Span};
use roost::wire;

use super::checker::survives;
use super::disk::Record;
use super::params::Params;
use super::peer::Deed;
use super::users::UserAct;
use super::world::World;

const MINUTE: u64 = 60_000;
pub(crate) const DAY: u64 = 24 * 60 * MINUTE;
/// The owner, the member that reads, one that stays, the one that goes; and the reader outside.
pub(crate) const OWNER: usize = 0;
pub(crate) const MEMBER: usize = 1;
pub(crate) const STAYS: usize = 2;
const ABSENT: usize = 3;
pub(crate) const RITA: usize = 4;

/// Four members and rita, who know each other; nothing goes wrong.
pub(crate) fn world(mode: Mode) -> World {
    let policy = Policy {
        mode,
        fragments: KOfN { k: 2, n: 3 },
        copies: 3,
        whole_below: ByteSize::kib(0),
        lost_after: Span::hours(1),
        life: Span::days(7),
        ..Policy::default()
    };
    let mut params = Params::draw(1, None);
    params.members = 4;
    params.policy = policy.check().unwrap();
    (params.drop, params.duplicate, params.latency_ms, params.fsync_ms) = (0, 0, 20, 5);
    (params.crashes, params.partitions, params.liars, params.old_disks, params.skew_ms) = (0, 0, 0, 0, 500);
    (params.hostile, params.known_outside, params.by_dht, params.eager) = (false, true, false, false);
    (params.reader_leaves, params.dead_disks) = (false, false);
    params.policies.clear();
    params.changes.clear();
    params.rotations.clear();
    params.cuts.clear();
    params.jumps.clear();
    params.stops.clear();
    params.full.clear();
    params.junk = 0;
    params.rots = 0;
    // A day has many audits as it is.
    params.audit_every_ms = 12 * 60 * MINUTE;
    let mut world = World::new(params, false);
    for p in 0..RITA {
        world.truth.contacts.extend([(p, RITA), (RITA, p)]);
    }
    for p in 0..=RITA {
        world.start(p);
    }
    world.run(MINUTE);
    world
}

impl World {
    /// The one who mails: a new mail, which is sealed and mirrored after a while.
    pub(crate) fn mails(&mut self, to: usize) -> MailId {
        let before: BTreeSet<MailId> = self.truth.mails.keys().copied().collect();
        let id = self.rng.next();
        self.submit_to(OWNER, id, [self.peers[to].address.clone()].into());
        self.run(30 * MINUTE);
        self.is_well();
        let new: Vec<MailId> = self.truth.mails.keys().filter(|h| !before.contains(h)).copied().collect();
        assert_eq!(new.len(), 1, "one mail was sealed");
        new[0]
    }

    pub(crate) fn is_well(&self) {
        assert!(self.violation.is_none(), "{:?}", self.violation);
    }

    pub(crate) fn passes(&mut self, ms: u64) {
        self.run(ms);
        self.is_well();
    }

    /// The parts of a mail that a peer has.
    pub(crate) fn parts(&self, p: usize, h: &MailId) -> BTreeSet<Part> {
        let owner = self.peers[OWNER].id;
        let of_it = |part: &&(PeerId, MailId, Part)| (part.0, part.1) == (owner, *h);
        self.peers[p].disk.parts.iter().filter(of_it).map(|part| part.2).collect()
    }

    /// A peer is off until it comes back.
    pub(crate) fn goes(&mut self, p: usize) {
        self.crash(p);
        self.peers[p].left = true;
    }

    fn comes_back(&mut self, p: usize) {
        self.peers[p].left = false;
        self.start(p);
    }

    /// Whether the owner dropped entries behind a new base.
    fn has_new_base(&self) -> bool {
        self.peers[OWNER].disk.journal.iter().any(|record| {
            let Record::Outbox(bytes) = record else { return false };
            matches!(wire::decode::<outbox::Event>(bytes), Ok(outbox::Event::Rebased { base, .. }) if base.0 > 0)
        })
    }

    pub(crate) fn opens_all(&mut self, p: usize) {
        self.user(UserAct::At(p, Standard::Inbox, Deed::OpenAll));
        self.passes(60 * MINUTE);
    }

    /// Which mails a peer has read, every byte.
    pub(crate) fn has_read(&self, p: usize, h: &MailId) -> bool {
        let submission = self.truth.mails[h].submission;
        self.peers[p].disk.files.values().any(|file| file.letter == Some(submission) && file.body == Some(true))
    }
}

/// 45 days, in the last of which new mails wait: what was received, what expired, and the two that wait for rita.
fn away_for_45_days(world: &mut World, who: usize) -> (MailId, MailId, [MailId; 2]) {
    let (received, expired) = (world.mails(MEMBER), world.mails(RITA));
    assert!(!world.parts(ABSENT, &received).is_empty() && !world.parts(ABSENT, &expired).is_empty());
    world.goes(who);
    // Rita is away too, until the new mails are there.
    world.goes(RITA);
    if who != OWNER {
        world.opens_all(MEMBER);
        assert!(world.has_read(MEMBER, &received));
    }
    world.passes(43 * DAY);
    assert!(!world.has_new_base(), "only who seals looks: an idle peer writes nothing");
    (received, expired, [received, expired])
}

#[test]
fn r3_r7_a_member_that_was_away_for_45_days_deletes_nothing_that_lives_and_brings_nothing_back() {
    for mode in [Mode::Full, Mode::Fragments] {
        let mut world = world(mode);
        let (received, expired, _) = away_for_45_days(&mut world, ABSENT);
        assert!(!world.parts(ABSENT, &received).is_empty(), "they are still on its disk");
        let living = [world.mails(RITA), world.mails(RITA)];
        assert!(world.has_new_base(), "what was over is dropped");
        world.passes(2 * DAY);
        let held: Vec<_> = living.iter().map(|h| [MEMBER, STAYS].map(|p| world.parts(p, h))).collect();
        assert!(held.iter().flatten().all(|parts| !parts.is_empty()), "{held:?}");

        world.comes_back(ABSENT);
        world.passes(DAY);
        for (h, held) in living.iter().zip(&held) {
            for (p, before) in [MEMBER, STAYS].into_iter().zip(held) {
                let (now, is_whole) = (world.parts(p, h), mode == Mode::Full);
                assert!(!is_whole || now.is_superset(before), "{now:?}: nothing that lives was deleted");
                // Kept whole while the group was too small, it moves as soon as that is large enough again.
                assert!(is_whole || (now.len() == 1 && !now.contains(&Part::Whole)), "{now:?}: it has moved");
            }
            assert!(!world.parts(ABSENT, h).is_empty(), "{mode:?}: it mirrors what is new");
            let held = [MEMBER, STAYS, ABSENT].map(|p| world.parts(p, h));
            assert!(survives(&held) >= 1, "{mode:?}: as many losses are survived as before: {held:?}");
        }
        for h in [&received, &expired] {
            let left: Vec<usize> = (0..=RITA).filter(|p| !world.parts(*p, h).is_empty()).collect();
            assert_eq!(left, Vec::<usize>::new(), "{mode:?}: what is over is nowhere, and does not come back");
            assert!(!world.peers[OWNER].disk.blobs.contains_key(h));
        }
        // It is as good as any other holder: with the owner and another one gone, rita reads.
        world.goes(OWNER);
        world.goes(MEMBER);
        world.comes_back(RITA);
        world.passes(MINUTE);
        world.comes_back(OWNER);
        world.passes(60 * MINUTE);
        world.goes(OWNER);
        world.opens_all(RITA);
        assert!(living.iter().all(|h| world.has_read(RITA, h)), "{mode:?}");
        assert!(!world.has_read(RITA, &expired) && !world.has_read(RITA, &received));
        world.comes_back(OWNER);
        world.comes_back(MEMBER);
        world.passes(DAY);
        world.check_once(MEMBER);
        world.check_once(RITA);
        world.check_gone();
        world.is_well();
        let (commits, messages) = (world.commits.clone(), world.messages.clone());
        world.passes(30 * MINUTE);
        world.check_rest(30, &commits, &messages);
        world.is_well();
    }
}
