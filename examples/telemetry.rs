//! A run whose gradients explode now and then, with a threshold that finds itself on the device; what
//! every step did arrives as telemetry, and is drawn: norm, threshold, clipped steps. People choose a
//! threshold by looking.
//!
//! `cargo run --release --example telemetry -- [zclip|autoclip|mean|fixed] [telemetry.svg]`
//!
//! The gradients are those of a linear model w·x whose data has a heavy tail: a batch with an outlier
//! has a gradient many times as long as the others.

use std::error::Error;

use gradclip::adapters;
use gradclip::{Adapt, Clip, Clipper, ClipperOptions, Grad, Pass, Report, Telemetry, wgpu};
use plotters::prelude::*;

#[path = "common/legend.rs"]
mod legend;

const STEPS: usize = 600;
const FEATURES: usize = 64;
const BATCH: usize = 16;
const RATE: f64 = 0.004;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let rule = arguments.next().unwrap_or_else(|| "zclip".into());
    let file = arguments.next().unwrap_or_else(|| "telemetry.svg".into());
    let clip = match rule.as_str() {
        "zclip" => Clip::measure().adapt(Adapt::zclip()),
        "autoclip" => Clip::measure().adapt(Adapt::autoclip(90.0)),
        "mean" => Clip::measure().adapt(Adapt::Mean { factor: 2.0, window: 50 }),
        "fixed" => Clip::global_norm(20.0),
        other => return Err(format!("expected zclip, autoclip, mean or fixed, given {other}").into()),
    };
    let adapter = adapters().into_iter().next().ok_or("no adapter: a software driver for Vulkan will do")?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_limits: Clipper::recommended_limits(&adapter),
        ..Default::default()
    }))?;
    let clipper = Clipper::with_options(&device, ClipperOptions::default().read_backs(16))?;
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("gradient"),
        size: FEATURES as u64 * 4,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let pass = clipper.prepare(&[Grad::new("w", &buffer)], &clip)?;
    let (reports, dropped) = train(&device, &queue, &buffer, &pass)?;
    println!(
        "{} of {STEPS} steps arrived, {dropped} were dropped; {:.1} % of the steps were clipped",
        reports.len(),
        reports.last().map_or(0.0, |r| 100.0 * r.clipped_share()),
    );
    draw(&file, &rule, &reports)?;
    println!("drawn to {file}");
    Ok(())
}

/// The model learns on the host, from gradients clipped as the device clips them: its reports tell the
/// coefficient, a few steps late, so the host takes the ordinary one of the threshold seen last.
fn train(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    buffer: &wgpu::Buffer,
    pass: &Pass,
) -> Result<(Vec<Report>, u64), Box<dyn Error>> {
    let mut random = Random(5);
    let mut weights = vec![0.0f64; FEATURES];
    let truth: Vec<f64> = (0..FEATURES).map(|_| random.normal()).collect();
    let mut telemetry = Telemetry::default();
    let mut reports: Vec<Report> = Vec::new();
    for _ in 0..STEPS {
        let gradient = gradient(&mut random, &weights, &truth);
        let words: Vec<f32> = gradient.iter().map(|&g| g as f32).collect();
        queue.write_buffer(buffer, 0, bytemuck::cast_slice(&words));
        let mut encoder = device.create_command_encoder(&Default::default());
        pass.record(&mut encoder);
        telemetry.record(pass, &mut encoder);
        queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::Poll)?;
        while let Some(report) = telemetry.poll() {
            reports.push(report?);
        }
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let limit = reports.last().map_or(f64::INFINITY, |r| r.segments[0].threshold);
        let factor = (limit / norm).min(1.0);
        weights.iter_mut().zip(&gradient).for_each(|(w, g)| *w -= RATE * factor * g);
    }
    device.poll(wgpu::PollType::wait_indefinitely())?;
    while let Some(report) = telemetry.poll() {
        reports.push(report?);
    }
    Ok((reports, telemetry.dropped()))
}

/// Of the squared error over one batch; one example in forty is thirty times as large.
fn gradient(random: &mut Random, weights: &[f64], truth: &[f64]) -> Vec<f64> {
    let mut gradient = vec![0.0; FEATURES];
    for _ in 0..BATCH {
        let size = if random.unit() < 1.0 / 640.0 { 30.0 } else { 1.0 };
        let x: Vec<f64> = (0..FEATURES).map(|_| size * random.normal()).collect();
        let error: f64 = x.iter().zip(weights.iter().zip(truth)).map(|(x, (w, t))| x * (w - t)).sum();
        let error = error + random.normal();
        gradient.iter_mut().zip(&x).for_each(|(g, x)| *g += error * x / BATCH as f64);
    }
    gradient
}

fn draw(file: &str, rule: &str, reports: &[Report]) -> Result<(), Box<dyn Error>> {
    let norm = |r: &Report| r.norm().unwrap_or(f64::NAN).max(1e-6);
    let threshold = |r: &Report| r.segments[0].threshold;
    let (low, high) = reports.iter().map(norm).fold((f64::MAX, 0.0), |(l, h), n| (n.min(l), n.max(h)));
    let root = SVGBackend::new(file, (960, 540)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Gradient norm and threshold, {rule}"), ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0..STEPS as u64, (low * 0.7..high * 1.6).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("norm (logarithmic)")
        .y_label_formatter(&|y| format!("{y:.0}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    let norms = reports.iter().map(|r| (r.step, norm(r)));
    let (blue, orange) = (RGBColor(31, 90, 150), RGBColor(230, 120, 20));
    chart
        .draw_series(LineSeries::new(norms, blue.mix(0.8).stroke_width(1)))?
        .label("norm before clipping")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], blue.stroke_width(2)));
    let finite = reports.iter().filter(|r| threshold(r).is_finite());
    chart
        .draw_series(LineSeries::new(finite.map(|r| (r.step, threshold(r))), orange.stroke_width(2)))?
        .label("threshold")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], orange.stroke_width(2)));
    let clipped = reports.iter().filter(|r| r.clipped());
    chart
        .draw_series(clipped.map(|r| Circle::new((r.step, norm(r)), 4, RED.filled())))?
        .label("clipped step")
        .legend(|(x, y)| Circle::new((x + 9, y), 4, RED.filled()));
    legend::draw(&mut chart, SeriesLabelPosition::UpperRight)?;
    root.present()?;
    Ok(())
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let (radius, angle) = ((-2.0 * (1.0 - self.unit()).ln()).sqrt(), self.unit());
        radius * (2.0 * std::f64::consts::PI * angle).cos()
    }
}
