//! How much of the mail that was asked for could be had, over time: from the events to a row of points, a sparkline, a chart, and
//! one figure beside the closed form. It asks nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::events::{Event, MailNo, Seen};
use crate::cli::bench::plot::{Axis, Chart, Line};
use crate::core::availability::owner_or_k_of_n;

/// Most points of a scenario.
const POINTS: u32 = 60;
/// Heights of a sparkline.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Point {
    /// Where it begins, seconds since the drill's start.
    pub(super) at_s: f64,
    /// Mails that readers whose own peers were up asked for.
    pub(super) asked: u32,
    /// Those of them that came.
    pub(super) had: u32,
    /// The share of the peers that were up, on average.
    pub(super) up: f64,
}

/// Of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Availability {
    /// Over time.
    pub(super) points: Vec<Point>,
    /// Mails that were asked for.
    pub(super) asked: u32,
    /// The share of them that came when they were asked for the first time: what did not come is asked for again and again, and
    /// would count more than what did.
    pub(super) measured: Option<f64>,
    /// What it should be, where there is a closed form for what the scenario does.
    pub(super) closed_form: Option<f64>,
    /// That form, in words.
    pub(super) form: Option<String>,
}

/// What a scenario says that is to be expected.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expected {
    /// A figure, and why.
    Share(f64, String),
    /// Peers go at random: any k of n, or the owner, with the share of time that a member was up.
    AtRandom {
        /// Fragments that a reader needs.
        k: u32,
        /// Members that hold one.
        n: u32,
    },
}

/// Of what was seen of `peers` peers.
pub(super) fn of(seen: &[Seen], peers: usize, expected: Option<&Expected>) -> Availability {
    let end = seen.last().map_or(Duration::ZERO, |last| last.at);
    let step = (end / POINTS).max(Duration::from_secs(1));
    let count = u32::try_from(end.as_millis() / step.as_millis().max(1)).unwrap_or(POINTS) + 1;
    let up = up_over_time(seen, peers, step, count);
    let mut points: Vec<Point> = up
        .into_iter()
        .zip(0_u32..)
        .map(|(up, at)| Point { at_s: (step * at).as_secs_f64(), asked: 0, had: 0, up })
        .collect();
    for Seen { at, event } in seen {
        let at = usize::try_from(at.as_millis() / step.as_millis().max(1)).unwrap_or(usize::MAX);
        let Some(point) = points.get_mut(at) else { continue };
        match event {
            Event::Opened { .. } => (point.asked, point.had) = (point.asked + 1, point.had + 1),
            Event::NotHad { answered: true, .. } => point.asked += 1,
            _ => {}
        }
    }
    let (asked, had) = first_tries(seen);
    let (closed_form, form) = match expected {
        None => (None, None),
        Some(Expected::Share(share, why)) => (Some(*share), Some(why.clone())),
        Some(Expected::AtRandom { k, n }) => {
            // Weighed by when mails were asked for: the drill's end, when everybody is up again, says nothing.
            let asked = |point: &&Point| point.asked > 0;
            let weight: f64 = points.iter().map(|point| f64::from(point.asked)).sum();
            let mean = |of: &dyn Fn(&Point) -> f64| {
                points.iter().filter(asked).map(|point| of(point) * f64::from(point.asked)).sum::<f64>() / weight
            };
            let up = mean(&|point| point.up);
            let words = format!("the owner or any {k} of {n} is up, and each was {up:.3} of the time");
            let form = mean(&|point| owner_or_k_of_n(point.up, point.up, *k, *n));
            if weight > 0.0 { (Some(form), Some(words)) } else { (None, None) }
        }
    };
    let measured = (asked > 0).then(|| f64::from(had) / f64::from(asked));
    Availability { points, asked, measured, closed_form, form }
}

/// How many mails were asked for while their readers' own peers were up, and how many of them came the first time.
fn first_tries(seen: &[Seen]) -> (u32, u32) {
    let mut tried: BTreeMap<MailNo, bool> = BTreeMap::new();
    for Seen { event, .. } in seen {
        match event {
            Event::Opened { mail, .. } => *tried.entry(*mail).or_insert(true),
            Event::NotHad { mail, answered: true } => *tried.entry(*mail).or_insert(false),
            _ => continue,
        };
    }
    let count = |all: usize| u32::try_from(all).unwrap_or(u32::MAX);
    (count(tried.len()), count(tried.values().filter(|had| **had).count()))
}

