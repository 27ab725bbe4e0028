//! The picture of `suggest --plot`: norms by step and their histogram over one axis, crossed by the
//! lines of the statistics.

use plotters::element::{Circle, Cross, PathElement, Rectangle};
use plotters::style::{BLACK, Color, RGBColor};

use crate::commands::suggest::stats::{PERCENTILES, Statistics};
use crate::failure::Failure;
use crate::plot::axis::{Axis, Scale};
use crate::plot::style::{self, Area, BLUE, Chart, Error, FOOT, GREEN, GREY, Label, Named, ORANGE, Stroke};
use crate::text;

/// Pixels of the whole, and of its parts from the left and from above.
const SIZE: (u32, u32) = (1080, 560);
const TITLE: u32 = 74;
const STEPS: u32 = 700;
const BINS: u32 = 190;
/// More steps than these have no dot each.
const DOTS: usize = 200;

#[derive(Debug)]
pub(crate) struct Plot<'a> {
    /// By step, `None` where gradients were not finite.
    pub(crate) norms: &'a [Option<f64>],
    pub(crate) statistics: &'a Statistics,
    /// How the norm type is called.
    pub(crate) kind: &'a str,
    /// The percentile that is suggested, and its value.
    pub(crate) percentile: (f64, f64),
}

/// A value that a line across the picture shows.
struct Line {
    value: f64,
    label: String,
    stroke: Stroke,
}

/// Draws the picture.
pub(crate) fn svg(plot: &Plot<'_>) -> Result<String, Failure> {
    style::svg(SIZE, |root| {
        plot.title(root)?;
        let (_, body) = root.split_vertically(TITLE);
        let (left, rest) = body.split_horizontally(STEPS);
        let (middle, _) = rest.split_horizontally(BINS);
        let norms = plot.norm_axis();
        let lines = plot.lines();
        let steps = plot.steps(&left, &norms, &lines)?;
        let bins = plot.bins(&middle, &norms, &lines)?;
        labels(root, &steps, &bins, &lines)
    })
}

