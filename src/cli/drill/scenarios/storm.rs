//! The kill storm: peers are killed at random moments and started again, while mail is sent, read, repaired and taken back. It
//! deletes nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::few;
use crate::cli::drill::availability::Expected;
use crate::cli::drill::events::{Event, Gone};
use crate::cli::drill::scene::Scene;
use crate::cli::process;
use crate::model::{Address, Encoding, Policy};

/// Most peers that are dead at a time.
const DEAD_MAX: usize = 3;
/// One of so many stays away until it is replaced, where the policy replaces a member that soon,
const LONG: u64 = 8;
/// for so many milliseconds at least, and at most.
const AWAY_MS: (u64, u64) = (9_000, 14_000);

/// The last line of a peer's log: it may say why it ended, as when another program took its port while it was dead.
fn last_words(scene: &Scene, peer: &Address) -> String {
    let tail = process::log_tail(&scene.stage.cluster.home_of(peer));
    tail.lines().next_back().map_or_else(|| "its log says nothing".to_owned(), |line| line.trim().to_owned())
}

/// Of what a mail needs to be had, as a group of so many keeps one that is not small.
fn form(policy: &Policy, members: usize) -> Expected {
    let others = members.saturating_sub(1);
    match policy.encoding_for(u64::MAX, others) {
        Encoding::Whole => {
            Expected::AtRandom { k: 1, n: u32::try_from(policy.whole_copies(others)).unwrap_or(u32::MAX) }
        }
        Encoding::Fragments { k, n } => Expected::AtRandom { k: u32::from(k), n: u32::from(n) },
    }
}

/// Kills `kills` times.
pub(super) fn kill_storm(scene: &mut Scene, kills: u32) -> anyhow::Result<()> {
    let everybody: Vec<Address> = scene.crew.people.iter().map(|person| person.address.clone()).collect();
    scene.expected = Some(form(&scene.policy, scene.members.len()));
    let lost_after = scene.policy.lost_after.duration();
    scene.pass(Duration::from_secs(3));
    let mut dead: Vec<(Address, Instant)> = Vec::new();
    let (mut killed, mut by_itself, mut replaced) = (0, Vec::new(), 0);
    while killed < kills {
        let now = Instant::now();
        let (due, later) = dead.into_iter().partition(|(_, at)| *at <= now);
        dead = later;
        let due: Vec<Address> = Vec::into_iter(due).map(|(peer, _)| peer).collect();
        scene.launch(&due)?;
        let alive: Vec<&Address> =
            everybody.iter().filter(|peer| !dead.iter().any(|(gone, _)| gone == *peer)).collect();
        let count = u64::try_from(alive.len()).unwrap_or(1);
        let victim =
            usize::try_from(scene.random.below(count)).ok().and_then(|at| alive.get(at)).map(|peer| (*peer).clone());
        if let Some(victim) = victim.filter(|_| dead.len() < DEAD_MAX) {
            scene.log().add(Event::Down { peer: victim.to_string(), how: Gone::Killed });
            if scene.act(|cluster| cluster.kill(std::slice::from_ref(&victim)))?.is_empty() {
                by_itself.push(format!("{victim}: {}", last_words(scene, &victim)));
            }
            killed += 1;
            let long = scene.random.below(LONG) == 0;
            let away =
                if long { few(&mut scene.random, AWAY_MS.0, AWAY_MS.1) } else { few(&mut scene.random, 0, 1_500) };
            replaced += u32::from(away > lost_after && scene.members.contains(&victim));
            dead.push((victim, Instant::now() + away));
            if killed % 10 == 0 {
                let (taken, read) = scene.went_through();
                scene.say(&format!("{killed} of {kills} kills; {taken} mails taken, {read} read"));
            }
        }
        let pause = few(&mut scene.random, 0, 1_200);
        scene.pass(pause);
    }
    scene.start(&everybody)?;
    let none = by_itself.is_empty();
    let why = match none {
        true => format!("{killed} kills, none of a peer that had ended by itself"),
        false => {
            format!("{killed} kills; {} times a peer had ended by itself: {}", by_itself.len(), by_itself.join("; "))
        }
    };
    scene.check(1, none, why);
    match replaced {
        0 if lost_after >= Duration::from_millis(AWAY_MS.1) => scene.left_out.push(format!(
            "repair: the group replaces a member only after {} s, longer than any is away in a storm",
            lost_after.as_secs()
        )),
        0 => scene
            .left_out
            .push("repair: by chance no member was away until it is replaced; more kills do that".to_owned()),
        some => scene.say(&format!("{some} times a member was away for longer than until it is replaced")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mode;

    #[test]
    fn what_can_be_had_by_chance_is_reckoned_by_how_the_group_keeps_its_mail() {
        let fragments = Policy { mode: Mode::Fragments, ..Policy::default() };
        assert_eq!(form(&fragments, 6), Expected::AtRandom { k: 3, n: 5 });
        assert_eq!(form(&fragments, 4), Expected::AtRandom { k: 1, n: 3 }, "a group that is too small keeps all whole");
        let full = Policy { mode: Mode::Full, copies: 2, ..fragments };
        assert_eq!(form(&full, 3), Expected::AtRandom { k: 1, n: 2 });
        assert_eq!(form(&full, 6), Expected::AtRandom { k: 1, n: 2 });
    }
}