/// The share of peers that are up in each step.
fn up_over_time(seen: &[Seen], peers: usize, step: Duration, count: u32) -> Vec<f64> {
    let mut since: BTreeMap<&str, Duration> = BTreeMap::new();
    let mut spans: Vec<(Duration, Duration)> = Vec::new();
    let end = step * count;
    for Seen { at, event } in seen {
        match event {
            Event::Down { peer, .. } => {
                since.entry(peer).or_insert(*at);
            }
            Event::Up { peer } => spans.extend(since.remove(peer.as_str()).map(|from| (from, *at))),
            _ => {}
        }
    }
    spans.extend(since.into_values().map(|from| (from, end)));
    let all = f64::from(u32::try_from(peers.max(1)).unwrap_or(u32::MAX));
    let down = |at: u32| -> f64 {
        let (from, to) = (step * at, step * (at + 1));
        let within = spans.iter().map(|(gone, back)| (*back).min(to).saturating_sub((*gone).max(from)).as_secs_f64());
        within.sum::<f64>() / step.as_secs_f64()
    };
    (0..count).map(|at| (1.0 - down(at) / all).clamp(0.0, 1.0)).collect()
}

impl Availability {
    /// As one line of a terminal; a dot where nothing was asked for.
    pub(super) fn sparkline(&self) -> String {
        let top = BARS.len() - 1;
        let bar = |point: &Point| {
            let had = usize::try_from(point.had).unwrap_or_default();
            let asked = usize::try_from(point.asked).unwrap_or_default();
            (had * top).checked_div(asked).and_then(|at| BARS.get(at)).copied().unwrap_or('·')
        };
        self.points.iter().map(bar).collect()
    }

    /// As a chart.
    pub(super) fn chart(&self, scenario: &str) -> Chart {
        let had = |point: &Point| (point.at_s, f64::from(point.had) / f64::from(point.asked.max(1)));
        let asked = self.points.iter().filter(|point| point.asked > 0);
        let line = |name: &str, points, only_points| Line { name: name.to_owned(), points, only_points };
        let mut lines = vec![
            line("peers that are up", self.points.iter().map(|point| (point.at_s, point.up)).collect(), false),
            line("mails that could be had", asked.map(had).collect(), true),
        ];
        if let (Some(form), Some(last)) = (self.closed_form, self.points.last()) {
            lines.push(line("closed form, mails", vec![(0.0, form), (last.at_s.max(1.0), form)], false));
        }
        Chart {
            title: format!("Drill {scenario}: what could be had"),
            x: Axis::linear("time, s"),
            y: Axis::linear("share"),
            lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::drill::events::Gone;

    fn seen(events: Vec<(u64, Event)>) -> Vec<Seen> {
        events.into_iter().map(|(at, event)| Seen { at: Duration::from_secs(at), event }).collect()
    }

    #[test]
    fn what_was_asked_for_and_came_is_counted_by_the_second() {
        let bob = || "bob@acme".to_owned();
        let events = seen(vec![
            (0, Event::Opened { mail: 1, identical: true }),
            (1, Event::Down { peer: bob(), how: Gone::Killed }),
            (1, Event::NotHad { mail: 2, answered: true }),
            (1, Event::NotHad { mail: 3, answered: false }),
            (3, Event::Up { peer: bob() }),
            (3, Event::Opened { mail: 2, identical: true }),
        ]);
        let found = of(&events, 2, Some(&Expected::AtRandom { k: 1, n: 1 }));
        let points: Vec<(u32, u32, f64)> = found.points.iter().map(|p| (p.asked, p.had, p.up)).collect();
        assert_eq!(points, [(1, 1, 1.0), (1, 0, 0.5), (0, 0, 0.5), (1, 1, 1.0)]);
        assert_eq!((found.asked, found.measured), (2, Some(0.5)));
        assert!((found.closed_form.unwrap() - (1.0 + 0.75 + 1.0) / 3.0).abs() < 1e-9);
        assert_eq!(found.sparkline(), "█▁·█");
        assert!(found.chart("x").svg().unwrap().contains("closed form"));
    }

    #[test]
    fn a_drill_in_which_nothing_was_asked_for_has_no_figure() {
        let found = of(&[], 7, None);
        assert_eq!((found.measured, found.closed_form, found.points.len()), (None, None, 1));
    }
}
