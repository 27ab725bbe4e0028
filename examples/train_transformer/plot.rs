//! The plot: losses, norms before clipping, and the loss scale.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::legend;
use super::log::{Log, Record};
use super::text::Text;
use super::train::{MICRO_BATCHES, STEPS, THRESHOLD};

const BLUE: RGBColor = RGBColor(31, 90, 150);
const ORANGE: RGBColor = RGBColor(230, 120, 20);
const GREEN: RGBColor = RGBColor(40, 130, 80);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A quantity of each step, and levels to compare it with.
struct Panel<'a> {
    quantity: &'a str,
    color: RGBColor,
    value: fn(&Record) -> f64,
    heights: Range<f64>,
    label: fn(&f64) -> String,
    levels: &'a [(&'a str, f64, RGBColor)],
}

pub(super) fn draw(file: &Path, log: &Log, text: &Text) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(file, (960, 900)).into_drawing_area();
    root.fill(&WHITE)?;
    let title = "A character transformer: bf16 parameters, clipped to a norm of 1";
    let inner = root.margin(10, 0, 0, 16).titled(title, ("sans-serif", 22))?;
    let (above, rest) = inner.split_vertically(400);
    let (middle, below) = rest.split_vertically(270);

    let largest = |value: fn(&Record) -> f64| {
        log.records.iter().map(value).filter(|v| v.is_finite()).fold(0.0, f64::max)
    };
    let (chance, bigrams) = (text.chance(), text.bigram_entropy());
    let losses = Panel {
        quantity: "loss (nats)",
        color: BLUE,
        value: |record| record.loss.into(),
        heights: 0.0..1.05 * largest(|record| record.loss.into()).max(chance),
        label: |y| format!("{y}"),
        levels: &[("chance", chance, BLACK), ("best table of pairs of characters", bigrams, GREEN)],
    };
    let norms = Panel {
        quantity: "gradient norm before clipping",
        color: BLUE,
        value: |record| record.norm,
        heights: 0.0..1.1 * largest(|record| record.norm).max(THRESHOLD.into()),
        label: |y| format!("{y}"),
        levels: &[("threshold", THRESHOLD.into(), ORANGE)],
    };
    let powers = log.records.iter().map(|record| record.loss_scale.log2());
    let (low, high) = powers.fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
    let scales = Panel {
        quantity: "loss scale",
        color: BLUE,
        value: |record| record.loss_scale.log2(),
        heights: low - 1.0..high + 1.0,
        label: |y| format!("2^{y}"),
        levels: &[],
    };
    losses.draw(&above, log)?;
    norms.draw(&middle, log)?;
    scales.draw(&below, log)?;
    root.present()?;
    Ok(())
}

impl Panel<'_> {
    fn draw(&self, area: &Area, log: &Log) -> Result<(), Box<dyn Error>> {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0..STEPS, self.heights.clone())?;
        chart
            .configure_mesh()
            .x_desc(format!("step (of {MICRO_BATCHES} micro-batches)"))
            .y_desc(self.quantity)
            .y_labels(6)
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 13))
            .y_label_formatter(&self.label)
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .draw()?;
        for &(name, level, color) in self.levels {
            chart
                .draw_series(DashedLineSeries::new([(0, level), (STEPS, level)], 6, 4, color.into()))?
                .label(name)
                .legend(move |(x, y)| DashedPathElement::new([(x, y), (x + 20, y)], 6, 4, color));
        }
        let points = log.records.iter().map(|record| (record.step, (self.value)(record)));
        chart.draw_series(LineSeries::new(
            points.filter(|(_, y)| y.is_finite()),
            self.color.stroke_width(2),
        ))?;
        if !self.levels.is_empty() {
            legend::draw(&mut chart, SeriesLabelPosition::UpperRight)?;
        }
        Ok(())
    }
}
