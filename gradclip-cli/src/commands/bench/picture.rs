//! The picture of `bench --plot`: time against elements, and where the CPU's and the GPU's lines cross.

use plotters::element::{Circle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color};

use crate::commands::bench::arm::Regime;
use crate::commands::bench::crossing::{self, Verdict};
use crate::commands::bench::sweep::{Curve, Timed};
use crate::failure::Failure;
use crate::plot::axis::{Axis, Scale};
use crate::plot::style::{self, Area, BLUE, Chart, Error, FOOT, GREEN, GREY, Label, Named, ORANGE, Stroke};
use crate::text;

/// Pixels of the whole, and of its parts from the left and from above.
const SIZE: (u32, u32) = (1080, 620);
const TITLE: u32 = 96;
const TIMES: u32 = 840;
/// Height of a crossover's label, in pixels and as a share of the axis.
const ROW: i32 = 20;
const ROW_SHARE: f64 = 0.05;
/// Characters of an adapter's name that the title has room for.
const ADAPTER: usize = 50;

/// What is drawn.
pub(crate) struct Plot<'a> {
    /// The name of the GPU's adapter, if one was timed.
    pub(crate) adapter: Option<&'a str>,
    pub(crate) curves: &'a [Curve],
    pub(crate) verdicts: &'a [Verdict],
}

/// Draws the picture.
pub(crate) fn svg(plot: &Plot<'_>) -> Result<String, Failure> {
    style::svg(SIZE, |root| {
        title(root, plot)?;
        let (_, body) = root.split_vertically(TITLE);
        let (left, _) = body.split_horizontally(TIMES);
        let rows = plot.verdicts.iter().map(|verdict| verdict.crossings.len()).sum();
        let chart = times(&left, plot.curves, rows)?;
        crossovers(root, &chart, plot.verdicts)?;
        lines(root, &chart, plot.curves)
    })
}

fn title(root: &Area<'_>, plot: &Plot<'_>) -> Result<(), Error> {
    let mut title = "Clipping one tensor: CPU path".to_owned();
    if let Some(adapter) = plot.adapter {
        title += &format!(" and {}", text::adapter(adapter, ADAPTER));
    }
    let mut below: Vec<String> = plot.verdicts.iter().map(Verdict::text).collect();
    if below.is_empty() {
        below.push("no GPU was timed with it".into());
    }
    style::title(root, title, below)
}

/// The empty chart, with room above the lines for so many labels.
fn times<'s>(area: &Area<'s>, curves: &[Curve], rows: usize) -> Result<Chart<'s>, Error> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::MAX, 0.0f64), |(least, most), v| (least.min(v), most.max(v)))
    };
    let (fewest, most) = range(&mut points().map(|point| point.0));
    let (shortest, longest) = range(&mut points().map(|point| point.1 * 1e3));
    let above = (longest / shortest).powf(ROW_SHARE * (rows as f64 + 1.0));
    // The lines end at the right edge, where their labels begin.
    let elements = Axis::exactly(Axis::around(fewest, most, Scale::Log).low(), most, Scale::Log);
    let milliseconds = Axis::around(shortest, longest * above, Scale::Log);
    let mut chart = style::chart(area, 78, elements, &milliseconds)?;
    let x = Named { name: "elements", numbers: 8, format: |&n| text::count(n.round() as u64) };
    let y = Named { name: "time (ms)", numbers: 10, format: |&ms| text::short(ms) };
    style::mesh(&mut chart, &x, &y)?;
    Ok(chart)
}

