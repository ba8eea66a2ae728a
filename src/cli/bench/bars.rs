//! What was reached beside a bound, as SVG: a bar for each arm, a line across it for its bound. It computes nothing.

use anyhow::anyhow;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width and height, in pixels.
const SIZE: (u32, u32) = (860, 520);
/// Between the lines of a bar's name.
const LINE_HEIGHT: i32 = 18;
/// The bars; blue and orange stay apart also for most who see fewer colours.
const REACHED: RGBColor = RGBColor(86, 180, 233);
/// The bounds.
const BOUND: RGBColor = RGBColor(213, 94, 0);

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    /// Under it.
    pub(super) name: String,
    /// How high it is.
    pub(super) reached: f64,
    /// Where the line is.
    pub(super) bound: f64,
}

/// Bars, and what is written around them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bars<'a> {
    /// Above them.
    pub(super) title: String,
    /// Under the axis.
    pub(super) x: &'a str,
    /// Beside the axis, with its unit.
    pub(super) y: &'a str,
    /// The legend of the bars.
    pub(super) reached: &'a str,
    /// The legend of the lines.
    pub(super) bound: &'a str,
    /// The bars.
    pub(super) bars: Vec<Bar>,
}

/// The bars as the text of an SVG file.
///
/// # Errors
/// When there is none to draw.
pub(super) fn svg(bars: &Bars<'_>) -> anyhow::Result<String> {
    let top = bars.bars.iter().map(|bar| bar.reached.max(bar.bound)).fold(0.0, f64::max) * 1.3;
    if top <= 0.0 {
        return Err(anyhow!("a plot without bars"));
    }
    let mut svg = String::new();
    draw(&mut svg, bars, top).map_err(|error| anyhow!("the plot cannot be drawn: {error}"))?;
    Ok(svg)
}

fn draw(svg: &mut String, all: &Bars<'_>, top: f64) -> Result<(), Box<dyn std::error::Error>> {
    let bars = all.bars.as_slice();
    let right = (1..).zip(bars).map(|(at, _): (u32, _)| f64::from(at)).fold(0.0, f64::max) + 0.5;
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(&all.title, ("sans-serif", 19))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(76)
        .build_cartesian_2d(0.5..right, 0.0..top)?;
    let digits = usize::from(top < 10.0);
    let rate = |value: &f64| format!("{value:.digits$}");
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .x_desc(all.x)
        .y_desc(all.y)
        .y_label_formatter(&rate)
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    let placed = || (1..).zip(bars).map(|(at, bar): (u32, &Bar)| (f64::from(at), bar));
    let reached = placed().map(|(x, bar)| Rectangle::new([(x - 0.3, 0.0), (x + 0.3, bar.reached)], REACHED.filled()));
    let swatch = |(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], REACHED.filled());
    chart.draw_series(reached)?.label(all.reached).legend(swatch);
    let line = BOUND.stroke_width(3);
    let bounds = placed().map(|(x, bar)| PathElement::new(vec![(x - 0.4, bar.bound), (x + 0.4, bar.bound)], line));
    let stroke = move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], line);
    chart.draw_series(bounds)?.label(all.bound).legend(stroke);
    // In the middle of the bar, a line for each part of the name.
    let middle = Pos::new(HPos::Center, VPos::Center);
    let style = TextStyle::from(("sans-serif", 14).into_font()).pos(middle);
    for (x, bar) in placed() {
        let text = format!("{}: {:.1}", bar.name, bar.reached);
        for (line, part) in (0..).zip(text.split(", ")) {
            let at = EmptyElement::at((x, bar.reached.min(bar.bound) * 0.5));
            chart.draw_series([at + Text::new(part.to_owned(), (0, line * LINE_HEIGHT), style.clone())])?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.4))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_title_axes_names_and_a_legend() {
        let bar = |name: &str, reached| Bar { name: name.to_owned(), reached, bound: 100.0 };
        let all = Bars {
            title: "Fetching 64 MiB".to_owned(),
            x: "how it is kept",
            y: "rate, Mbit/s",
            reached: "reached",
            bound: "bound of it",
            bars: vec![bar("ranged", 99.0), bar("fragments", 97.5)],
        };
        let svg = svg(&all).unwrap();
        for text in [
            "Fetching 64 MiB",
            "how it is kept",
            "rate, Mbit/s",
            "ranged: 99.0",
            "fragments: 97.5",
            "reached",
            "bound of",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(super::svg(&Bars { bars: Vec::new(), ..all }).is_err());
    }
}
