//! The papers' own figures, from their formulas. It measures nothing.

use serde::Serialize;

use crate::cli::bench::plot::{Axis, Chart, Line};
use crate::cli::bench::report::table;
use crate::core::availability::{all_down, copies_for, newcomers_are_closer, returned_are_closer};

/// Targets of Figure 2, in percent.
const TARGETS: [f64; 4] = [99.0, 99.9, 99.99, 99.999];
/// Operations in a row of Figure 2.
const OPERATIONS: [u32; 3] = [2, 100, 10_000];
/// Probabilities of Table 2, and what is printed there.
const TABLE_2: [(f64, f64); 4] = [(0.99, 1e-10), (0.9, 1e-8), (0.5, 0.03), (0.3, 0.17)];
/// Copies of Table 2.
const TABLE_2_COPIES: u32 = 5;
/// Peers, and newcomers, for the causes of a loss.
const CAUSES: (u32, u32) = (10_000, 1_000);

/// Copies needed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Copies {
    up: f64,
    target_percent: f64,
    operations: u32,
    /// As equation 6 gives it.
    exact: f64,
    /// Rounded up: what must be kept.
    copies: f64,
}

/// One cell of Table 2.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Cell {
    up: f64,
    copies: u32,
    computed: f64,
    printed: f64,
    /// The print is what the formula gives, as far as it is rounded.
    agrees: bool,
}

/// The three causes of a loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Causes {
    up: f64,
    copies: u32,
    peers: u32,
    newcomers: u32,
    all_down: f64,
    returned_are_closer: f64,
    newcomers_are_closer: f64,
}

/// Figure 2.
pub(super) fn copies() -> Vec<Copies> {
    let mut rows = Vec::new();
    for operations in OPERATIONS {
        for target_percent in TARGETS {
            for step in 6..=19_u32 {
                let up = f64::from(step) / 20.0;
                let exact = copies_for(target_percent / 100.0, operations, up);
                rows.push(Copies { up, target_percent, operations, exact, copies: (exact - 1e-9).ceil().max(1.0) });
            }
        }
    }
    rows
}

/// Table 2.
pub(super) fn table_2() -> Vec<Cell> {
    let cell = |(up, printed): (f64, f64)| {
        let computed = all_down(up, TABLE_2_COPIES);
        Cell { up, copies: TABLE_2_COPIES, computed, printed, agrees: (computed / printed - 1.0).abs() < 0.1 }
    };
    TABLE_2.map(cell).to_vec()
}

/// Equations 1 to 3 side by side.
pub(super) fn causes() -> Vec<Causes> {
    let (peers, newcomers) = CAUSES;
    // What is down of 10 000 peers, in steps that are whole.
    let down = [(0.99, 100), (0.9, 1_000), (0.5, 5_000), (0.3, 7_000)];
    let row = |(up, down): (f64, u32)| Causes {
        up,
        copies: TABLE_2_COPIES,
        peers,
        newcomers,
        all_down: all_down(up, TABLE_2_COPIES),
        returned_are_closer: returned_are_closer(up, down, peers, TABLE_2_COPIES),
        newcomers_are_closer: newcomers_are_closer(peers, newcomers, TABLE_2_COPIES),
    };
    down.map(row).to_vec()
}

/// Figure 2 for two operations: a line a target.
pub(super) fn chart(rows: &[Copies]) -> Chart {
    let line = |target: f64| Line {
        name: format!("{target} % of {} operations", OPERATIONS[1]),
        points: rows
            .iter()
            .filter(|row| row.operations == OPERATIONS[1] && (row.target_percent - target).abs() < 1e-9)
            .map(|row| (row.up, row.copies))
            .collect(),
        only_points: false,
    };
    Chart {
        title: "Copies that are needed (Kangasharju et al., equation 6)".to_owned(),
        x: Axis::linear("a peer is up, probability"),
        y: Axis::linear("copies"),
        lines: TARGETS.map(line).to_vec(),
    }
}

/// Tables for people.
pub(super) fn text() -> String {
    let short = |value: f64| format!("{value:.1e}");
    let cells = table_2().into_iter().map(|cell| {
        let says = if cell.agrees { "" } else { "the print contradicts its formula" };
        vec![cell.up.to_string(), short(cell.computed), short(cell.printed), says.to_owned()]
    });
    let causes = causes().into_iter().map(|row| {
        vec![row.up.to_string(), short(row.all_down), short(row.returned_are_closer), short(row.newcomers_are_closer)]
    });
    let needed = copies().into_iter().filter(|row| [0.3, 0.5, 0.75, 0.9].iter().any(|up| (row.up - up).abs() < 1e-9));
    let needed = needed.map(|row| {
        let exact = format!("{:.2}", row.exact);
        vec![
            row.up.to_string(),
            format!("{} %", row.target_percent),
            row.operations.to_string(),
            exact,
            row.copies.to_string(),
        ]
    });
    format!(
        "all of {TABLE_2_COPIES} copies down (Kangasharju et al., Table 2):\n{}\n\nwhat may lose {TABLE_2_COPIES} copies, {} peers, {} newcomers:\n{}\n\n\
         copies needed (Figure 2):\n{}",
        table(&["up", "computed", "printed", ""], &cells.collect::<Vec<_>>()),
        CAUSES.0,
        CAUSES.1,
        table(&["up", "all down", "returned are closer", "newcomers are closer"], &causes.collect::<Vec<_>>()),
        table(&["up", "target", "operations", "equation 6", "copies"], &needed.collect::<Vec<_>>()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kangasharju_table_2_has_one_cell_that_contradicts_its_formula() {
        let wrong: Vec<f64> = table_2().into_iter().filter(|cell| !cell.agrees).map(|cell| cell.up).collect();
        assert_eq!(wrong, [0.9]);
        assert!(text().contains("the print contradicts its formula"));
    }

    #[test]
    fn kangasharju_figure_2_reads_as_the_paper_says() {
        let rows = copies();
        let needed = |up: f64, target: f64| {
            let row = rows.iter().find(|r| (r.up - up).abs() < 1e-9 && r.target_percent == target && r.operations == 2);
            row.unwrap().copies
        };
        for (target, next) in TARGETS.into_iter().zip(TARGETS.into_iter().skip(1)) {
            let at_eight = needed(0.8, next) - needed(0.8, target);
            let at_three = needed(0.3, next) - needed(0.3, target);
            assert!((1.0..=2.0).contains(&at_eight), "one or two copies more a nine above 0.75: {at_eight}");
            assert!((5.0..=7.0).contains(&at_three), "five to seven at 0.3: {at_three}");
        }
        assert!(chart(&rows).svg().unwrap().contains("99.999 %"));
    }
}
