//! The usual tutorial loops: an MLP on ten classes of 28×28 pictures, trained with and without clipping.
//! The pictures are made here from a fixed seed, so nothing is downloaded.
//!
//! 784-128-10 with SGD and a global norm of 1; 784-512-512-10 with a rate that decays, with value clipping at
//! 0.5 and with both in a row. Prints a line a variant and draws losses and norms.
//!
//!     cargo run --example mlp -- [--epochs 10] [mlp.svg]

use std::error::Error;
use std::f32::consts::TAU;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Int, Tensor, TensorData, activation::relu};
use gradclip_burn::gradclip::Schedule;
use gradclip_burn::{Clip, Clipper};
use indicatif::{ProgressBar, ProgressStyle};
use plotters::prelude::*;

const PIXELS: usize = 784;
const CLASSES: usize = 10;
const TRAINING: usize = 2000;
const TEST: usize = 500;
const BATCH: usize = 64;
/// Pictures are not normalised: gradients are long enough for every clip here.
const CONTRAST: f32 = 8.0;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Module, Debug)]
struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    fn new(hidden: &[usize], device: &Device) -> Mlp {
        let sizes = [&[PIXELS], hidden, &[CLASSES]].concat();
        Mlp { layers: sizes.windows(2).map(|s| LinearConfig::new(s[0], s[1]).init(device)).collect() }
    }

    fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let hidden = |x, (i, layer): (usize, &Linear)| layer.forward(if i > 0 { relu(x) } else { x });
        self.layers.iter().enumerate().fold(input, hidden)
    }
}

/// Numbers from -1 to 1, the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// A smooth picture: a few waves across it.
fn prototype(numbers: &mut Numbers) -> Vec<f32> {
    let waves: Vec<[f32; 3]> = (0..6).map(|_| [(); 3].map(|()| numbers.next())).collect();
    let pixel = |i: usize| {
        let (x, y) = ((i % 28) as f32 / 28.0, (i / 28) as f32 / 28.0);
        waves.iter().map(|[a, b, phase]| (TAU * (2.0 * a * x + 2.0 * b * y + phase)).sin()).sum::<f32>() / 2.5
    };
    (0..PIXELS).map(pixel).collect()
}

struct Batch {
    input: Tensor<2>,
    target: Tensor<1, Int>,
}

fn batch(prototypes: &[Vec<f32>], count: usize, numbers: &mut Numbers, device: &Device) -> Batch {
    let mut pixels = Vec::with_capacity(count * PIXELS);
    let mut classes = Vec::with_capacity(count);
    for _ in 0..count {
        let class = ((numbers.next() + 1.0) * 0.5 * CLASSES as f32) as usize % CLASSES;
        let strength = 1.0 + 0.5 * numbers.next();
        pixels.extend(prototypes[class].iter().map(|p| CONTRAST * (strength * p + 2.5 * numbers.next())));
        classes.push(class as i32);
    }
    Batch {
        input: Tensor::from_data(TensorData::new::<f32, _>(pixels, [count, PIXELS]), device),
        target: Tensor::from_data(TensorData::new::<i32, _>(classes, [count]), device),
    }
}

struct Variant {
    name: &'static str,
    hidden: &'static [usize],
    schedule: Schedule,
    clips: Vec<Clip>,
}

#[derive(Default)]
struct Run {
    name: &'static str,
    losses: Vec<f32>,
    norms: Vec<f32>,
    accuracy: f64,
    clipped: Vec<f64>,
}

fn variants(steps: u64) -> Result<Vec<Variant>> {
    let constant = Schedule::constant(0.01)?;
    let decay = Schedule::step_decay(0.01, (steps / 3).max(1), 0.5)?;
    let (norm, value) = (Clip::global_norm(1.0), Clip::value(0.5));
    let variant = |name, hidden: &'static [usize], schedule: &Schedule, clips: &[Clip]| Variant {
        name,
        hidden,
        schedule: schedule.clone(),
        clips: clips.to_vec(),
    };
    Ok(vec![
        // Measured only: its norms are those of no clipping.
        variant("128, none", &[128], &constant, &[Clip::measure()]),
        variant("128, norm 1", &[128], &constant, &[norm]),
        variant("512-512, decay, none", &[512, 512], &decay, &[Clip::measure()]),
        variant("512-512, decay, value 0.5", &[512, 512], &decay, &[Clip::measure(), value]),
        variant("512-512, decay, norm 1, value 0.5", &[512, 512], &decay, &[norm, value]),
    ])
}

fn train(v: &Variant, data: &[Batch], test: &Batch, epochs: usize, at: (&Device, &WgpuSetup)) -> Result<Run> {
    let (device, setup) = at;
    device.seed(1);
    let mut model = Mlp::new(v.hidden, device);
    let mut optimizer = SgdConfig::new().init();
    let clippers = v.clips.iter().map(|&clip| Clipper::new(device, setup, clip));
    let clippers = clippers.collect::<std::result::Result<Vec<_>, _>>()?;
    let cross_entropy = CrossEntropyLossConfig::new().init(device);
    let bar = ProgressBar::new((epochs * data.len()) as u64).with_message(v.name);
    bar.set_style(ProgressStyle::with_template("{msg:34} {bar:30} {pos}/{len} {elapsed}")?);
    let mut run = Run { name: v.name, ..Run::default() };
    let mut losses = Vec::new();
    for step in 0..epochs * data.len() {
        let Batch { input, target } = &data[step % data.len()];
        let loss = cross_entropy.forward(model.forward(input.clone()), target.clone());
        losses.push(loss.clone().inner());
        let mut grads = GradientsParams::from_grads(loss.backward(), &model);
        for clipper in &clippers {
            clipper.clip(&model, &mut grads)?;
        }
        model = optimizer.step(v.schedule.at(step as u64), model, grads);
        take_norms(&clippers, &mut run.norms)?;
        bar.inc(1);
    }
    device.sync()?;
    take_norms(&clippers, &mut run.norms)?;
    bar.finish();
    for clipper in &clippers {
        run.clipped.push(clipper.report()?.clipped_share());
    }
    run.losses = Tensor::cat(losses, 0).into_data().try_to_vec().map_err(|e| format!("{e:?}"))?;
    run.accuracy = accuracy(&model, test)?;
    Ok(run)
}

