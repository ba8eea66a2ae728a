//! A group in which anything happens in any order: mails and their ends, members killed, cut at a commit, called lost, with a full or a
//! rotten disk, and days. What an owner counts is on the disk of who said so (R1, R8), also of who is off; what goes is what nobody
//! counts (`World` asserts it, and what a replay gives); and when all works again, each mail is held as the policy says, and what is
//! over by nobody (R3, R4).

use std::collections::BTreeMap;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Send {
        owner: usize,
        is_whole: bool,
    },
    End(usize),
    Kill(usize),
    Start(usize),
    /// Power fails at one of a member's next commits.
    PowerCut(usize, usize),
    /// Who is called lost, whether it is or not.
    Lost(u8),
    Rot(usize),
    Full(usize, bool),
    /// So many questions of holders go astray.
    Unheard(usize),
    ClockUnsure(bool),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let who = || 0..SIX.len();
    prop_oneof![
        4 => (0..2usize, any::<bool>()).prop_map(|(owner, is_whole)| Op::Send { owner, is_whole }),
        1 => any::<usize>().prop_map(Op::End),
        3 => who().prop_map(Op::Kill),
        4 => who().prop_map(Op::Start),
        2 => (who(), 0..4usize).prop_map(|(n, commits)| Op::PowerCut(n, commits)),
        2 => (0..64u8, any::<u8>()).prop_map(|(mask, other)| Op::Lost(mask & other)),
        2 => any::<usize>().prop_map(Op::Rot),
        1 => (who(), any::<bool>()).prop_map(|(n, full)| Op::Full(n, full)),
        1 => (0..4usize).prop_map(Op::Unheard),
        1 => any::<bool>().prop_map(Op::ClockUnsure),
        4 => (0..900u64).prop_map(Op::Pass),
        1 => Just(Op::Pass(7200)),
    ]
}

struct Life {
    world: World,
    /// Those that have not ended, with their owner and encoding.
    open: BTreeMap<u8, (&'static str, Encoding)>,
    sent: u8,
}

impl Life {
    fn happens(&mut self, op: Op) {
        let is_off = SIX.map(|name| self.world.off.contains(&id(name)));
        let world = &mut self.world;
        match op {
            Op::Send { owner, is_whole } if !is_off[owner] => {
                let encoding = if is_whole { Encoding::Whole } else { KN };
                self.sent += 1;
                world.send(SIX[owner], self.sent, encoding);
                self.open.insert(self.sent, (SIX[owner], encoding));
            }
            Op::End(n) => {
                let Some(at) = n.checked_rem(self.open.len()) else { return };
                let (x, (owner, _)) = self.open.iter().nth(at).map(|(x, mail)| (*x, *mail)).unwrap();
                if !world.off.contains(&id(owner)) {
                    world.end(owner, x);
                    self.open.remove(&x);
                }
            }
            Op::Kill(n) => world.kill(SIX[n]),
            Op::Start(n) if is_off[n] => world.start(SIX[n]),
            Op::PowerCut(n, commits) => world.peer(SIX[n]).fuse = Some(commits),
            Op::Lost(which) => {
                world.lost = (0..6).filter(|n| which >> n & 1 == 1).map(|n| id(SIX[n])).collect();
                world.set_roster();
            }
            Op::Rot(n) => {
                let all = world.peers.iter().flat_map(|(m, peer)| peer.disk.iter().map(|part| (*m, *part)));
                let all: Vec<_> = all.collect();
                if let Some(at) = n.checked_rem(all.len()) {
                    let (member, part) = all[at];
                    world.peers.get_mut(&member).unwrap().rotten.insert(part);
                }
            }
            Op::Full(n, full) => world.peer(SIX[n]).full = full,
            Op::Unheard(questions) => world.unheard = questions,
            Op::ClockUnsure(unsure) => world.clock_unsure = unsure,
            Op::Pass(seconds) => world.run(Duration::from_secs(seconds)),
            Op::Send { .. } | Op::Start(_) => {}
        }
    }
    fn check(&self) {
        for (owner, outbox) in &self.world.outboxes {
            for ((member, mail, part), state) in &outbox.told {
                let is_open = outbox.mails.contains(mail);
                let is_there = self.world.peers[member].disk.contains(&(*owner, *mail, *part));
                assert!(
                    is_there || !is_open || *state != HoldingState::Held,
                    "{part} of {mail} is counted at {member} and is not there"
                );
            }
        }
    }
    /// Everything works again.
    fn heals(&mut self) {
        let world = &mut self.world;
        (world.unheard, world.clock_unsure) = (0, false);
        world.lost.clear();
        for name in SIX {
            let peer = world.peer(name);
            (peer.full, peer.fuse) = (false, None);
            if world.off.contains(&id(name)) {
                world.start(name);
            }
            world.tell(name, Input::ClockDoubtful(false));
        }
        world.set_roster();
        world.run(DAY);
        self.check();
        for x in 1..=self.sent {
            let Some((owner, encoding)) = self.open.get(&x).copied() else {
                let left = SIX.map(|owner| self.world.holders(owner, x).len());
                assert_eq!(left, [0; 6], "what is over is held by nobody");
                continue;
            };
            let held = self.world.holders(owner, x);
            let parts: BTreeSet<Part> = held.values().flatten().copied().collect();
            match encoding {
                Encoding::Whole => assert!(held.len() >= 3, "{x}: {held:?}"),
                Encoding::Fragments { .. } => assert!(parts.is_superset(&all_five()), "{x}: {held:?}"),
            }
            let counted = self.world.outboxes[&id(owner)].told.iter();
            let counted = counted.filter(|((_, mail, _), state)| *mail == h(x) && **state == HoldingState::Held);
            assert_eq!(counted.count(), held.values().flatten().count(), "{x}: the owner counts what is there");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        // PROPTEST_CASES asks for more.
        cases: ProptestConfig::default().cases / 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn r1_r3_r4_r8_whatever_happens_in_a_group(ops in proptest::collection::vec(op(), 1..40)) {
        let mut life = Life { world: World::new(&SIX), open: BTreeMap::new(), sent: 0 };
        for op in ops {
            life.happens(op);
            life.check();
        }
        life.heals();
    }
}
