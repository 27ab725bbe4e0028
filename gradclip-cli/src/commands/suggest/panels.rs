//! The picture of simulated rules: a panel a rule, one below the other over the same steps and norms.

use std::collections::HashSet;

use plotters::element::{Circle, Cross, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color};

use crate::commands::suggest::simulation::{Fate, Simulation};
use crate::failure::Failure;
use crate::plot::axis::{Axis, Scale};
use crate::plot::style::{self, Area, BLUE, Chart, Error, FOOT, GREEN, GREY, Named, ORANGE, Stroke};
use crate::text;

/// Pixels of the whole from the left, of the part with title and legend, and of the title of a panel.
const WIDTH: u32 = 1080;
const HEAD: u32 = 74;
const TITLE: u32 = 32;
/// Pixels that all panels share, and that each has at least and at most.
const SHARED: usize = 960;
const HEIGHTS: (usize, usize) = (190, 400);
/// Pixels of a panel for each number of the vertical axis.
const NUMBER: u32 = 30;
/// More steps than these have no dot each, and more marks of one kind are smaller.
const DOTS: usize = 200;
/// Norms and thresholds that span more than this factor have a logarithmic axis.
const DECADES: f64 = 100.0;

const NORM: Stroke = Stroke { colour: BLUE, width: 1, dashed: false };
const THRESHOLD: Stroke = Stroke { colour: GREEN, width: 2, dashed: false };
const BOUND: Stroke = Stroke { colour: GREY, width: 1, dashed: true };

type Pixel = (i32, i32);

#[derive(Debug)]
pub(crate) struct Panels<'a> {
    /// By step, `None` where gradients were not finite.
    pub(crate) norms: &'a [Option<f64>],
    /// How the norm type is called.
    pub(crate) kind: &'a str,
    pub(crate) simulations: &'a [Simulation],
    /// The norm above which all rules leave steps out, where there is one.
    pub(crate) skip_above: Option<f64>,
}

/// Draws the picture.
pub(crate) fn svg(panels: &Panels<'_>) -> Result<String, Failure> {
    let count = panels.simulations.len();
    let height = (SHARED / count.max(1)).clamp(HEIGHTS.0, HEIGHTS.1) as u32;
    let size = (WIDTH, HEAD + height * count as u32 + FOOT);
    style::svg(size, |root| {
        let steps = text::counted(panels.norms.len() as u64, "step");
        style::title(root, format!("What rules would have done in {steps}"), Vec::new())?;
        panels.legend(root)?;
        let norms = panels.norm_axis();
        let (_, mut rest) = root.split_vertically(HEAD);
        for (i, simulation) in panels.simulations.iter().enumerate() {
            let foot = if i + 1 == count { FOOT } else { 0 };
            let (own, below) = rest.split_vertically(height + foot);
            panels.panel(root, &own, foot, &norms, simulation)?;
            rest = below;
        }
        Ok(())
    })
}

