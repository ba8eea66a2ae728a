//! `roost bench lookup`: what a look-up in the DHT costs by the number of peers, beside Chord's ½ log2 N: real swarms in one process,
//! and a model for more of them that is checked against those; puts, reads and deletions while peers leave and join; and the
//! brains of whole groups under virtual time.

pub(super) mod args;
mod churn;
mod groups;
mod look_ups;
mod model;
mod shown;
mod swarms;

use anyhow::Context as _;
use serde::Serialize;

use self::churn::Churn;
use self::groups::Groups;
use self::look_ups::{LookUps, Tables};
use self::swarms::Swarms;
use super::report::Report;
use crate::cli::output::Shown;
use crate::cli::progress::Progress;
use args::LookupArgs;

/// Fewer look-ups than this share that find exactly the closest are a fault: the rest is peers that meet meanwhile.
const RIGHT_MIN: f64 = 0.95;
/// A model that is off by more than this share of what was measured is none.
const OFF_MAX: f64 = 0.15;

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "part", rename_all = "kebab-case")]
enum Row {
    /// Look-ups among one number of peers.
    LookUp(LookUps),
    /// Puts, reads and deletions while peers leave and join.
    Churn(Churn),
    /// Group brains under virtual time.
    Groups(Groups),
}

/// With what a bench ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Parameters {
    peers: Vec<u32>,
    model: Vec<u32>,
    look_ups: u32,
    churn_a_minute: Vec<u32>,
    churn_peers: u32,
    churn_s: u64,
    group_peers: u32,
    group_s: u64,
    seed: u64,
    transport: &'static str,
    messages_counted_by: &'static str,
    hops_counted_by: &'static str,
}

/// What the model says where real swarms were measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Checked {
    peers: u32,
    /// Messages a look-up, the mean: real swarms, the model over their own tables, the model over drawn ones.
    messages: [f64; 3],
    /// Hops: over the tables of the swarms, and over drawn ones.
    hops: [f64; 2],
    /// By how much of what was measured the drawn model's messages are off.
    messages_off: f64,
}

/// The runtime of the peers of a bench: actors on this thread, swarms on two others.
fn system() -> anyhow::Result<actix::SystemRunner> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let mut runtime = Some(runtime.context("the runtime does not start")?);
    // It is asked for once.
    Ok(actix::System::with_tokio_rt(move || runtime.take().unwrap_or_else(|| unreachable!("asked twice"))))
}

/// Does what was asked.
pub(super) fn run(args: &LookupArgs) -> anyhow::Result<Shown> {
    let progress = Progress::start("swarms");
    let system = system()?;
    let (mut looked, churned) = system.block_on(async {
        let looked = look_ups(args, &progress).await?;
        anyhow::Ok((looked, churn(args, &progress).await?))
    })?;
    for count in sorted(args.peers.iter().chain(&args.model)) {
        progress.at(&format!("the model of {count} peers"), None);
        looked.push(look_ups::modelled(count, args.look_ups, args.seed));
    }
    let span = args.group_for.duration();
    let grouped =
        (args.group_peers > 0).then(|| groups::run(args.group_peers, span, args.seed, &progress)).transpose()?;
    drop(progress);
    let checked = checked(&looked);
    let faults = faults(&looked, &checked, &churned);
    let holds = faults.is_empty() && grouped.as_ref().is_none_or(Groups::holds);
    let mut text = shown::text(&looked, &checked, &churned, grouped.as_ref());
    text.extend(faults.iter().map(|fault| format!("\nFAULT: {fault}")));
    let charts = shown::charts(&looked);
    let rows = looked.into_iter().map(Row::LookUp).chain(churned.into_iter().map(Row::Churn));
    let rows = rows.chain(grouped.into_iter().map(Row::Groups)).collect();
    let mut report = Report::new("lookup", parameters(args), rows);
    report.findings.insert("model_checked".to_owned(), serde_json::to_value(&checked)?);
    report.findings.insert("faults".to_owned(), serde_json::to_value(&faults)?);
    report.plot(args.plots.plots.as_deref(), &charts)?;
    let shown = report.shown(&text)?;
    Ok(if holds { shown } else { shown.failed() })
}

/// What makes the command fail, a sentence each: an answer that is wrong, and a model that is not one. Of the model that is seen by its
/// messages alone: hops of swarms are not measured, but are the model's own walk over their tables, and fit it by construction.
fn faults(looked: &[LookUps], checked: &[Checked], churned: &[Churn]) -> Vec<String> {
    let mut faults = Vec::new();
    for row in looked.iter().filter(|row| !row.model && row.right < RIGHT_MIN) {
        faults.push(format!(
            "{} swarms found exactly the closest in {:.1} % of look-ups",
            row.peers,
            row.right * 100.0
        ));
    }
    for row in checked.iter().filter(|row| row.messages_off > OFF_MAX) {
        let off = row.messages_off * 100.0;
        faults.push(format!("at {} peers the model asks {off:.0} % more or fewer than swarms do", row.peers));
    }
    for row in churned {
        let at = format!("while {} peers left a minute", row.leave_a_minute);
        if row.values_wrong > 0 {
            faults.push(format!("{} values were read {at} that were deleted, or never put", row.values_wrong));
        }
        // Else a DHT that never answers would have lost nothing.
        if row.gets > 0 && row.unanswered == row.gets {
            faults.push(format!("none of {} reads was answered {at}", row.gets));
        }
        // Of peers that leave without a word, what they alone had goes with them; else nothing may be missing. What was not answered
        // says nothing of that.
        if row.leave_a_minute == 0 && (row.values_read < row.values_due || row.whole_at_rest < 1.0) {
            let (read, due, whole) = (row.values_read, row.values_due, row.whole_at_rest * 100.0);
            faults.push(format!("{read} of {due} values were read {at}, and {whole:.1} % of keys were whole at rest"));
        }
    }
    faults
}

