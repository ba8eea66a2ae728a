//! `roost bench availability`: closed forms, draws over the real placement code, and real peers killed, side by side.

mod closed;
mod monte_carlo;
mod processes;

use serde::Serialize;

use self::closed::Copies;
use self::monte_carlo::{Draws, Failures, Kept};
use super::args::AvailabilityArgs;
use super::plot::{Axis, Chart, Line};
use super::report::{Report, table};
use crate::cli::output::Shown;
use crate::core::availability::{k_of_n, owner_or_k_of_n, with_a_common_cause};
use crate::model::Encoding;
use crate::model::policy::KOfN;

/// Of the time that a peer is down, this share is a failure of its site, in the arm of correlated failures.
const COMMON_SHARE: f64 = 0.5;
/// Members besides the owner, at least: placement has something to choose.
const OTHERS_MIN: u8 = 7;

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "part", rename_all = "kebab-case")]
enum Row {
    /// A mail can be had: three ways to know.
    Had(Had),
    /// Copies that are needed for a target (Kangasharju et al., Figure 2).
    Copies(Copies),
    /// The chance that every copy is down (Kangasharju et al., Table 2).
    Table2(closed::Cell),
    /// What may lose a mail with five copies (Kangasharju et al., equations 1 to 3).
    Causes(closed::Causes),
}

/// The share of mails that can be had.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Had {
    /// `fragments 3/5` or `whole x 3`.
    arm: String,
    /// `independent`, `one site` or `two sites`.
    failures: &'static str,
    /// `dead`, or `as others`: up as often as they are.
    owner: &'static str,
    /// The probability that a peer is up, all causes together.
    up: f64,
    /// Computed, where there is a closed form.
    closed_form: Option<f64>,
    /// Drawn.
    monte_carlo: f64,
    /// Twice the standard error of that.
    monte_carlo_error: f64,
    /// Real peers, where they were tried.
    processes: Option<f64>,
    /// Twice the standard error of that.
    processes_error: Option<f64>,
    /// Whether what real peers gave is within the 99 % interval of the closed form: as few, and as many, come up by chance more
    /// often than once in 200 times.
    processes_within_99: Option<bool>,
}

/// What was asked for.
#[derive(Debug, Serialize)]
struct Parameters {
    policy: KOfN,
    copies: u8,
    others: u8,
    up: Vec<f64>,
    draws: u32,
    trials: u32,
    trial_up: Vec<f64>,
    seed: u64,
    trials_against_the_rule: u32,
}

/// Runs it.
pub(super) fn run(args: &AvailabilityArgs) -> anyhow::Result<Shown> {
    let KOfN { k, n } = args.policy.0;
    let policies = [args.policy.0, KOfN { k: 1, n: args.copies }];
    if args.trials > 0 {
        processes::check(&format!("--policy {k}/{n}"), policies[0])?;
        processes::check(&format!("--copies {}", args.copies), policies[1])?;
    }
    let others = OTHERS_MIN.max(n).max(args.copies);
    let mut draws = Draws::new(args.seed);
    let arms = [
        (format!("fragments {k}/{n}"), Kept { encoding: Encoding::Fragments { k, n }, copies: args.copies, others }),
        (format!("whole x {}", args.copies), Kept { encoding: Encoding::Whole, copies: args.copies, others }),
    ];
    let mut had = Vec::new();
    for (name, kept) in &arms {
        for up in &args.up {
            had.extend(drawn(name, *kept, *up, args.draws, &mut draws));
        }
    }
    let mut against = 0;
    if args.trials > 0 {
        for (arm, policy) in arms.iter().zip(policies) {
            for real in processes::try_out(policy, &args.trial_up, args.trials, &mut draws)? {
                against += real.against_the_rule;
                had.extend(beside(arm, args.draws, &real, &mut draws));
            }
        }
    }
    let copies = closed::copies();
    let rows = had.iter().cloned().map(Row::Had);
    let rows = rows.chain(copies.iter().cloned().map(Row::Copies));
    let rows = rows.chain(closed::table_2().into_iter().map(Row::Table2));
    let rows = rows.chain(closed::causes().into_iter().map(Row::Causes));
    let parameters = Parameters {
        policy: args.policy.0,
        copies: args.copies,
        others,
        up: args.up.clone(),
        draws: args.draws,
        trials: args.trials,
        trial_up: args.trial_up.clone(),
        seed: args.seed,
        trials_against_the_rule: against,
    };
    let outside = outside(&had);
    let text = text(&had, against, args.trials);
    let mut report = Report::new("availability", parameters, rows.collect());
    report.plot(args.plots.plots.as_deref(), &[("had", chart(&had)), ("copies", closed::chart(&copies))])?;
    let shown = report.shown(&text)?;
    Ok(if against == 0 && outside == 0 { shown } else { shown.failed() })
}