impl Plot<'_> {
    fn title(&self, root: &Area<'_>) -> Result<(), Error> {
        let steps = text::counted(self.norms.len() as u64, "step");
        let title = format!("Gradient norms of {steps}");
        let (percentile, value) = self.percentile;
        let mut below = format!("suggested threshold {}: percentile {percentile}", text::short(value));
        let left_out = (self.norms.len() - self.statistics.steps()) as u64;
        if left_out > 0 {
            below += &format!(". Non-finite gradients left out: {} (×)", text::counted(left_out, "step"));
        }
        style::title(root, title, vec![below])
    }

    /// The axis that both halves share.
    fn norm_axis(&self) -> Axis {
        let histogram = &self.statistics.histogram;
        let largest = self.statistics.largest();
        if !histogram.log {
            return Axis::around(self.statistics.least(), largest, Scale::Linear);
        }
        // Zeros lie on the lower end.
        let positive = self.norms.iter().flatten().copied().filter(|&n| n > 0.0).fold(largest, f64::min);
        Axis::around(positive, largest, Scale::Log)
    }

    /// From the least important.
    fn lines(&self) -> Vec<Line> {
        let line = |what: &str, value: f64, colour: RGBColor, width: u32| {
            let label = format!("{what} {}", text::rough(value));
            Line { value, label, stroke: Stroke { colour, width, dashed: false } }
        };
        let (suggested, value) = self.percentile;
        let other = PERCENTILES.into_iter().filter(|&p| f64::from(p) != suggested);
        let percentile =
            |p: u8| line(&format!("percentile {p}:"), self.statistics.percentile(p.into()), GREY, 1);
        let mut lines: Vec<Line> = other.map(percentile).collect();
        lines.push(line("mean:", self.statistics.mean, GREEN, 2));
        lines.push(line("suggested:", value, ORANGE, 2));
        lines
    }

    /// The left half.
    fn steps<'s>(&self, area: &Area<'s>, norms: &Axis, lines: &[Line]) -> Result<Chart<'s>, Error> {
        let mut chart = style::chart(area, 78, Axis::counting(self.norms.len()), norms)?;
        mesh(&mut chart, "step", &format!("norm ({})", self.kind), 8)?;
        across(&mut chart, lines)?;
        let point = |(i, norm): (usize, &Option<f64>)| norm.map(|norm| ((i + 1) as f64, norm));
        let points: Vec<Option<(f64, f64)>> = self.norms.iter().enumerate().map(point).collect();
        for run in points.split(Option::is_none) {
            let run: Vec<(f64, f64)> = run.iter().flatten().copied().collect();
            if run.len() == 1 || self.norms.len() <= DOTS {
                chart.draw_series(run.iter().map(|&p| Circle::new(p, 3, BLUE.filled())))?;
            }
            chart.draw_series([PathElement::new(run, BLUE.stroke_width(1))])?;
        }
        let top = norms.high();
        let missing =
            points.iter().enumerate().filter(|(_, p)| p.is_none()).map(|(i, _)| ((i + 1) as f64, top));
        chart.draw_series(missing.map(|p| Cross::new(p, 4, BLACK.stroke_width(2))))?;
        Ok(chart)
    }

    /// The right half.
    fn bins<'s>(&self, area: &Area<'s>, norms: &Axis, lines: &[Line]) -> Result<Chart<'s>, Error> {
        let histogram = &self.statistics.histogram;
        let most = histogram.counts.iter().copied().max().unwrap_or(1) as f64;
        let mut chart = style::chart(area, 0, Axis::exactly(0.0, most * 1.08, Scale::Whole), norms)?;
        mesh(&mut chart, "steps", "", 4)?;
        let bars = histogram.counts.iter().zip(histogram.edges.windows(2)).filter(|(count, _)| **count > 0);
        chart.draw_series(bars.map(|(&count, edges)| {
            // All norms the same make a bin without width.
            let (low, high) =
                if edges[0] == edges[1] { (norms.low(), norms.high()) } else { (edges[0], edges[1]) };
            let mut bar = Rectangle::new([(0.0, low), (count as f64, high)], BLUE.mix(0.55).filled());
            bar.set_margin(1, 1, 0, 0);
            bar
        }))?;
        across(&mut chart, lines)?;
        Ok(chart)
    }
}

fn mesh(chart: &mut Chart<'_>, x: &str, y: &str, numbers: usize) -> Result<(), Error> {
    let named = |name, numbers| Named { name, numbers, format: |number| text::short(*number) };
    style::mesh(chart, &named(x, numbers), &named(y, 10))
}

/// Draws the lines over the whole width.
fn across(chart: &mut Chart<'_>, lines: &[Line]) -> Result<(), Error> {
    let x = chart.x_range();
    let line =
        |line: &Line| PathElement::new(vec![(x.start, line.value), (x.end, line.value)], line.stroke.style());
    chart.draw_series(lines.iter().map(line))?;
    Ok(())
}

/// Joins the lines of both halves, and names them at the right.
fn labels(root: &Area<'_>, steps: &Chart<'_>, bins: &Chart<'_>, lines: &[Line]) -> Result<(), Error> {
    let mut named = Vec::new();
    for line in lines {
        let left = steps.backend_coord(&(steps.x_range().end, line.value)).0;
        let (right, y) = bins.backend_coord(&(bins.x_range().start, line.value));
        line.stroke.draw(root, vec![(left, y), (right, y)])?;
        let end = bins.backend_coord(&(bins.x_range().end, line.value));
        named.push(Label { text: &line.label, stroke: line.stroke, end });
    }
    style::labels(root, named, (TITLE as i32 + 10, (SIZE.1 - FOOT) as i32 - 10))
}
