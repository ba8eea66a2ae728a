//! What a bench of look-ups shows people: tables and plots, from its rows. It computes nothing new.

use super::Checked;
use super::churn::Churn;
use super::groups::Groups;
use super::look_ups::{Figures, LookUps, Tables, chord};
use crate::cli::bench::plot::{Axis, Chart, Line};
use crate::cli::bench::report::table;

/// All of it.
pub(super) fn text(looked: &[LookUps], checked: &[Checked], churned: &[Churn], grouped: Option<&Groups>) -> String {
    let mut parts = vec![look_ups(looked)];
    if !checked.is_empty() {
        parts.push(checks(checked));
    }
    if !churned.is_empty() {
        parts.push(churn(churned));
    }
    parts.extend(grouped.map(groups));
    parts.join("\n\n")
}

/// How a row came to be.
fn by(row: &LookUps) -> &'static str {
    match (row.model, row.tables) {
        (false, _) => "swarms",
        (true, Tables::Own) => "model, their tables",
        (true, Tables::Drawn) => "model, drawn tables",
    }
}

fn three(figures: &Figures) -> [String; 3] {
    [format!("{}", figures.median), format!("{:.2}", figures.mean), format!("{}", figures.p99)]
}

fn look_ups(looked: &[LookUps]) -> String {
    let mut sorted: Vec<&LookUps> = looked.iter().collect();
    sorted.sort_by_key(|row| (row.peers, row.model, row.tables == Tables::Drawn));
    let cells = |row: &&LookUps| {
        let mut cells = vec![by(row).to_owned(), row.peers.to_string(), format!("{:.2}", row.chord)];
        cells.extend(three(&row.messages));
        cells.extend(three(&row.hops));
        cells.push(format!("{:.1}", row.right * 100.0));
        cells.push(format!("{:.1}", row.mean_table));
        cells.push(row.ms.map_or_else(|| "-".to_owned(), |ms| format!("{:.1}", ms.median)));
        cells.push(row.bytes_a_peer.map_or_else(|| "-".to_owned(), |bytes| (bytes >> 10).to_string()));
        cells
    };
    let head = [
        "by",
        "peers",
        "½ log2 N",
        "messages",
        "mean",
        "99 %",
        "hops",
        "mean",
        "99 %",
        "right %",
        "table",
        "ms",
        "KiB/peer",
    ];
    let rows: Vec<Vec<String>> = sorted.iter().map(cells).collect();
    format!(
        "look-ups of the 8 closest peers. Messages: peers asked, each of which answers; medians first. Hops: peers asked one after\n\
         the other until the closest was. Right: exactly the closest were found.\n{}",
        table(&head, &rows)
    )
}

fn checks(checked: &[Checked]) -> String {
    let cells = |row: &Checked| {
        let [swarms, own, drawn] = row.messages;
        let [hops, drawn_hops] = row.hops;
        vec![
            row.peers.to_string(),
            format!("{swarms:.2}"),
            format!("{own:.2}"),
            format!("{drawn:.2}"),
            format!("{:.1}", row.messages_off * 100.0),
            format!("{hops:.2}"),
            format!("{drawn_hops:.2}"),
        ]
    };
    let head = ["peers", "messages", "own tables", "drawn tables", "off %", "hops", "drawn tables"];
    let rows: Vec<Vec<String>> = checked.iter().map(cells).collect();
    format!("the model where real swarms were measured, means:\n{}", table(&head, &rows))
}

fn churn(churned: &[Churn]) -> String {
    let cells = |row: &Churn| {
        let share = |part: u32, all: u32| match all {
            0 => "-".to_owned(),
            all => format!("{:.2}", f64::from(part) * 100.0 / f64::from(all)),
        };
        vec![
            row.leave_a_minute.to_string(),
            row.mean_stay_s.map_or_else(|| "-".to_owned(), |s| format!("{s:.0}")),
            row.left.to_string(),
            (row.puts + row.gets + row.dels).to_string(),
            share(row.puts - row.puts_failed, row.puts),
            share(row.gets_whole, row.gets - row.unanswered),
            (row.unanswered + row.unanswered_at_rest).to_string(),
            share(row.values_read, row.values_due),
            row.values_wrong.to_string(),
            share(row.dels - row.dels_failed, row.dels),
            format!("{:.2}", row.whole_at_rest * 100.0),
            format!("{:.2}", row.look_up_messages),
            format!("{:.2}", row.entry_messages),
            format!("{:.0}", row.join_messages),
            format!("{:.0}", row.get_ms.median),
        ]
    };
    let head = [
        "leave/min",
        "stay s",
        "left",
        "operations",
        "puts %",
        "gets %",
        "unanswered",
        "values %",
        "wrong",
        "dels %",
        "at rest %",
        "look-up/op",
        "entries/op",
        "join",
        "get ms",
    ];
    let rows: Vec<Vec<String>> = churned.iter().map(cells).collect();
    let peers = churned.first().map_or(0, |row| row.peers);
    format!(
        "{peers} peers, of which some leave without a word and as many come, while entries are put, read and deleted. Gets: reads that\n\
         brought every value that must be there, of those that were answered. Unanswered: reads that failed or, where nobody leaves, lack\n\
         something while not all who were asked answered, as on a busy machine; also at rest. Wrong: values read that were deleted, or never put. Messages: peers asked in look-ups,\n\
         and requests about entries, for each operation, with what holders hand over by themselves; and peers asked by one that comes.\n{}",
        table(&head, &rows)
    )
}

