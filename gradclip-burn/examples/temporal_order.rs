//! How far back a recurrent net learns to look, with and without clipping: figure 7 of Pascanu, Mikolov and
//! Bengio (On the difficulty of training recurrent neural networks, 2013, arXiv 1211.5063), success in the
//! temporal-order task of Hochreiter and Schmidhuber (1997) against the length of the sequences.
//!
//! All but two of T symbols are drawn from c, d, e, f. One from T/10 to 2T/10 and one from 4T/10 to 5T/10
//! are A or B; after the last symbol a net of tanh units is to say which: AA, AB, BA or BB. It has solved a
//! length when it is wrong on less than 1 % of fresh sequences.
//!
//! All nets of a length are trained in one graph, row i of every tensor being net i, so that a time step
//! costs as many dispatches as that of one net. Half of them are clipped, each by its own norm:
//! [`Clip::per_row_norm`]. The other half has the same first weights and sees the same sequences.
//!
//!     cargo run --example temporal_order -- [--full] [--seed 1] [temporal_order.svg]
//!
//! `--full` takes the paper's numbers: 50 units, a rate of 0.01, 5 runs of up to 5 million updates, tests of
//! 10000 sequences, first weights of a deviation of 0.1 ("basic tanh"). Its lengths, from 50 to 250, and the
//! 1000 updates between tests are chosen: the text does not give them. It is meant for days on a GPU.
//!
//! The small size takes minutes on a CPU: 20 units whose recurrent weights begin at a spectral radius near
//! 1, 8 runs of up to 1000 updates. Batches of 20 and the threshold of 1 are the paper's. The rate of 0.1 is
//! not: of 0.03, 0.05, 0.1, 0.2 and 0.3, tried with 16 other runs a length, 0.05 let the nets that are not
//! clipped solve most (34 of 80) and 0.2 those that are (67 of 80); 0.1 lies between. Small rates need no
//! clipping, but are too slow for the longer sequences.

use std::error::Error;
use std::f32::consts::TAU;

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::log_softmax;
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, Tensor, TensorData};
use gradclip_burn::{Clip, Clipper};
use indicatif::{ProgressBar, ProgressStyle};
use plotters::prelude::*;

const SYMBOLS: usize = 6;
const CLASSES: usize = 4;
const BATCH: usize = 20;
const MAX_NORM: f32 = 1.0;
const MOST_WRONG: f32 = 0.01;
/// Sequences of a test that are in memory at a time.
const CHUNK: usize = 500;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Size {
    lengths: &'static [usize],
    /// Nets a length, with and without clipping each.
    runs: usize,
    hidden: usize,
    /// Deviation of the first recurrent weights.
    deviation: f32,
    rate: f64,
    updates: usize,
    /// Updates from one test to the next.
    every: usize,
    /// Sequences in a test: whole [`CHUNK`]s.
    tested: usize,
}

const SMALL: Size = Size {
    lengths: &[10, 15, 20, 25, 30],
    runs: 8,
    hidden: 20,
    deviation: 0.2236, // 1 / √hidden
    rate: 0.1,
    updates: 1000,
    every: 50,
    tested: CHUNK,
};

const FULL: Size = Size {
    lengths: &[50, 100, 150, 200, 250],
    runs: 5,
    hidden: 50,
    deviation: 0.1,
    rate: 0.01,
    updates: 5_000_000,
    every: 1000,
    tested: 10_000,
};

/// Numbers from 0 to 1, the same everywhere.
struct Numbers(u64);

impl Numbers {
    /// A source for each of the runs.
    fn sources(seed: u64, runs: usize) -> Vec<Numbers> {
        let source = |run: u64| Numbers((1000 * seed + run + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        (0..runs as u64).map(source).collect()
    }

    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() * end as f32) as usize
    }

    fn normal(&mut self) -> f32 {
        (-2.0 * (1.0 - self.next()).ln()).sqrt() * (TAU * self.next()).cos()
    }
}

/// The symbols c, d, e, f are 2 to 5 here, A and B 0 and 1.
fn sequence(length: usize, numbers: &mut Numbers) -> (Vec<usize>, usize) {
    let mut symbols: Vec<usize> = (0..length).map(|_| 2 + numbers.below(SYMBOLS - 2)).collect();
    let mut class = 0;
    for tenths in [1, 4] {
        let (first, last) = (tenths * length / 10, (tenths + 1) * length / 10);
        let symbol = numbers.below(2);
        symbols[first + numbers.below(last - first + 1)] = symbol;
        class = 2 * class + symbol;
    }
    (symbols, class)
}

/// Sequences for all nets, one-hot.
struct Sequences {
    /// A time step each: net, sequence, symbol, and after the symbols a 1 for the bias.
    steps: Vec<Tensor<3>>,
    classes: Tensor<3>,
}