fn parameters(args: &LookupArgs) -> Parameters {
    Parameters {
        peers: args.peers.clone(),
        model: args.model.clone(),
        look_ups: args.look_ups,
        churn_a_minute: args.churn.clone(),
        churn_peers: args.churn_peers,
        churn_s: args.churn_for.duration().as_secs(),
        group_peers: args.group_peers,
        group_s: args.group_for.duration().as_secs(),
        seed: args.seed,
        transport: "libp2p memory transport with Noise and Yamux, one process",
        messages_counted_by: "libp2p's query statistics: peers asked; each answers once",
        hops_counted_by: "the same look-up walked over the swarms' routing tables",
    }
}

fn sorted<'a>(all: impl Iterator<Item = &'a u32>) -> Vec<u32> {
    let mut all: Vec<u32> = all.copied().collect();
    all.sort_unstable();
    all.dedup();
    all
}

async fn look_ups(args: &LookupArgs, progress: &Progress) -> anyhow::Result<Vec<LookUps>> {
    let mut rows = Vec::new();
    for count in sorted(args.peers.iter()) {
        let mut swarms = Swarms::start(count, args.seed, progress).await?;
        progress.at(&format!("{count} peers: look-ups"), None);
        rows.extend(look_ups::real(&mut swarms, args.look_ups, args.seed).await?);
        swarms.stop().await;
    }
    Ok(rows)
}

async fn churn(args: &LookupArgs, progress: &Progress) -> anyhow::Result<Vec<Churn>> {
    let mut rows = Vec::new();
    if args.churn_peers < 2 {
        return Ok(rows);
    }
    for leave_a_minute in sorted(args.churn.iter()) {
        let mut swarms = Swarms::start(args.churn_peers, args.seed, progress).await?;
        rows.push(churn::run(&mut swarms, leave_a_minute, args.churn_for.duration(), progress).await?);
        swarms.stop().await;
    }
    Ok(rows)
}

/// Where real swarms and the model ran.
fn checked(looked: &[LookUps]) -> Vec<Checked> {
    let of = |peers: u32, model: bool, tables: Tables| {
        looked.iter().find(|row| (row.peers, row.model, row.tables) == (peers, model, tables))
    };
    let at = |real: &LookUps| {
        let (own, drawn) = (of(real.peers, true, Tables::Own)?, of(real.peers, true, Tables::Drawn)?);
        let messages = [real.messages.mean, own.messages.mean, drawn.messages.mean];
        Some(Checked {
            peers: real.peers,
            messages,
            hops: [real.hops.mean, drawn.hops.mean],
            messages_off: (messages[2] - messages[0]).abs() / messages[0].max(1.0),
        })
    };
    looked.iter().filter(|row| !row.model).filter_map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_answers_lost_values_and_a_model_that_is_off_are_faults() {
        let model = look_ups::modelled(30, 20, 1);
        let swarms = LookUps { model: false, tables: Tables::Own, right: 0.86, ..model.clone() };
        let off = |messages_off| Checked { peers: 30, messages: [10.0, 10.0, 12.0], hops: [1.0, 1.0], messages_off };
        let still = Churn { values_due: 9, values_read: 9, whole_at_rest: 1.0, ..Churn::default() };
        assert!(faults(std::slice::from_ref(&model), &[off(0.06)], std::slice::from_ref(&still)).is_empty());
        let found = faults(&[model, swarms], &[off(0.2)], &[]);
        assert!(found[0].starts_with("30 swarms found exactly the closest in 86.0 %"), "{found:?}");
        assert!(found[1].starts_with("at 30 peers the model asks 20 %") && found.len() == 2, "{found:?}");
        let lost = Churn { values_read: 8, ..still.clone() };
        let left = Churn { leave_a_minute: 30, ..lost.clone() };
        let wrong = Churn { values_wrong: 1, ..still.clone() };
        assert_eq!((faults(&[], &[], &[lost, wrong]).len(), faults(&[], &[], &[left]).len()), (2, 0));
        let busy = Churn { gets: 20, unanswered: 19, unanswered_at_rest: 3, ..still };
        let dead = Churn { unanswered: 20, ..busy.clone() };
        assert!(faults(&[], &[], &[busy]).is_empty(), "what was not answered is not missing");
        assert!(faults(&[], &[], &[dead])[0].starts_with("none of 20 reads was answered"));
    }
}