fn groups(row: &Groups) -> String {
    let mut text = format!(
        "{} peers in {} groups, {:.1} h of virtual time in {:.0} s; {} failures, a member is up {:.1} % of the time:\n\
         - {:.1} heartbeats a minute by each member, {:.1} requests and answers; {:.0} by the busiest, an acting master\n\
         - {:.2} reads and puts in the DHT an hour by each, {:.1} events made durable a day\n\
         - another member to act {} times; {} of {} members asked named the right one; {} views seen\n\
         - of {} members silent for longer than lost_after, at a look, {} were called lost; {} that were up\n\
         - the newest gd was in the DHT at {} of {} looks\n\
         - the largest state of a brain: {} bytes when its group was founded, {} at the end\n\
         - when nothing happens: {:.1} requests and answers a minute by each, {:.0} by the busiest; {} events made durable",
        row.peers,
        row.groups,
        row.virtual_h,
        row.seconds,
        row.failures,
        row.up * 100.0,
        row.beats_a_minute,
        row.messages_a_minute,
        row.busiest_a_minute,
        row.dht_an_hour,
        row.events_a_day,
        row.masters,
        row.agreed,
        row.asked,
        row.views,
        row.lost_due,
        row.lost_named,
        row.lost_wrong,
        row.gd_found,
        row.gd_looks,
        row.state_bytes_at_first,
        row.state_bytes_at_last,
        row.rest_messages_a_minute,
        row.rest_busiest_a_minute,
        row.rest_events,
    );
    for fault in &row.faults {
        text.push_str(&format!("\n- {fault}"));
    }
    text
}

/// Messages and hops by the number of peers, what was measured as points and what was computed as lines.
pub(super) fn charts(looked: &[LookUps]) -> Vec<(&'static str, Chart)> {
    let points = |model: bool, y: &dyn Fn(&LookUps) -> f64| {
        let rows = looked.iter().filter(|row| row.model == model && (row.tables == Tables::Drawn) == model);
        let mut points: Vec<(f64, f64)> = rows.map(|row| (f64::from(row.peers), y(row))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let line =
        |name: &str, points: Vec<(f64, f64)>, only_points: bool| Line { name: name.to_owned(), points, only_points };
    let mut peers: Vec<u32> = looked.iter().map(|row| row.peers).collect();
    peers.sort_unstable();
    peers.dedup();
    let chords: Vec<(f64, f64)> = peers.into_iter().map(|n| (f64::from(n), chord(n))).collect();
    let chart = |title: &str, y: &str, lines: Vec<Line>| Chart {
        title: title.to_owned(),
        x: Axis::log("peers"),
        y: Axis::linear(y),
        lines,
    };
    let messages = vec![
        line("model, mean", points(true, &|row| row.messages.mean), false),
        line("model, 99 %", points(true, &|row| row.messages.p99), false),
        line("Chord: ½ log2 N", chords.clone(), false),
        line("real swarms, mean", points(false, &|row| row.messages.mean), true),
        line("real swarms, 99 %", points(false, &|row| row.messages.p99), true),
    ];
    // libp2p does not tell hops: these are the model's walk over the tables that the swarms had.
    let hops = vec![
        line("model, mean", points(true, &|row| row.hops.mean), false),
        line("model, 99 %", points(true, &|row| row.hops.p99), false),
        line("Chord: ½ log2 N", chords, false),
        line("model, over real swarms' tables, mean", points(false, &|row| row.hops.mean), true),
        line("model, over real swarms' tables, 99 %", points(false, &|row| row.hops.p99), true),
    ];
    vec![
        ("messages", chart("Peers that a look-up of the 8 closest asks", "peers asked", messages)),
        ("hops", chart("Peers asked one after the other until the closest is", "hops", hops)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::{checked, look_ups};
    use super::*;

    #[test]
    fn a_table_and_charts_come_of_rows_and_the_model_is_told_from_what_was_measured() {
        let drawn = |peers| look_ups::modelled(peers, 50, 1);
        let own = |peers| LookUps { tables: Tables::Own, ..drawn(peers) };
        let swarms = |peers| LookUps { model: false, ms: Some(Figures::default()), ..own(peers) };
        let rows = vec![swarms(10), own(10), drawn(10), swarms(100), own(100), drawn(100), drawn(1000)];
        let checked = checked(&rows);
        assert_eq!(
            checked.iter().map(|row| (row.peers, row.messages_off)).collect::<Vec<_>>(),
            [(10, 0.0), (100, 0.0)]
        );
        let churned = [Churn {
            peers: 100,
            leave_a_minute: 30,
            gets: 9,
            unanswered: 1,
            gets_whole: 6,
            unanswered_at_rest: 1233,
            ..Churn::default()
        }];
        let grouped = Groups { peers: 1000, groups: 10, faults: vec!["a fault".to_owned()], ..Groups::default() };
        let text = text(&rows, &checked, &churned, Some(&grouped));
        for told in [
            "swarms ",
            "model, their tables",
            "model, drawn tables",
            "75.00",
            " 1234 ",
            "1000 peers in 10 groups",
            "a fault",
        ] {
            assert!(text.contains(told), "{told}: {text}");
        }
        for (name, chart) in charts(&rows) {
            let points: Vec<(bool, usize)> = chart.lines.iter().map(|l| (l.only_points, l.points.len())).collect();
            assert_eq!(points, [(false, 3), (false, 3), (false, 3), (true, 2), (true, 2)]);
            let svg = chart.svg().unwrap();
            let swarms = if name == "hops" { "model, over real swarms" } else { "real swarms, mean" };
            assert!(svg.contains("Chord: ½ log2 N") && svg.contains(swarms), "{svg}");
            assert!(name != "hops" || !svg.contains(">real swarms"), "hops of swarms are computed: {svg}");
        }
        // Without swarms and groups there is still the model.
        assert!(super::text(&[drawn(10)], &[], &[], None).contains("look-ups"));
    }
}
