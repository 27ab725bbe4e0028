//! A small model that trains on the GPU with nothing but wgpu and this crate, and whose gradients
//! explode: with clipping it converges, without it ends at chance.
//!
//! `cargo run --release --example train_rnn -- [--check] [train_rnn.svg]`
//!
//! A recurrent net reads 60 symbols, of which two far from the end and from each other tell the class:
//! the temporal order task of Hochreiter and Schmidhuber (1997), with which Pascanu, Mikolov and Bengio
//! (2013) showed what clipping does. What a symbol adds to the gradient passes through up to 53 products
//! with the recurrent matrix. A net that carries anything so far does not let them shrink it, and is then
//! never far from one that lets them blow it up.
//!
//! The device makes the data, both passes through time, norm, clip and step. The host records them and
//! waits for none; losses and norms are copied on the device, and read after the last step.

use std::error::Error;
use std::time::Instant;

use gradclip::layout::{CLIPPED, Outcome};
use gradclip::{Clip, Clipper, DType, Grad, NonFinite, Schedule, Sgd, wgpu};
use gradclip::{adapter_name, adapters};
use wgpu::BufferUsages as Usage;

#[path = "train_rnn/check.rs"]
mod check;
#[path = "common/legend.rs"]
mod legend;
#[path = "train_rnn/plot.rs"]
mod plot;

const STEPS: usize = 1000;
const BATCH: usize = 32;
const LENGTH: usize = 60;
const SYMBOLS: usize = 6;
const CLASSES: usize = 4;
const HIDDEN: usize = 32;
const SEED: u32 = 1;
const RATE: f64 = 0.01;
const THRESHOLD: f32 = 1.0;

// The shader gives four units to an invocation, and a class to one.
const _: () = assert!(HIDDEN.is_multiple_of(4) && HIDDEN / 4 >= CLASSES);

// First elements of the tensors: one buffer holds all parameters, another one all gradients, and behind
// them the loss.
const INPUT: usize = 0;
const RECURRENT: usize = INPUT + SYMBOLS * HIDDEN;
const BIAS: usize = RECURRENT + HIDDEN * HIDDEN;
const READOUT: usize = BIAS + HIDDEN;
const READOUT_BIAS: usize = READOUT + CLASSES * HIDDEN;
const LOSS: usize = READOUT_BIAS + CLASSES;
const TENSORS: [(&str, usize, usize); 5] = [
    ("input", INPUT, RECURRENT),
    ("recurrent", RECURRENT, BIAS),
    ("bias", BIAS, READOUT),
    ("readout", READOUT, READOUT_BIAS),
    ("readout bias", READOUT_BIAS, LOSS),
];

fn main() -> Result<(), Box<dyn Error>> {
    let (options, files): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let file = files.first().map_or("train_rnn.svg", String::as_str);
    let adapter = adapters().into_iter().next().ok_or("no adapter: a software driver for Vulkan will do")?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_limits: Clipper::recommended_limits(&adapter),
        ..Default::default()
    }))?;
    let gpu = Gpu { device, queue };
    match options.as_slice() {
        [] => {}
        [option] if option == "--check" => return check::backward(&gpu),
        other => return Err(format!("expected --check, given {}", other.join(" ")).into()),
    }
    let started = Instant::now();
    let clipped = train(&gpu, &Clip::global_norm(THRESHOLD))?;
    // Only measured. An optimiser by itself does not look whether gradients are finite, so neither does
    // this run: the default, Skip, would leave out steps that a plain one makes. Nan makes them, and where
    // one element is not finite all parameters become NaN at once instead of a step later.
    let free = train(&gpu, &Clip::measure().on_non_finite(NonFinite::Nan))?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{}: {STEPS} steps with clipping and without in {seconds:.1} s",
        adapter_name(&adapter.get_info())
    );
    println!("norm clipped to {THRESHOLD}: {}", clipped.in_words());
    println!("not clipped: {}", free.in_words());
    plot::draw(file, &clipped, &free)?;
    println!("drawn to {file}");
    let (last, most) = (clipped.last_loss(), chance() / 10.0);
    if last.is_nan() || last > most {
        return Err(
            format!("did not converge with clipping: loss {last:.3}, at most {most:.3} expected").into()
        );
    }
    Ok(())
}

/// The cross-entropy of guessing, in nats.
fn chance() -> f64 {
    (CLASSES as f64).ln()
}

struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
}

impl Gpu {
    fn buffer(&self, label: &str, elements: usize, usage: Usage) -> wgpu::Buffer {
        let size = elements as u64 * 4;
        let label = Some(label);
        self.device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
    }

    fn kernel(&self, text: &str, buffers: &[&wgpu::Buffer], workgroups: usize) -> Kernel {
        let constants = [
            ("BATCH", BATCH),
            ("LENGTH", LENGTH),
            ("SYMBOLS", SYMBOLS),
            ("CLASSES", CLASSES),
            ("HIDDEN", HIDDEN),
            ("SEED", SEED as usize),
            ("INPUT", INPUT),
            ("RECURRENT", RECURRENT),
            ("BIAS", BIAS),
            ("READOUT", READOUT),
            ("READOUT_BIAS", READOUT_BIAS),
            ("LOSS", LOSS),
        ];
        let constants = constants.map(|(name, value)| format!("const {name}: u32 = {value}u;\n")).concat();
        let source = wgpu::ShaderSource::Wgsl((constants + text).into());
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        let resources = buffers.iter().map(|buffer| buffer.as_entire_binding());
        let entries =
            (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource });
        let bound = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries.collect::<Vec<_>>(),
        });
        Kernel { pipeline, bound, workgroups: workgroups as u32 }
    }

    /// Waits for everything submitted, and reads a buffer.
    fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer) -> Result<Vec<T>, Box<dyn Error>> {
        let staging = self.buffer("staging", buffer.size() as usize / 4, Usage::COPY_DST | Usage::MAP_READ);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, None);
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        Ok(bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..)?))
    }
}

