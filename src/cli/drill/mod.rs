//! `roost drill`: makes real peers fail under steady mail and tells whether every rule held. It sees the peers only from outside,
//! by SMTP, IMAP, their commands and their disks, and never takes a peer's word for what a disk can show.

pub(super) mod args;
mod around;
mod availability;
mod census;
mod crew;
mod deadline;
mod events;
mod letters;
mod liar;
mod load;
mod own;
mod relay;
mod report;
mod scenarios;
mod scene;
mod spoiled;
mod stranger;
mod verdict;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::surroundings::Surroundings;
use super::demo::stage::Stage;
use super::output::{self, Shown};
use crate::config::cluster::Cluster;
use crate::model::Span;
use args::{DrillArgs, Name};
use around::Around;
use deadline::Deadline;
use report::{Outcome, Report};
use scene::{Scene, Skipped};
use verdict::RuleVerdict;

/// The cluster that is built in.
const CLUSTER: &str = include_str!("../../../cluster-config/drill.toml");
/// How long all that is due may take once the load has stopped.
const SETTLE: Duration = Duration::from_secs(180);
/// The same where peers of different groups missed each other for long: they try again after up to five minutes.
const SETTLE_LONG: Duration = Duration::from_secs(360);
/// How often members are audited where one lies: an hour, as usual, would be too long for a drill.
const AUDITS: Span = Span::secs(4);
/// How long a sender waits between two mails, about; in a storm less, so that there is always one to kill.
const PACE: Duration = Duration::from_millis(2500);
const PACE_STORM: Duration = Duration::from_millis(1000);

/// Does what was asked.
pub(super) fn run(home: Option<&Path>, args: &DrillArgs) -> anyhow::Result<Shown> {
    home.map_or(Ok(()), |home| own::ask(home, args))?;
    let seed = args.seed.map_or_else(drawn, Ok)?;
    output::note(&format!("seed {seed}"));
    // What cannot be written then would be known only after the first scenario.
    args.plots.plots.as_deref().map_or(Ok(()), report::make_folder)?;
    let deadline = Deadline::with(args.kills);
    let mut outcomes = Vec::new();
    for name in args.scenario.each() {
        output::note(&format!("{}:", name.word()));
        let mut outcome = match deadline.check() {
            Ok(()) => play(name, home, args, seed, deadline),
            Err(over) => Outcome::failed(&name.word(), format!("it was not begun: {over}")),
        };
        if let Err(error) = outcome.plot(args.plots.plots.as_deref()) {
            outcome.fails(format!("{error:#}"));
        }
        output::note(&outcome.line());
        // The others take long: what broke can be looked into meanwhile.
        outcome.broken().for_each(|line| output::note(&line));
        outcomes.push(outcome);
    }
    Report::new(outcomes, seed).shown()
}

fn drawn() -> anyhow::Result<u64> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("the operating system gives no randomness: {e}"))?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

/// Peers of the drill's own, which run, in the surroundings that the scenario needs.
fn fresh_stage(name: Name, args: &DrillArgs) -> anyhow::Result<(Stage, Option<Arc<Around>>)> {
    let mut file = Cluster::parse("drill.toml", CLUSTER)?;
    if name == Name::LyingMember {
        file.mail.audit_every = AUDITS;
    }
    let around = Around::of(name, &file)?;
    let surroundings = around.clone().map(|around| -> Arc<dyn Surroundings> { around });
    let stage = Stage::within("drill", None, file, surroundings)?;
    if let Some(around) = around.clone() {
        let made = around.clone();
        stage.at_end(move || around.remove());
        stage.act(|_| made.make())?;
    }
    if args.keep {
        output::note(&format!("its homes stay in {}", stage.cluster.home().display()));
        stage.keep_folder();
    }
    stage.cluster.up(&stage.file)?;
    Ok((stage, around))
}

/// One scenario, from the first peer to the verdicts. What hinders it hinders no other.
fn play(name: Name, home: Option<&Path>, args: &DrillArgs, seed: u64, deadline: Deadline) -> Outcome {
    let start = Instant::now();
    let made = match home {
        Some(home) => match own::why_not(name) {
            Some(why) => Err(Skipped { why: why.to_owned() }.into()),
            None => own::stage(home).map(|stage| (stage, None)),
        },
        None => fresh_stage(name, args),
    };
    let played = made.and_then(|(stage, around)| on(name, stage, around, home.is_some(), args, (seed, deadline)));
    let mut outcome = played.unwrap_or_else(|error| not_played(&name.word(), error));
    outcome.seconds = (start.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    outcome
}

/// One that cannot run on this machine, or that could not even begin.
fn not_played(scenario: &str, error: anyhow::Error) -> Outcome {
    match error.downcast::<Skipped>() {
        Ok(Skipped { why }) => Outcome::skipped(scenario, why),
        Err(error) => Outcome::failed(scenario, format!("it could not begin: {error:#}")),
    }
}

/// One scenario on its stage.
fn on(
    name: Name,
    stage: Stage,
    around: Option<Arc<Around>>,
    is_own: bool,
    args: &DrillArgs,
    (seed, deadline): (u64, Deadline),
) -> anyhow::Result<Outcome> {
    let (pace, settle) = match name {
        Name::KillStorm => (PACE_STORM, SETTLE_LONG),
        Name::Partition => (PACE, SETTLE_LONG),
        _ => (PACE, SETTLE),
    };
    let mut scene = Scene::open(stage, is_own, seed, pace, deadline)?;
    scene.around = around;
    let played = scenarios::play(name, &mut scene, args).and_then(|()| scene.finish(settle));
    let (mails, mut rules, availability) = scene.log().look(|seen| {
        let availability = availability::of(seen, scene.crew.people.len(), scene.expected.as_ref());
        (verdict::taken(seen), verdict::judge(seen), availability)
    });
    let left_out = std::mem::take(&mut scene.left_out);
    drop(scene);
    if let Err(error) = played {
        match error.downcast::<Skipped>() {
            // What was seen until then is no drill.
            Ok(Skipped { why }) => return Ok(Outcome::skipped(&name.word(), why)),
            Err(error) => {
                let why = format!("it could not go on: {error:#}");
                rules.push(RuleVerdict { rule: "R12".to_owned(), ok: false, why });
            }
        }
    }
    Ok(Outcome {
        scenario: name.word(),
        ok: rules.iter().all(|verdict| verdict.ok),
        mails,
        rules,
        left_out,
        availability: Some(availability),
        ..Outcome::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hinders_one_scenario_is_told_and_the_others_go_on() {
        let failed = not_played("disk-full", anyhow::anyhow!("no space left on device"));
        assert!(!failed.ok && failed.skipped.is_none() && failed.rules.is_empty());
        assert_eq!(failed.failed.as_deref(), Some("it could not begin: no space left on device"));
        let skipped = not_played("partition", Skipped { why: "no root".to_owned() }.into());
        assert!(skipped.ok && skipped.failed.is_none() && skipped.skipped.as_deref() == Some("no root"));
    }
}