impl Panels<'_> {
    /// The axis that all panels share.
    fn norm_axis(&self) -> Axis {
        let thresholds = self.simulations.iter().flat_map(|s| s.steps.iter().map(|step| step.threshold));
        let all = || self.norms.iter().flatten().copied().chain(thresholds.clone().filter(|t| t.is_finite()));
        let largest = all().fold(0.0, f64::max);
        // Zeros lie on the lower end of a logarithmic axis.
        let positive = all().filter(|&value| value > 0.0).fold(largest, f64::min);
        match largest / positive > DECADES {
            true => Axis::around(positive, largest, Scale::Log),
            false => Axis::around(all().fold(largest, f64::min), largest, Scale::Linear),
        }
    }

    fn panel(
        &self,
        root: &Area<'_>,
        area: &Area<'_>,
        foot: u32,
        norms: &Axis,
        simulation: &Simulation,
    ) -> Result<(), Error> {
        let (title, body) = area.split_vertically(TITLE);
        let at = Pos::new(HPos::Left, VPos::Bottom);
        let place = (94, TITLE as i32 - 6);
        title.draw(&Text::new(self.title(simulation), place, style::font(17, BLACK).pos(at)))?;
        let mut chart = style::chart_above(foot, &body, 78, Axis::counting(self.norms.len()), norms)?;
        let numbers = (body.dim_in_pixel().1 - foot) / NUMBER;
        let named = |name, numbers| Named { name, numbers, format: |number| text::short(*number) };
        let norm = format!("norm ({})", self.kind);
        style::mesh(&mut chart, &named("step", 12), &named(&norm, numbers as usize))?;
        self.bound(root, &chart)?;
        line(root, &chart, NORM, self.norms.iter().copied())?;
        // Marks may be so many that they would cover the threshold.
        self.marks(root, &chart, simulation, &[Fate::Kept, Fate::Raised, Fate::Clipped])?;
        let thresholds = simulation.steps.iter().map(|step| step.threshold);
        line(root, &chart, THRESHOLD, thresholds.map(|t| Some(t).filter(|t| t.is_finite())))?;
        self.marks(root, &chart, simulation, &[Fate::Skipped])
    }

    /// The rule and its counts.
    fn title(&self, simulation: &Simulation) -> String {
        let count = |fate| simulation.count(fate) as u64;
        let steps = text::counted(self.norms.len() as u64, "step");
        let clipped = text::count(count(Fate::Clipped));
        let mut title = format!("{}: {clipped} of {steps} clipped", simulation.rule);
        for (fate, word) in [(Fate::Raised, "raised"), (Fate::Skipped, "skipped")] {
            if count(fate) > 0 {
                title += &format!(", {} {word}", text::count(count(fate)));
            }
        }
        title
    }

    /// A line at the norm above which steps are left out, where there is one within the axis.
    fn bound(&self, root: &Area<'_>, chart: &Chart<'_>) -> Result<(), Error> {
        let (x, y) = (chart.x_range(), chart.y_range());
        let Some(bound) = self.skip_above.filter(|bound| y.contains(bound)) else { return Ok(()) };
        let ends = [x.start, x.end].map(|step| chart.backend_coord(&(step, bound)));
        BOUND.draw(root, ends.to_vec())?;
        Ok(())
    }

    /// Marks the norms of steps by what became of them; those that are not finite lie on the upper end.
    fn marks(
        &self,
        root: &Area<'_>,
        chart: &Chart<'_>,
        simulation: &Simulation,
        fates: &[Fate],
    ) -> Result<(), Error> {
        let top = chart.y_range().end;
        let each = self.norms.len() <= DOTS;
        let mut drawn = HashSet::new();
        for &fate in fates.iter().filter(|&&fate| each || fate != Fate::Kept) {
            let large = simulation.count(fate) <= DOTS;
            for (i, _) in simulation.steps.iter().enumerate().filter(|(_, step)| step.fate == fate) {
                let (x, y) = chart.backend_coord(&((i + 1) as f64, self.norms[i].unwrap_or(top)));
                // Of marks on top of each other one is seen.
                if drawn.insert((fate, x / 2, y / 2)) {
                    mark(root, fate, (x, y), large)?;
                }
            }
        }
        Ok(())
    }

    /// What lines and marks are, in one row below the title.
    fn legend(&self, root: &Area<'_>) -> Result<(), Error> {
        let y = 58;
        let mut x = 24;
        let mut name = |name: &str, width: i32| -> Result<i32, Error> {
            let style = style::font(16, BLACK).pos(Pos::new(HPos::Left, VPos::Center));
            let (start, length) = (x, name.chars().count() as i32 * 7);
            root.draw(&Text::new(name.to_owned(), (start + width + 6, y), style))?;
            x += width + length + 34;
            Ok(start)
        };
        let mut lines = vec![(NORM, "norm".to_owned()), (THRESHOLD, "threshold".to_owned())];
        lines.extend(self.skip_above.map(|bound| (BOUND, format!("--skip-above {}", text::short(bound)))));
        for (stroke, what) in lines {
            let start = name(&what, 26)?;
            stroke.draw(root, vec![(start, y), (start + 26, y)])?;
        }
        let raised = self.simulations.iter().any(|simulation| simulation.count(Fate::Raised) > 0);
        let missing = self.norms.iter().any(Option::is_none);
        let skipped = if missing { "skipped, at the top: not finite" } else { "skipped" };
        for (fate, what) in [(Fate::Clipped, "clipped"), (Fate::Raised, "raised"), (Fate::Skipped, skipped)] {
            if fate != Fate::Raised || raised {
                let start = name(what, 10)?;
                mark(root, fate, (start + 5, y), true)?;
            }
        }
        Ok(())
    }
}

/// Draws a line through the values of the steps, with gaps where there is none.
fn line(
    root: &Area<'_>,
    chart: &Chart<'_>,
    stroke: Stroke,
    values: impl Iterator<Item = Option<f64>>,
) -> Result<(), Error> {
    let pixel = |(i, value): (usize, Option<f64>)| value.map(|v| chart.backend_coord(&((i + 1) as f64, v)));
    let pixels: Vec<Option<Pixel>> = values.enumerate().map(pixel).collect();
    for run in pixels.split(Option::is_none).filter(|run| !run.is_empty()) {
        let mut path = seen(&run.iter().flatten().copied().collect::<Vec<Pixel>>());
        if let [(x, y)] = path[..] {
            path = vec![(x - 3, y), (x + 3, y)];
        }
        stroke.draw(root, path)?;
    }
    Ok(())
}

/// Of neighbours in one column of pixels the first, the lowest, the highest and the last: a long run stays a small file.
fn seen(path: &[Pixel]) -> Vec<Pixel> {
    let column = |column: &[Pixel]| {
        let ys = || column.iter().map(|pixel| pixel.1);
        let ends = [ys().next(), ys().min(), ys().max(), ys().next_back()];
        let x = column[0].0;
        ends.into_iter().flatten().map(move |y| (x, y)).collect::<Vec<Pixel>>()
    };
    let mut seen: Vec<Pixel> = path.chunk_by(|a, b| a.0 == b.0).flat_map(column).collect();
    seen.dedup();
    seen
}

fn mark(root: &Area<'_>, fate: Fate, at: Pixel, large: bool) -> Result<(), Error> {
    let (size, width) = if large { (4, 2) } else { (2, 1) };
    match fate {
        Fate::Kept => root.draw(&Circle::new(at, 2, BLUE.filled()))?,
        Fate::Raised => root.draw(&Circle::new(at, size, GREEN.stroke_width(width)))?,
        Fate::Clipped => root.draw(&Circle::new(at, size, ORANGE.filled()))?,
        Fate::Skipped => root.draw(&Cross::new(at, size, BLACK.stroke_width(width)))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::seen;

    #[test]
    fn a_column_of_pixels_is_drawn_once() {
        assert_eq!(seen(&[(1, 5)]), [(1, 5)]);
        assert_eq!(
            seen(&[(1, 5), (2, 5), (2, 9), (2, 1), (2, 4), (2, 6), (3, 0)]),
            [(1, 5), (2, 5), (2, 1), (2, 9), (2, 6), (3, 0)]
        );
    }
}
