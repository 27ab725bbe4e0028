//! The plot of both runs: losses above, norms below.

use std::error::Error;

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::legend;
use super::{BATCH, LENGTH, Run, STEPS, THRESHOLD, chance};

const BLUE: RGBColor = RGBColor(31, 90, 150);
const ORANGE: RGBColor = RGBColor(230, 120, 20);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub(super) fn draw(file: &str, clipped: &Run, free: &Run) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(file, (960, 760)).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("A recurrent net over {LENGTH} symbols, trained with and without clipping");
    let inner = root.margin(10, 0, 0, 16).titled(&title, ("sans-serif", 22))?;
    let [above, below] = &inner.split_evenly((2, 1))[..] else {
        return Err("two panels expected".into());
    };
    let losses = [free, clipped].map(|run| run.losses.clone());
    let norms = [free, clipped].map(|run| run.outcomes.iter().map(|o| o.norm).collect());
    panel(above, "loss (nats)", ("chance", chance()), losses)?;
    panel(below, "gradient norm before clipping (nats)", ("threshold", THRESHOLD.into()), norms)?;
    root.present()?;
    Ok(())
}

/// One quantity of both runs, every step thin and the median of 25 steps thick, and a level.
fn panel(
    area: &Area,
    quantity: &str,
    (name, level): (&str, f64),
    [free, clipped]: [Vec<f32>; 2],
) -> Result<(), Box<dyn Error>> {
    let drawn = clipped.iter().chain(&free).filter(|v| v.is_finite() && **v > 0.0);
    let (low, high) = drawn.fold((f32::MAX, 0.0f32), |(low, high), &v| (low.min(v), high.max(v)));
    let heights = f64::from(low) * 0.7..f64::from(high) * 2.0;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0..STEPS, heights.log_scale())?;
    chart
        .configure_mesh()
        .x_desc(format!("step (of {BATCH} sequences)"))
        .y_desc(quantity)
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .y_label_formatter(&|y| format!("{y}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    let clipped_to = format!("clipped to a norm of {THRESHOLD}");
    for (label, color, values) in [("not clipped", ORANGE, free), (&clipped_to, BLUE, clipped)] {
        let medians = (0..STEPS).map(|step| median(&values[step.saturating_sub(12)..STEPS.min(step + 13)]));
        let medians = points(medians.collect());
        chart.draw_series(LineSeries::new(points(values), color.mix(0.35)))?;
        chart
            .draw_series(LineSeries::new(medians, color.stroke_width(2)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    chart
        .draw_series(DashedLineSeries::new([(0, level), (STEPS, level)], 6, 4, BLACK.into()))?
        .label(name)
        .legend(|(x, y)| DashedPathElement::new([(x, y), (x + 20, y)], 6, 4, BLACK));
    legend::draw(&mut chart, SeriesLabelPosition::LowerLeft)?;
    Ok(())
}

/// What a logarithmic axis can show.
fn points(values: Vec<f32>) -> impl Iterator<Item = (usize, f64)> {
    let points = values.into_iter().enumerate().map(|(step, value)| (step, f64::from(value)));
    points.filter(|(_, value)| value.is_finite() && *value > 0.0)
}

fn median(values: &[f32]) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted[sorted.len() / 2]
}
