//! Line charts as SVG: a title, two axes with units, a legend. It draws what it is given and computes nothing.

use anyhow::{Context as _, anyhow};
use plotters::coord::combinators::BindKeyPoints as _;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// Width and height of a chart, in pixels.
const SIZE: (u32, u32) = (1120, 520);
/// Of that, the axes and lines; the legend stands to the right of them, where it covers nothing.
const DRAWN: u32 = 780;
/// Height of a line of the legend.
const LEGEND_STEP: i32 = 24;
/// Colours of the lines, apart from each other also for most who see fewer colours (after Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

/// One axis.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Axis {
    /// What it shows, with its unit.
    pub(in crate::cli) label: String,
    /// Powers of ten instead of equal steps; values of 0 and below are left out then.
    pub(in crate::cli) log: bool,
}

impl Axis {
    /// Equal steps.
    pub(in crate::cli) fn linear(label: &str) -> Self {
        Self { label: label.to_owned(), log: false }
    }
    /// Powers of ten.
    pub(in crate::cli) fn log(label: &str) -> Self {
        Self { label: label.to_owned(), log: true }
    }
    fn shows(&self, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0)
    }
    /// From where to where it goes: a little more than the values, and `from_zero` where steps are equal and no value is below.
    fn span(&self, values: impl Iterator<Item = f64>, from_zero: bool) -> Option<(f64, f64)> {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return None;
        }
        let wide = if high > low { (high - low) * 0.05 } else { high.abs().max(1.0) * 0.05 };
        Some(match self.log {
            true => (low / 1.3, high * 1.3),
            false if from_zero && low >= 0.0 => (0.0, high + wide),
            false => (low - wide, high + wide),
        })
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Line {
    /// Its name in the legend.
    pub(in crate::cli) name: String,
    /// Its points, (x, y).
    pub(in crate::cli) points: Vec<(f64, f64)>,
    /// Only the points are drawn, not what is between them: something measured beside something computed.
    pub(in crate::cli) only_points: bool,
}

/// A chart.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Chart {
    /// What it shows.
    pub(in crate::cli) title: String,
    /// The horizontal axis.
    pub(in crate::cli) x: Axis,
    /// The vertical axis.
    pub(in crate::cli) y: Axis,
    /// The lines, in the legend's order.
    pub(in crate::cli) lines: Vec<Line>,
}

impl Chart {
    /// The chart as the text of an SVG file.
    ///
    /// # Errors
    /// When there is no point to draw.
    pub(in crate::cli) fn svg(&self) -> anyhow::Result<String> {
        let points =
            || self.lines.iter().flat_map(|line| &line.points).filter(|p| self.x.shows(p.0) && self.y.shows(p.1));
        let x = self.x.span(points().map(|p| p.0), false).context("a plot without points")?;
        let y = self.y.span(points().map(|p| p.1), true).context("a plot without points")?;
        let (x_lin, y_lin) = (x.0..x.1, y.0..y.1);
        match (self.x.log, self.y.log) {
            (false, false) => self.draw(x_lin, y_lin),
            (true, false) => self.draw(x_lin.log_scale().with_key_points(marks(x)), y_lin),
            (false, true) => self.draw(x_lin, y_lin.log_scale().with_key_points(marks(y))),
            (true, true) => {
                self.draw(x_lin.log_scale().with_key_points(marks(x)), y_lin.log_scale().with_key_points(marks(y)))
            }
        }
    }

