//! The picture of `suggest --plot`: norms by step and their histogram over one axis, crossed by the
//! lines of the statistics.

use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, Cross, PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color, IntoFont, RGBColor, ShapeStyle, TextStyle, WHITE};

use crate::failure::Failure;
use crate::plot_axis::{Axis, Scale};
use crate::stats::{PERCENTILES, Statistics};
use crate::text;

/// Pixels of the whole, and of its parts from the left and from above.
const SIZE: (u32, u32) = (1080, 560);
const TITLE: u32 = 74;
const STEPS: u32 = 700;
const BINS: u32 = 190;
/// Below the axes, for their numbers and names.
const FOOT: u32 = 52;
/// Distance of the labels at the right.
const LINE: i32 = 18;
/// More steps than these have no dot each.
const DOTS: usize = 200;

// Colours that can be told apart by nearly everybody (Okabe and Ito).
const BLUE: RGBColor = RGBColor(0, 114, 178);
const ORANGE: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 135, 98);
const GREY: RGBColor = RGBColor(110, 110, 110);
const PALE: RGBColor = RGBColor(232, 232, 232);

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

type Error = Box<dyn std::error::Error>;
type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;
type Chart<'s> = ChartContext<'s, SVGBackend<'s>, Cartesian2d<Axis, Axis>>;

/// A value that a line across the picture shows.
struct Line {
    value: f64,
    label: String,
    colour: RGBColor,
    width: u32,
}

impl Line {
    fn style(&self) -> ShapeStyle {
        self.colour.stroke_width(self.width)
    }
}

/// Draws the picture.
pub(crate) fn svg(plot: &Plot<'_>) -> Result<String, Failure> {
    let mut picture = String::new();
    draw(plot, &mut picture).map_err(|error| Failure::Usage(format!("--plot: cannot draw, {error}")))?;
    Ok(picture)
}

fn draw(plot: &Plot<'_>, picture: &mut String) -> Result<(), Error> {
    let root = SVGBackend::with_string(picture, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    plot.title(&root)?;
    let (_, body) = root.split_vertically(TITLE);
    let (left, rest) = body.split_horizontally(STEPS);
    let (middle, _) = rest.split_horizontally(BINS);
    let norms = plot.norm_axis();
    let lines = plot.lines();
    let steps = plot.steps(&left, &norms, &lines)?;
    let bins = plot.bins(&middle, &norms, &lines)?;
    labels(&root, &steps, &bins, &lines)?;
    root.present()?;
    Ok(())
}

impl Plot<'_> {
    fn title(&self, root: &Area<'_>) -> Result<(), Error> {
        let steps = text::counted(self.norms.len() as u64, "step");
        let title = format!("Gradient norms of {steps}");
        root.draw(&Text::new(title, (24, 18), font(24, BLACK)))?;
        let (percentile, value) = self.percentile;
        let mut below = format!("suggested threshold {}: percentile {percentile}", text::short(value));
        let left_out = (self.norms.len() - self.statistics.steps()) as u64;
        if left_out > 0 {
            below += &format!(". Non-finite gradients left out: {} (×)", text::counted(left_out, "step"));
        }
        root.draw(&Text::new(below, (24, 48), font(17, GREY)))?;
        Ok(())
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
        let line = |what: &str, value: f64, colour, width| {
            let label = format!("{what} {}", text::rough(value));
            Line { value, label, colour, width }
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
        let mut chart = chart(area, 78, Axis::counting(self.norms.len()), norms)?;
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
        let mut chart = chart(area, 0, Axis::exactly(0.0, most * 1.08, Scale::Whole), norms)?;
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

fn font(size: u32, colour: RGBColor) -> TextStyle<'static> {
    TextStyle { color: colour.to_backend_color(), ..TextStyle::from(("sans-serif", size).into_font()) }
}

fn chart<'s>(area: &Area<'s>, numbers: u32, x: Axis, y: &Axis) -> Result<Chart<'s>, Error> {
    let mut builder = ChartBuilder::on(area);
    builder
        .margin_left(16)
        .margin_right(14)
        .margin_top(6)
        .margin_bottom(8)
        .x_label_area_size(FOOT)
        .y_label_area_size(numbers);
    Ok(builder.build_cartesian_2d(x, y.clone())?)
}

fn mesh(chart: &mut Chart<'_>, x: &str, y: &str, numbers: usize) -> Result<(), Error> {
    chart
        .configure_mesh()
        .bold_line_style(PALE)
        .axis_style(GREY)
        .label_style(font(15, GREY))
        .axis_desc_style(font(16, BLACK))
        .x_desc(x)
        .y_desc(y)
        .x_labels(numbers)
        .y_labels(10)
        .draw()?;
    Ok(())
}

/// Draws the lines over the whole width.
fn across(chart: &mut Chart<'_>, lines: &[Line]) -> Result<(), Error> {
    let x = chart.x_range();
    let line = |line: &Line| PathElement::new(vec![(x.start, line.value), (x.end, line.value)], line.style());
    chart.draw_series(lines.iter().map(line))?;
    Ok(())
}

/// Names the lines at the right, apart from each other, each tied to its line.
fn labels(root: &Area<'_>, steps: &Chart<'_>, bins: &Chart<'_>, lines: &[Line]) -> Result<(), Error> {
    let (x, gap) = (bins.x_range().end, steps.x_range());
    let mut sorted: Vec<&Line> = lines.iter().collect();
    sorted.sort_by(|a, b| b.value.total_cmp(&a.value));
    let ends: Vec<(i32, i32)> = sorted.iter().map(|line| bins.backend_coord(&(x, line.value))).collect();
    let (top, bottom) = (TITLE as i32 + 10, (SIZE.1 - FOOT) as i32 - 10);
    let places = apart(&ends.iter().map(|end| end.1).collect::<Vec<i32>>(), top, bottom);
    for ((line, &(x, y)), place) in sorted.into_iter().zip(&ends).zip(places) {
        let left = steps.backend_coord(&(gap.end, line.value)).0;
        let right = bins.backend_coord(&(bins.x_range().start, line.value)).0;
        root.draw(&PathElement::new(vec![(left, y), (right, y)], line.style()))?;
        root.draw(&PathElement::new(
            vec![(x, y), (x + 6, y), (x + 18, place), (x + 22, place)],
            line.style(),
        ))?;
        let style = font(16, line.colour).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(line.label.clone(), (x + 26, place), style))?;
    }
    Ok(())
}

/// Moves ascending places apart until neighbours have room.
fn apart(places: &[i32], top: i32, bottom: i32) -> Vec<i32> {
    let mut apart = places.to_vec();
    let mut least = top;
    for place in &mut apart {
        *place = (*place).max(least);
        least = *place + LINE;
    }
    let mut most = bottom;
    for place in apart.iter_mut().rev() {
        *place = (*place).min(most);
        most = *place - LINE;
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn labels_have_room() {
        assert_eq!(apart(&[10, 100, 300], 0, 400), [10, 100, 300]);
        assert_eq!(apart(&[10, 12, 13], 0, 400), [10, 28, 46]);
        assert_eq!(apart(&[390, 395, 400], 0, 400), [364, 382, 400]);
    }
}