impl Sequences {
    fn new(length: usize, count: usize, sources: &mut [Numbers], device: &Device) -> Sequences {
        let mut steps = vec![Vec::new(); length];
        let mut classes = Vec::new();
        let runs = sources.len();
        for numbers in sources {
            for _ in 0..count {
                let (symbols, class) = sequence(length, numbers);
                for (step, symbol) in steps.iter_mut().zip(symbols) {
                    push_one_hot(step, symbol, SYMBOLS);
                    step.push(1.0);
                }
                push_one_hot(&mut classes, class, CLASSES);
            }
        }
        let tensor = |mut values: Vec<f32>, width: usize| {
            // The nets that are not clipped see the same.
            values.extend_from_within(..);
            Tensor::from_data(TensorData::new::<f32, _>(values, [2 * runs, count, width]), device)
        };
        Sequences {
            steps: steps.into_iter().map(|values| tensor(values, SYMBOLS + 1)).collect(),
            classes: tensor(classes, CLASSES),
        }
    }
}

fn push_one_hot(values: &mut Vec<f32>, hot: usize, of: usize) {
    values.extend((0..of).map(|i| if i == hot { 1.0 } else { 0.0 }));
}

/// Row i of every tensor belongs to net i.
#[derive(Module, Debug)]
struct Nets {
    /// From the symbols, the bias' 1 and the state.
    hidden: Param<Tensor<3>>,
    output: Param<Tensor<3>>,
    output_bias: Param<Tensor<3>>,
}

impl Nets {
    fn new(size: &Size, seed: u64, device: &Device) -> Nets {
        let mut sources = Numbers::sources(seed, size.runs);
        // Of each net by its rows' deviations.
        let mut normal = |rows: &[f32], columns: usize| {
            let mut values = Vec::new();
            for numbers in &mut sources {
                values.extend((0..rows.len() * columns).map(|i| rows[i / columns] * numbers.normal()));
            }
            let data = TensorData::new::<f32, _>(values, [size.runs, rows.len(), columns]);
            Param::from_tensor(Tensor::from_data(data, device))
        };
        let rows = [vec![0.1; SYMBOLS], vec![0.0], vec![size.deviation; size.hidden]].concat();
        Nets {
            hidden: normal(&rows, size.hidden),
            output: normal(&vec![0.1; size.hidden], CLASSES),
            output_bias: normal(&[0.0], CLASSES),
        }
    }
}

#[derive(Module, Debug)]
struct Both {
    clipped: Nets,
    free: Nets,
}

impl Both {
    /// What all nets say after the last element: net, sequence, class.
    fn forward(&self, sequences: &Sequences) -> Tensor<3> {
        let stacked = |of: fn(&Nets) -> &Param<Tensor<3>>| {
            Tensor::cat(vec![of(&self.clipped).val(), of(&self.free).val()], 0)
        };
        let hidden = stacked(|nets| &nets.hidden);
        let [nets, count, _] = sequences.classes.dims();
        let start = Tensor::zeros([nets, count, hidden.dims()[2]], &sequences.classes.device());
        let state = sequences.steps.iter().fold(start, |state, step| {
            Tensor::cat(vec![step.clone(), state], 2).matmul(hidden.clone()).tanh()
        });
        state.matmul(stacked(|nets| &nets.output)) + stacked(|nets| &nets.output_bias)
    }
}

/// How many of `count` fresh sequences each net is wrong on.
fn wrong(model: &Both, (length, count): (usize, usize), sources: &mut [Numbers]) -> Result<Vec<f32>> {
    let model = model.valid();
    let device = model.free.output.val().device();
    let mut wrong = Tensor::<1>::zeros([2 * sources.len()], &device);
    for _ in 0..count / CHUNK {
        let sequences = Sequences::new(length, CHUNK, sources, &device);
        let differs = model.forward(&sequences).argmax(2).not_equal(sequences.classes.argmax(2));
        wrong = wrong + differs.float().sum_dim(1).flatten(0, 2);
    }
    wrong.into_data().convert::<f32>().try_to_vec().map_err(|e| format!("{e:?}").into())
}

struct Point {
    length: usize,
    /// The update after which each net had solved the length: those clipped, those not.
    solved: [Vec<Option<usize>>; 2],
}

impl Point {
    fn successes(&self) -> [usize; 2] {
        [0, 1].map(|half| self.solved[half].iter().flatten().count())
    }

    fn print(&self) {
        let [clipped, free] = [0, 1].map(|half| {
            let solved = || self.solved[half].iter().flatten();
            let successes = format!("{} of {}", solved().count(), self.solved[half].len());
            match (solved().min(), solved().max()) {
                (Some(first), Some(last)) => format!("{successes} after {first} to {last} updates"),
                _ => successes,
            }
        });
        println!("{:>6}   {clipped:<40}   {free}", self.length);
    }
}