struct Kernel {
    pipeline: wgpu::ComputePipeline,
    bound: wgpu::BindGroup,
    workgroups: u32,
}

/// Parameters, gradient and loss of the net, on the device.
struct Net {
    parameters: wgpu::Buffer,
    gradient: wgpu::Buffer,
    shares: wgpu::Buffer,
}

impl Net {
    fn new(gpu: &Gpu) -> Net {
        let usage = Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC;
        let net = Net {
            parameters: gpu.buffer("parameters", LOSS, usage),
            gradient: gpu.buffer("gradient", LOSS + 1, usage),
            shares: gpu.buffer("shares", BATCH * (LOSS + 1), usage),
        };
        gpu.queue.write_buffer(&net.parameters, 0, bytemuck::cast_slice(&initial()));
        net
    }

    /// Both passes, over the batch of the step that the first word of `step` tells.
    fn kernels(&self, gpu: &Gpu, step: &wgpu::Buffer) -> [Kernel; 2] {
        let through_time = include_str!("train_rnn/through_time.wgsl");
        let sum = include_str!("train_rnn/sum.wgsl");
        [
            gpu.kernel(through_time, &[&self.parameters, &self.shares, step], BATCH),
            gpu.kernel(sum, &[&self.shares, &self.gradient], (LOSS + 1).div_ceil(64)),
        ]
    }
}

fn record(kernels: &[Kernel], encoder: &mut wgpu::CommandEncoder) {
    let mut pass = encoder.begin_compute_pass(&Default::default());
    for kernel in kernels {
        pass.set_pipeline(&kernel.pipeline);
        pass.set_bind_group(0, &kernel.bound, &[]);
        pass.dispatch_workgroups(kernel.workgroups, 1, 1);
    }
}

/// Rotations of pairs of units, a little enlarged: what a state holds neither fades nor grows by much over
/// the sequence, until the net has learnt something.
fn initial() -> Vec<f32> {
    let mut random = Random(SEED.into());
    let mut parameters = vec![0.0; LOSS];
    parameters[INPUT..RECURRENT].fill_with(|| (0.05 * random.normal()) as f32);
    for unit in (0..HIDDEN).step_by(2) {
        let (sin, cos) = (random.unit() / 2.0).sin_cos();
        let at = |row: usize, column: usize| RECURRENT + (unit + row) * HIDDEN + unit + column;
        let block = [(at(0, 0), cos), (at(0, 1), sin), (at(1, 0), -sin), (at(1, 1), cos)];
        block.into_iter().for_each(|(at, value)| parameters[at] = (1.05 * value) as f32);
    }
    parameters[READOUT..READOUT_BIAS].fill_with(|| (0.05 * random.normal()) as f32);
    parameters
}

/// Losses and what the clip did, step by step.
struct Run {
    losses: Vec<f32>,
    outcomes: Vec<Outcome>,
}

/// Everything from the first to the last step is only recorded and submitted.
fn train(gpu: &Gpu, clip: &Clip) -> Result<Run, Box<dyn Error>> {
    let net = Net::new(gpu);
    let grads = TENSORS.map(|(name, from, to)| {
        let at = from as u64 * 4;
        Grad::range(name, &net.gradient, at, (to - from) as u64).parameter(&net.parameters, at, DType::F32)
    });
    let schedule = Schedule::cosine(RATE, 0.0, STEPS as u64)?;
    let clipper = Clipper::new(&gpu.device)?;
    let stepper = clipper.prepare_step(&grads, clip, Sgd::new(RATE).momentum(0.9))?;
    let kernels = net.kernels(gpu, stepper.pass().tally());
    let usage = Usage::COPY_DST | Usage::COPY_SRC;
    let losses = gpu.buffer("losses", STEPS, usage);
    let outcomes = gpu.buffer("outcomes", STEPS * size_of::<Outcome>() / 4, usage);
    for step in 0..STEPS as u64 {
        stepper.set_lr(&gpu.queue, schedule.at(step))?;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        record(&kernels, &mut encoder);
        stepper.record_step(&mut encoder);
        encoder.copy_buffer_to_buffer(&net.gradient, LOSS as u64 * 4, &losses, step * 4, 4);
        let bytes = stepper.pass().outcome_bytes();
        encoder.copy_buffer_to_buffer(stepper.pass().outcomes(), 0, &outcomes, step * bytes, bytes);
        gpu.queue.submit([encoder.finish()]);
    }
    Ok(Run { losses: gpu.read(&losses)?, outcomes: gpu.read(&outcomes)? })
}

impl Run {
    /// The mean over the last 50 steps.
    fn last_loss(&self) -> f64 {
        mean(&self.losses[STEPS - 50..])
    }

    fn in_words(&self) -> String {
        let largest = self.outcomes.iter().map(|o| o.norm).fold(0.0, f32::max);
        let clipped = self.outcomes.iter().filter(|o| o.flags & CLIPPED != 0).count();
        let not_finite = self.outcomes.iter().filter(|o| o.non_finite > 0).count();
        format!(
            "loss {:.3} at first, {:.4} over the last 50 steps (chance {:.3}); largest norm {largest:.1}, \
             {clipped} steps clipped, {not_finite} not finite",
            self.losses[0],
            self.last_loss(),
            chance(),
        )
    }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64
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
