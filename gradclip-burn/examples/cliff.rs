//! Gradient descent at a cliff, with and without clipping: what figure 10.17 of Goodfellow, Bengio and
//! Courville (Deep Learning, 2016) shows, after Pascanu, Mikolov and Bengio (2013).
//!
//! The loss is that of one recurrent unit, x ← w σ(x) + b, 50 times from x = 1/2, whose last σ(x) is to be
//! 0.7. Where the unit has two stable states, J(w, b) has a wall: one gradient there throws the
//! descent far away, unless its norm is limited. Says where both paths end, and draws them.
//!
//!     cargo run --example cliff -- [cliff.svg]

use std::error::Error;

use gradclip_burn::Clip;
use gradclip_burn::gradclip::History;
use gradclip_burn::gradclip::cpu::{GradMut, clip_with};
use plotters::prelude::*;

const LENGTH: usize = 50;
const TARGET: f32 = 0.7;
const START: [f32; 2] = [5.5, -2.5];
const RATE: f32 = 0.3;
const STEPS: usize = 400;
const MAX_NORM: f32 = 0.5;
const CELLS: usize = 150;
const W: (f32, f32) = (0.5, 6.5);
const B: (f32, f32) = (-9.5, 0.0);

/// The loss and its gradient with respect to w and b.
fn loss([w, b]: [f32; 2]) -> (f32, [f32; 2]) {
    let sigmoid = |x: f32| (1.0 + (-x).exp()).recip();
    let (mut x, mut dw, mut db) = (0.5, 0.0, 0.0);
    for _ in 0..LENGTH {
        let h = sigmoid(x);
        let slope = w * h * (1.0 - h);
        (x, dw, db) = (w * h + b, h + slope * dw, 1.0 + slope * db);
    }
    let h = sigmoid(x);
    let outer = 2.0 * (h - TARGET) * h * (1.0 - h);
    ((h - TARGET).powi(2), [outer * dw, outer * db])
}

struct Path {
    points: Vec<[f32; 2]>,
    largest_norm: f64,
    longest_step: f32,
    clipped: u64,
}

fn descend(clip: Clip) -> Result<Path, Box<dyn Error>> {
    let mut history = History::default();
    let mut point = START;
    let mut path = Path { points: vec![START], largest_norm: 0.0, longest_step: 0.0, clipped: 0 };
    for _ in 0..STEPS {
        let (_, mut gradient) = loss(point);
        let report = clip_with(&mut [GradMut::new("w, b", &mut gradient)], &clip, &mut history)?;
        let [w, b] = gradient.map(|g| RATE * g);
        point = [point[0] - w, point[1] - b];
        path.points.push(point);
        path.largest_norm = path.largest_norm.max(report.norm().unwrap_or(f64::NAN));
        path.longest_step = path.longest_step.max(w.hypot(b));
        path.clipped = report.clipped_steps;
    }
    Ok(path)
}

fn tell(name: &str, path: &Path) {
    let end = path.points.last().copied().unwrap_or(START);
    println!(
        "{name} the descent ends at w = {:.2}, b = {:.2} with J = {:.5}; its largest gradient norm was {:.1}, \
         its longest step {:.2}, and {} of {STEPS} steps were clipped.",
        end[0],
        end[1],
        loss(end).0,
        path.largest_norm,
        path.longest_step,
        path.clipped,
    );
}

fn cell(range: (f32, f32), i: usize) -> f32 {
    range.0 + (range.1 - range.0) * i as f32 / CELLS as f32
}

/// The lower left corners of the cells.
fn grid() -> impl Iterator<Item = [f32; 2]> {
    (0..CELLS * CELLS).map(|i| [cell(W, i % CELLS), cell(B, i / CELLS)])
}

/// Dark where the loss is small, by its root so that the valley shows.
fn color(loss: f32) -> RGBColor {
    let share = (loss / 0.5).sqrt().min(1.0);
    let mix = |low: f32, high: f32| (low + (high - low) * share) as u8;
    RGBColor(mix(70.0, 250.0), mix(105.0, 246.0), mix(140.0, 232.0))
}

/// Of the minima, which form a curve, the one nearest to the start among the grid's points.
fn minimum() -> [f32; 2] {
    let from_start = |[w, b]: [f32; 2]| (w - START[0]).hypot(b - START[1]);
    let minima = grid().filter(|&point| loss(point).0 < 2e-5);
    minima.min_by(|&a, &b| from_start(a).total_cmp(&from_start(b))).unwrap_or(START)
}

fn draw(file: &str, free: &Path, clipped: &Path) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(file, (960, 760)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(18)
        .caption("Gradient descent at a cliff of J(w, b); darker is lower", ("sans-serif", 22))
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(W.0..W.1, B.0..B.1)?;
    let (width, height) = (cell(W, 1) - W.0, cell(B, 1) - B.0);
    let cells = grid().map(|[w, b]| {
        let value = loss([w + width / 2.0, b + height / 2.0]).0;
        Rectangle::new([(w, b), (w + width, b + height)], color(value).filled())
    });
    chart.draw_series(cells)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_mesh().x_desc("w").y_desc("b").axis_desc_style(("sans-serif", 16));
    mesh.label_style(("sans-serif", 13)).draw()?;
    let clipped_to = format!("clipped to a norm of {MAX_NORM}");
    // Both begin alike: the one below is wider.
    let [orange, purple] = [RGBColor(215, 90, 0), RGBColor(130, 0, 150)];
    for (name, color, wide, path) in [("not clipped", orange, 4, free), (&clipped_to, purple, 1, clipped)] {
        let points = || path.points.iter().map(|&[w, b]| (w, b));
        chart
            .draw_series(LineSeries::new(points(), color.stroke_width(wide)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(wide)));
        chart.draw_series(points().map(|point| Circle::new(point, wide, color.filled())))?;
    }
    let [start, least] = [START, minimum()].map(|[w, b]| (w, b));
    chart
        .draw_series([Circle::new(start, 7, BLACK.filled())])?
        .label("start")
        .legend(|(x, y)| Circle::new((x + 10, y), 6, BLACK.filled()));
    chart
        .draw_series([Cross::new(least, 8, BLACK.stroke_width(3))])?
        .label("nearest minimum (of the valley where J = 0)")
        .legend(|(x, y)| Cross::new((x + 10, y), 6, BLACK.stroke_width(3)));
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::LowerRight).background_style(WHITE.mix(0.9));
    legend.border_style(BLACK.mix(0.3)).label_font(("sans-serif", 15)).draw()?;
    root.present()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "cliff.svg".into());
    let (free, clipped) = (descend(Clip::measure())?, descend(Clip::global_norm(MAX_NORM))?);
    tell("Without clipping", &free);
    tell("With clipping", &clipped);
    draw(&file, &free, &clipped)?;
    println!("{file} shows both paths");
    Ok(())
}