fn train(size: &Size, length: usize, seed: u64, at: (&Device, &WgpuSetup)) -> Result<Point> {
    let (device, setup) = at;
    let [first, seen, fresh] = [0, 1, 2].map(|use_of| 3 * seed + use_of);
    let mut model = Both { clipped: Nets::new(size, first, device), free: Nets::new(size, first, device) };
    let mut optimizer = SgdConfig::new().init();
    let clipper = Clipper::new(device, setup, Clip::per_row_norm(MAX_NORM))?.without_telemetry();
    let [mut seen, mut fresh] = [seen, fresh].map(|seed| Numbers::sources(seed, size.runs));
    let bar = ProgressBar::new(size.updates as u64);
    bar.set_style(ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {elapsed} {msg}")?);
    bar.set_prefix(format!("length {length}"));
    let mut point = Point { length, solved: [(); 2].map(|()| vec![None; size.runs]) };
    for update in 1..=size.updates {
        let sequences = Sequences::new(length, BATCH, &mut seen, device);
        let log_probabilities = log_softmax(model.forward(&sequences), 2);
        // A sum over nets: each gets the gradient of its own mean.
        let loss = (log_probabilities * sequences.classes).sum() / -(BATCH as f32);
        let mut grads = GradientsParams::from_grads(loss.backward(), &model);
        clipper.clip(&model.clipped, &mut grads)?;
        model = optimizer.step(size.rate, model, grads);
        bar.inc(1);
        if update % size.every == 0 {
            let wrong = wrong(&model, (length, size.tested), &mut fresh)?;
            for (solved, wrong) in point.solved.iter_mut().flatten().zip(wrong) {
                *solved = solved.or((wrong < MOST_WRONG * size.tested as f32).then_some(update));
            }
            let [clipped, free] = point.successes();
            bar.set_message(format!("solved by {clipped} clipped, {free} not clipped"));
            if clipped + free == 2 * size.runs {
                break;
            }
        }
    }
    bar.finish_and_clear();
    Ok(point)
}

fn draw(file: &str, size: &Size, points: &[Point]) -> Result<()> {
    let root = SVGBackend::new(file, (860, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    let end = size.lengths.iter().copied().max().unwrap_or(0) as f64 * 1.05;
    let title = format!("Temporal order: success of {} runs a length", size.runs);
    let mut chart = ChartBuilder::on(&root)
        .margin(18)
        .caption(title, ("sans-serif", 22))
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, -4.0..109.0)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("length of the sequences").y_desc("rate of success (%)").light_line_style(TRANSPARENT);
    mesh.x_label_formatter(&|x| format!("{x:.0}")).y_label_formatter(&|y| format!("{y:.0}"));
    mesh.axis_desc_style(("sans-serif", 16)).label_style(("sans-serif", 13)).draw()?;
    let clipped_to = format!("clipped to a norm of {MAX_NORM}");
    let [orange, purple] = [RGBColor(215, 90, 0), RGBColor(130, 0, 150)];
    // Where both coincide the wide one shows around the narrow one.
    for (half, name, color, wide) in [(1, "not clipped", orange, 5), (0, &clipped_to, purple, 2)] {
        let rate = |point: &Point| 100.0 * point.successes()[half] as f64 / size.runs as f64;
        let at = || points.iter().map(|point| (point.length as f64, rate(point)));
        chart
            .draw_series(LineSeries::new(at(), color.stroke_width(wide)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(wide)));
        chart.draw_series(at().map(|point| Circle::new(point, 2 + wide, color.filled())))?;
    }
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::LowerLeft).background_style(WHITE.mix(0.9));
    legend.border_style(BLACK.mix(0.3)).label_font(("sans-serif", 15)).draw()?;
    root.present()?;
    Ok(())
}

fn arguments() -> Result<(Size, u64, String)> {
    let (mut size, mut seed, mut file) = (SMALL, 1, "temporal_order.svg".to_string());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--full" => size = FULL,
            "--seed" => seed = arguments.next().ok_or("--seed needs a number")?.parse::<u32>()?.into(),
            _ => file = argument,
        }
    }
    Ok((size, seed, file))
}

fn main() -> Result<()> {
    let (size, seed, file) = arguments()?;
    let (device, setup) = Device::wgpu_options().init_with_setup()?;
    println!(
        "on {}, {} nets of {} units a length",
        setup.adapter.get_info().name,
        2 * size.runs,
        size.hidden
    );
    println!("length   {:<40}   solved, not clipped", "solved, clipped");
    let device = device.autodiff();
    let mut points = Vec::new();
    for &length in size.lengths {
        let point = train(&size, length, seed, (&device, &setup))?;
        point.print();
        points.push(point);
        draw(&file, &size, &points)?;
    }
    println!("{file} shows rates of success");
    let [clipped, free] =
        [0, 1].map(|half| points.iter().map(|point| point.successes()[half]).sum::<usize>());
    if clipped > free { Ok(()) } else { Err(format!("{clipped} clipped nets learnt, {free} others").into()) }
}