    fn draw<X, Y>(&self, x: X, y: Y) -> anyhow::Result<String>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let failed = |error: &dyn std::fmt::Display| anyhow!("the plot cannot be drawn: {error}");
            area.fill(&WHITE).map_err(|e| failed(&e))?;
            let (left, right) = area.split_horizontally(DRAWN);
            let mut chart = ChartBuilder::on(&left)
                .caption(&self.title, ("sans-serif", 19))
                .margin(14)
                .x_label_area_size(46)
                .y_label_area_size(76)
                .build_cartesian_2d(x, y)
                .map_err(|e| failed(&e))?;
            let number = |value: &f64| number(*value);
            chart
                .configure_mesh()
                .x_desc(&self.x.label)
                .y_desc(&self.y.label)
                .x_label_formatter(&number)
                .y_label_formatter(&number)
                .label_style(("sans-serif", 14))
                .axis_desc_style(("sans-serif", 15))
                .light_line_style(WHITE.mix(0.0))
                .draw()
                .map_err(|e| failed(&e))?;
            let mut legend_y = 2 * LEGEND_STEP;
            for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
                let points: Vec<(f64, f64)> =
                    line.points.iter().copied().filter(|p| self.x.shows(p.0) && self.y.shows(p.1)).collect();
                let style = colour.stroke_width(2);
                if !line.only_points {
                    chart.draw_series(LineSeries::new(points.clone(), style)).map_err(|e| failed(&e))?;
                    let sample = PathElement::new(vec![(4, legend_y), (26, legend_y)], style);
                    right.draw(&sample).map_err(|e| failed(&e))?;
                }
                let dots = points.into_iter().map(|point| Circle::new(point, 3, colour.filled()));
                chart.draw_series(dots).map_err(|e| failed(&e))?;
                right.draw(&Circle::new((15, legend_y), 3, colour.filled())).map_err(|e| failed(&e))?;
                let name = Text::new(line.name.clone(), (34, legend_y - 7), ("sans-serif", 14));
                right.draw(&name).map_err(|e| failed(&e))?;
                legend_y += LEGEND_STEP;
            }
            area.present().map_err(|e| failed(&e))?;
        }
        Ok(svg)
    }
}

/// Where a logarithmic axis has its marks: at 1, 2 and 5 in each power of ten, and at 1 alone where there are many of those.
fn marks((low, high): (f64, f64)) -> Vec<f64> {
    let steps: &[f64] = if high / low > 1e5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = (-15..=18).flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
    all.filter(|mark| (low..=high).contains(mark)).collect()
}

/// A number on an axis, short.
fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.0e}");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(y: Axis) -> Chart {
        let line = |name: &str, only_points| Line {
            name: name.to_owned(),
            points: vec![(0.1, 1e-4), (0.5, 0.25), (0.9, 1.0)],
            only_points,
        };
        Chart {
            title: "what can be had".to_owned(),
            x: Axis::linear("peer up, probability"),
            y,
            lines: vec![line("computed", false), line("measured", true)],
        }
    }

    #[test]
    fn a_chart_has_title_axes_and_legend() {
        for axis in [Axis::linear("mails, share"), Axis::log("mails, share")] {
            let svg = chart(axis).svg().unwrap();
            for text in ["what can be had", "peer up, probability", "mails, share", "computed", "measured"] {
                assert!(svg.contains(text), "{text}");
            }
            assert!(svg.trim_end().ends_with("</svg>"));
        }
    }

    #[test]
    fn a_chart_without_points_is_an_error_and_no_empty_picture() {
        let mut empty = chart(Axis::log("share"));
        empty.lines.iter_mut().for_each(|line| line.points = vec![(1.0, 0.0)]);
        assert!(empty.svg().is_err());
    }

    #[test]
    fn numbers_on_axes_are_short() {
        let shown = [0.0, 0.5, 0.125, 20.0, 1e-5, 2e6].map(number);
        assert_eq!(shown, ["0", "0.5", "0.125", "20", "1e-5", "2e6"]);
    }

    #[test]
    fn a_logarithmic_axis_has_marks_from_end_to_end() {
        assert_eq!(marks((1.3, 30.0)), [2.0, 5.0, 10.0, 20.0]);
        assert_eq!(marks((0.5, 1e6)), [1.0, 10.0, 100.0, 1000.0, 1e4, 1e5, 1e6]);
    }
}