/// In how many rows real peers gave what does not fit the closed form.
fn outside(had: &[Had]) -> usize {
    had.iter().filter(|row| row.processes_within_99 == Some(false)).count()
}

/// Twice the standard error of a share that was counted `count` times.
fn error(share: f64, count: u32) -> f64 {
    2.0 * (share * (1.0 - share) / f64::from(count.max(1))).sqrt()
}

/// All that is drawn and computed for one arm and one probability.
fn drawn(name: &str, kept: Kept, up: f64, count: u32, draws: &mut Draws) -> Vec<Had> {
    let (k, n) = match kept.encoding {
        Encoding::Whole => (1, u32::from(kept.copies)),
        Encoding::Fragments { k, n } => (u32::from(k), u32::from(n)),
    };
    let site_up = 1.0 - (1.0 - up) * COMMON_SHARE;
    let alone = up / site_up;
    let one_site = |closed: f64| Some(with_a_common_cause(1.0 - site_up, closed));
    let models = [
        ("independent", Failures::Independent { up }, Some(k_of_n(up, k, n)), Some(owner_or_k_of_n(up, up, k, n))),
        (
            "one site",
            Failures::Sites { sites: 1, site_up, up: alone },
            one_site(k_of_n(alone, k, n)),
            one_site(owner_or_k_of_n(alone, alone, k, n)),
        ),
        ("two sites", Failures::Sites { sites: 2, site_up, up: alone }, None, None),
    ];
    let mut rows = Vec::new();
    for (failures, model, dead, as_others) in models {
        let shares = monte_carlo::count(kept, model, count, draws);
        let both = [("dead", dead, shares.owner_dead), ("as others", as_others, shares.owner_as_others)];
        rows.extend(both.map(|(owner, closed_form, monte_carlo)| Had {
            arm: name.to_owned(),
            failures,
            owner,
            up,
            closed_form,
            monte_carlo,
            monte_carlo_error: error(monte_carlo, count),
            processes: None,
            processes_error: None,
            processes_within_99: None,
        }));
    }
    rows
}

/// The figures for the probability with which real peers were up, with what they gave beside them.
fn beside((name, kept): &(String, Kept), count: u32, real: &processes::Tried, draws: &mut Draws) -> Vec<Had> {
    let rows = drawn(name, *kept, real.up, count, draws);
    let rows = rows.into_iter().filter(|row| row.failures == "independent" && row.owner == "as others");
    let share = f64::from(real.opened) / f64::from(real.trials.max(1));
    rows.map(|row| Had {
        processes: Some(share),
        processes_error: Some(error(share, real.trials)),
        processes_within_99: row.closed_form.map(|p| within_99(real.opened, real.trials, p)),
        ..row
    })
    .collect()
}

/// Whether `hits` of `count` come up by chance: neither so few nor so many are rarer than once in 200 times.
fn within_99(hits: u32, count: u32, p: f64) -> bool {
    let as_many = k_of_n(p, hits, count);
    let as_few = 1.0 - k_of_n(p, hits + 1, count);
    as_many > 0.005 && as_few > 0.005
}