/// Marks where lines cross, each with its number of elements in a row of its own at the top: from the left
/// downwards, so that no mark runs through the label of another.
fn crossovers(root: &Area<'_>, chart: &Chart<'_>, verdicts: &[Verdict]) -> Result<(), Error> {
    let marks = verdicts.iter().flat_map(|v| v.crossings.iter().map(move |&place| (place, v.regime)));
    let mut all: Vec<((f64, f64), Regime)> = marks.collect();
    all.sort_by(|(a, _), (b, _)| a.0.total_cmp(&b.0));
    let y = chart.y_range();
    for (row, ((elements, seconds), regime)) in (0..).zip(all) {
        let pixel = |milliseconds: f64| chart.backend_coord(&(elements, milliseconds));
        let (x, top) = pixel(y.end);
        let label = top + ROW / 2 + row * ROW;
        let stroke = Stroke { colour: GREY, width: 1, dashed: regime == Regime::NotClipped };
        stroke.draw(root, vec![(x, label - ROW / 2), pixel(y.start)])?;
        root.draw(&Circle::new(pixel(seconds * 1e3), 7, BLACK.stroke_width(2)))?;
        let text = format!("{}: {} elements", regime.name(), crossing::elements(elements));
        let style = style::font(16, BLACK).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(text, (x + 6, label), style))?;
    }
    Ok(())
}

/// Draws the lines with a dot a size, the CPU's on top, and names them at the right.
fn lines(root: &Area<'_>, chart: &Chart<'_>, curves: &[Curve]) -> Result<(), Error> {
    let names: Vec<String> = curves.iter().map(Curve::name).collect();
    let mut labels = Vec::new();
    for (curve, text) in curves.iter().zip(&names).rev() {
        let pixel = |&(elements, seconds): &(f64, f64)| chart.backend_coord(&(elements, seconds * 1e3));
        let path: Vec<(i32, i32)> = curve.points.iter().map(pixel).collect();
        let stroke = curve.stroke();
        for &point in &path {
            root.draw(&Circle::new(point, 3, stroke.colour.filled()))?;
        }
        labels.extend(path.last().map(|&end| Label { text, stroke, end }));
        stroke.draw(root, path)?;
    }
    style::labels(root, labels, (TITLE as i32 + 10, (SIZE.1 - FOOT) as i32 - 10))
}

impl Curve {
    fn name(&self) -> String {
        let what = match self.what {
            Timed::Cpu => "CPU",
            Timed::Gpu => "GPU",
            Timed::OnDevice => "on the device",
        };
        format!("{what}, {}", self.regime.name())
    }

    fn stroke(&self) -> Stroke {
        let (colour, width) = match self.what {
            Timed::Cpu => (BLUE, 2),
            Timed::Gpu => (ORANGE, 2),
            Timed::OnDevice => (GREEN, 1),
        };
        Stroke { colour, width, dashed: self.regime == Regime::NotClipped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The CPU's line is straight, the GPU's is flat up to 10^5 elements.
    fn curves() -> Vec<Curve> {
        let kinds = [Timed::Cpu, Timed::Gpu, Timed::OnDevice].into_iter();
        let curve = |(what, regime): (Timed, Regime)| {
            let weight = if regime == Regime::Clipped { 2.0 } else { 1.0 };
            let seconds = |n: f64| match what {
                Timed::Cpu => 1e-9 * n * weight,
                Timed::Gpu => 1e-4 + 1e-10 * n * weight,
                Timed::OnDevice => 3e-5 + 1e-10 * n * weight,
            };
            let points = (3..=8).map(|k| 10f64.powi(k)).map(|n| (n, seconds(n))).collect();
            Curve { what, regime, points }
        };
        kinds.flat_map(|what| Regime::BOTH.map(|regime| (what, regime))).map(curve).collect()
    }

    #[test]
    fn crossovers_are_marked() -> Result<(), Failure> {
        let curves = curves();
        let verdict = |i: usize| Verdict::new(curves[i].regime, &curves[i].points, &curves[i + 2].points);
        let verdicts: Vec<Verdict> = [verdict(0), verdict(1)].into_iter().flatten().collect();
        let picture = svg(&Plot { adapter: Some("vulkan/some GPU"), curves: &curves, verdicts: &verdicts })?;
        for verdict in &verdicts {
            let size = crossing::elements(verdict.crossings[0].0);
            let label = format!("\n{}: {size} elements\n", verdict.regime.name());
            assert!(picture.contains(&label) && picture.contains(&verdict.text()), "{label}: {picture}");
        }
        // A dot a size of each line, and a ring a crossover.
        assert_eq!(picture.matches("<circle").count(), 6 * 6 + 2);
        Ok(())
    }
}