/// The norms that have arrived, of the first clipper: those before any clipping.
fn take_norms(clippers: &[Clipper], norms: &mut Vec<f32>) -> Result<()> {
    for (i, clipper) in clippers.iter().enumerate() {
        while let Some(report) = clipper.poll() {
            let norm = report?.norm().unwrap_or(f64::NAN);
            if i == 0 {
                norms.push(norm as f32);
            }
        }
    }
    Ok(())
}

fn accuracy(model: &Mlp, test: &Batch) -> Result<f64> {
    let scores = model.forward(test.input.clone()).into_data().convert::<f32>();
    let scores: Vec<f32> = scores.try_to_vec().map_err(|e| format!("{e:?}"))?;
    let classes: Vec<i32> =
        test.target.clone().into_data().convert::<i32>().try_to_vec().map_err(|e| format!("{e:?}"))?;
    let best = |s: &[f32]| (0..CLASSES).max_by(|&a, &b| s[a].total_cmp(&s[b])).map(|c| c as i32);
    let right = scores.chunks(CLASSES).zip(&classes).filter(|(s, c)| best(s) == Some(**c)).count();
    Ok(right as f64 / classes.len() as f64)
}

fn print(run: &Run) {
    let largest = run.norms.iter().copied().fold(0.0, f32::max);
    let last = run.losses.last().copied().unwrap_or(f32::NAN);
    let shares: Vec<String> = run.clipped.iter().map(|s| format!("{:.1} %", 100.0 * s)).collect();
    println!(
        "{:34} test accuracy {:.1} %, final loss {last:.4}, largest norm {largest:.2}, steps clipped {}",
        run.name,
        100.0 * run.accuracy,
        shares.join(" then "),
    );
}

fn draw(file: &str, runs: &[Run]) -> Result<()> {
    let root = SVGBackend::new(file, (960, 800)).into_drawing_area();
    root.fill(&WHITE)?;
    for (i, area) in root.split_evenly((2, 1)).iter().enumerate() {
        let name = ["loss (nats)", "gradient norm before clipping"][i];
        let values = |run: &Run| if i == 0 { run.losses.clone() } else { run.norms.clone() };
        let series: Vec<Vec<f32>> = runs.iter().map(values).collect();
        let high = series.iter().flatten().copied().filter(|v| v.is_finite()).fold(0.1, f32::max);
        let steps = series.iter().map(Vec::len).max().unwrap_or(1);
        let mut chart = ChartBuilder::on(area)
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0..steps, 0.0..high * 1.3)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc("step (of 64 pictures)").y_desc(name).light_line_style(TRANSPARENT);
        mesh.axis_desc_style(("sans-serif", 15)).label_style(("sans-serif", 13)).draw()?;
        for (k, values) in series.into_iter().enumerate() {
            let color = Palette99::pick(k).to_rgba();
            chart
                .draw_series(LineSeries::new(values.into_iter().enumerate(), color.stroke_width(1)))?
                .label(runs[k].name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
        }
        let mut legend = chart.configure_series_labels();
        legend.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.9));
        legend.label_font(("sans-serif", 14)).border_style(BLACK.mix(0.3)).draw()?;
    }
    root.present()?;
    Ok(())
}

fn arguments() -> Result<(usize, String)> {
    let (mut epochs, mut file) = (10, "mlp.svg".to_string());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--epochs" => {
                epochs = arguments.next().ok_or("--epochs needs a number")?.parse::<usize>()?.max(1)
            }
            _ => file = argument,
        }
    }
    Ok((epochs, file))
}

fn main() -> Result<()> {
    let (epochs, file) = arguments()?;
    let (device, setup) = Device::wgpu_options().init_with_setup()?;
    println!("on {}, {epochs} epochs", setup.adapter.get_info().name);
    let device = device.autodiff();
    let mut numbers = Numbers(7);
    let prototypes: Vec<Vec<f32>> = (0..CLASSES).map(|_| prototype(&mut numbers)).collect();
    let data: Vec<Batch> = (0..TRAINING)
        .step_by(BATCH)
        .map(|first| batch(&prototypes, BATCH.min(TRAINING - first), &mut numbers, &device))
        .collect();
    let test = batch(&prototypes, TEST, &mut numbers, &device);
    let mut runs = Vec::new();
    for variant in variants((epochs * data.len()) as u64)? {
        let run = train(&variant, &data, &test, epochs, (&device, &setup))?;
        print(&run);
        runs.push(run);
    }
    draw(&file, &runs)?;
    println!("{file} shows losses and norms");
    let clipped = runs.iter().find(|run| run.name == "128, norm 1").map_or(0.0, |run| run.accuracy);
    if clipped > 0.9 { Ok(()) } else { Err(format!("the clipped MLP has only {clipped:.3} accuracy").into()) }
}