/// The chance at most that one of so many rows is outside of its interval though nothing is wrong. It is less, as mails are whole.
fn by_chance(rows: usize) -> f64 {
    1.0 - 0.99_f64.powi(i32::try_from(rows).unwrap_or(i32::MAX))
}

fn text(had: &[Had], against: u32, trials: u32) -> String {
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.5}"));
    let rows: Vec<Vec<String>> = had
        .iter()
        .map(|row| {
            let drawn = format!("{:.5} ±{:.5}", row.monte_carlo, row.monte_carlo_error);
            let real = row.processes.zip(row.processes_error).map(|(share, error)| format!("{share:.3} ±{error:.3}"));
            let real = real.unwrap_or_else(|| "-".to_owned());
            let within = match row.processes_within_99 {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "-",
            };
            let (failures, owner) = (row.failures.to_owned(), row.owner.to_owned());
            vec![
                row.arm.clone(),
                failures,
                owner,
                row.up.to_string(),
                shown(row.closed_form),
                drawn,
                real,
                within.to_owned(),
            ]
        })
        .collect();
    let head = ["arm", "failures", "owner", "up", "closed form", "drawn", "processes", "within 99 %"];
    let mut text = format!("the mail can be had:\n{}\n\n{}", table(&head, &rows), closed::text());
    if trials > 0 {
        text.push_str(&format!(
            "\n\nreal peers: {trials} mails tried in each row, in all {against} against the rule (k parts or the owner); each is asked \
             for again and again\nfor up to {} s, which a member needs that was just started and finds nobody to tell it what it missed",
            processes::UNTIL_SERVED.as_secs()
        ));
        let rows = had.iter().filter(|row| row.processes_within_99.is_some()).count();
        match outside(had) {
            0 => {}
            some => text.push_str(&format!(
                "\nFAILED: {some} of {rows} rows are outside of the 99 % interval; by chance alone that comes with up to {:.1} % of seeds: \
                 try another --seed",
                by_chance(rows) * 100.0
            )),
        }
    }
    text
}

fn chart(had: &[Had]) -> Chart {
    let mut lines: Vec<Line> = Vec::new();
    // Beside what real peers gave, where the owner is up as often as the others, the curve that it is to be compared with.
    let is_tried = had.iter().any(|row| row.processes.is_some());
    let is_shown =
        |row: &&Had| row.owner == "dead" || row.processes.is_some() || (is_tried && row.failures == "independent");
    for row in had.iter().filter(is_shown) {
        let value = row.processes.or(row.closed_form).unwrap_or(row.monte_carlo);
        let name = match (row.processes, row.owner) {
            (Some(_), _) => format!("{}, owner too: real peers", row.arm),
            (None, "dead") => format!("{}, {}", row.arm, row.failures),
            (None, _) => format!("{}, owner too", row.arm),
        };
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push((row.up, 1.0 - value)),
            None => {
                lines.push(Line { name, points: vec![(row.up, 1.0 - value)], only_points: row.processes.is_some() })
            }
        }
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    Chart {
        title: "Mails that cannot be had, the owner being dead where it is not said".to_owned(),
        x: Axis::linear("a peer is up, probability"),
        y: Axis::log("mails that cannot be had, share"),
        lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_outside_of_its_interval_is_told_and_counts_and_so_is_how_long_a_mail_is_asked_for() {
        let kept = Kept { encoding: Encoding::Whole, copies: 3, others: 7 };
        let real = |opened| processes::Tried { up: 0.5, trials: 500, opened, against_the_rule: 0 };
        let row = |opened| beside(&("whole x 3".to_owned(), kept), 10, &real(opened), &mut Draws::new(1));
        // The owner or one of three is up: 15 of 16.
        let (good, bad) = (row(469), row(400));
        assert_eq!((outside(&good), outside(&bad)), (0, 1));
        assert!(text(&good, 0, 500).contains("for up to 80 s") && !text(&good, 0, 500).contains("FAILED"));
        assert!(text(&bad, 0, 500).contains("FAILED: 1 of 1 rows"), "{}", text(&bad, 0, 500));
    }

    /// What the help and the README say of the six rows that are tried by default.
    #[test]
    fn how_many_seeds_fail_by_chance_is_as_it_is_said() {
        let fails = |trials: u32| {
            let arms = [(3, 5), (1, 3)].into_iter().flat_map(|(k, n)| [0.9, 0.7, 0.5].map(|up| (k, n, up)));
            let holds = arms.map(|(k, n, up)| {
                let p = owner_or_k_of_n(up, up, k, n);
                let within = (0..=trials).filter(|hits| within_99(*hits, trials, p));
                within.map(|hits| k_of_n(p, hits, trials) - k_of_n(p, hits + 1, trials)).sum::<f64>()
            });
            1.0 - holds.product::<f64>()
        };
        let (few, many) = (fails(30), fails(500));
        assert!((0.014..0.016).contains(&few) && (0.027..0.030).contains(&many), "{few} {many}");
        assert!((0.058..0.059).contains(&by_chance(6)) && many < by_chance(6));
    }

    #[test]
    fn what_cannot_be_tried_is_said_before_anything_is_drawn_or_started() {
        let args = |policy: &str, copies, trials| AvailabilityArgs {
            policy: policy.parse().unwrap(),
            copies,
            up: vec![0.9],
            draws: 1,
            trials,
            trial_up: vec![0.9],
            seed: 1,
            plots: crate::cli::bench::args::PlotArgs::default(),
        };
        let error = |policy: &str, copies| run(&args(policy, copies, 30)).unwrap_err().to_string();
        assert!(error("3/5", 13).starts_with("--copies 13 cannot be tried"));
        assert!(error("3/13", 3).starts_with("--policy 3/13 cannot be tried"));
        assert!(run(&args("3/13", 13, 0)).is_ok(), "draws alone start nothing");
    }

    #[test]
    fn what_comes_up_once_in_two_hundred_times_is_outside() {
        // 500 throws of a coin: 221 to 279 are the 99 % interval.
        assert!(within_99(250, 500, 0.5) && within_99(222, 500, 0.5) && within_99(278, 500, 0.5));
        assert!(!within_99(220, 500, 0.5) && !within_99(280, 500, 0.5));
        assert!(within_99(500, 500, 0.9999) && !within_99(490, 500, 0.9999) && !within_99(0, 500, 0.5));
    }

    #[test]
    fn what_is_drawn_is_within_its_error_of_what_is_computed() {
        let kept = Kept { encoding: Encoding::Fragments { k: 3, n: 5 }, copies: 3, others: 7 };
        let rows = drawn("fragments 3/5", kept, 0.7, 20_000, &mut Draws::new(3));
        assert_eq!(rows.len(), 6);
        for row in rows.iter().filter(|row| row.closed_form.is_some()) {
            let off = (row.monte_carlo - row.closed_form.unwrap()).abs();
            assert!(off < 3.0 * row.monte_carlo_error, "{row:?}");
        }
        let whole = Kept { encoding: Encoding::Whole, ..kept };
        let whole = drawn("whole x 3", whole, 0.7, 20_000, &mut Draws::new(3));
        let at = |failures| whole.iter().find(|row| row.failures == failures).unwrap().monte_carlo;
        assert!(at("one site") < at("two sites"), "a second site helps whole copies");
        let svg = chart(&rows).svg().unwrap();
        assert!(svg.contains("two sites") && !svg.contains("owner too"), "as nothing was tried");
        let tried = Had { processes: Some(0.93), ..rows[1].clone() };
        let tried = chart(&[rows, vec![tried]].concat());
        let named = |name: &str| tried.lines.iter().find(|line| line.name == name).map(|line| line.points.len());
        assert_eq!(named("fragments 3/5, owner too"), Some(1));
        assert_eq!(named("fragments 3/5, owner too: real peers"), Some(1));
    }
}
