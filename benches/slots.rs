//! What binding several gradient buffers at once costs and saves, over `ClipperOptions::max_slots`: a set in one
//! arena (several windows where a binding cannot span it), and every tensor in a buffer of its own. Prints
//! dispatches, the time of a first step with compiling, of recording alone (over and over, caches warm), of
//! recording and submitting between steps, and of both halves.
//!
//! `GRADCLIP_BENCH=gpt2,tiny` picks sets, `GRADCLIP_BENCH_SLOTS=default,1,2,4` the slots, `GRADCLIP_TEST_ADAPTER` the
//! adapter by its `backend/name`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::time::Instant;

use gradclip::{Clip, Clipper, ClipperOptions, Grad, Pass, wgpu};
use gradclip_verify::sets;

mod common;

use common::{Gpu, open, random};

const ROUNDS: usize = 7;
const BYTES: u64 = 4;
/// Recordings in a row, which nobody submits.
const RECORDINGS: usize = 100;

/// A set on the device, and what it is restored from.
struct Placed {
    pristine: wgpu::Buffer,
    /// Bytes of each buffer, with it.
    buffers: Vec<(u64, wgpu::Buffer)>,
    /// Number of a buffer, byte offset in it and elements of each tensor.
    tensors: Vec<(usize, u64, u64)>,
}

impl Placed {
    fn new(gpu: &Gpu, pristine: &wgpu::Buffer, sizes: &[u64], apart: bool) -> Placed {
        let mut lengths = Vec::new();
        let mut tensors = Vec::new();
        for &size in sizes {
            if apart || lengths.is_empty() {
                lengths.push(0);
            }
            let at = lengths.len() - 1;
            tensors.push((at, lengths[at], size));
            lengths[at] += BYTES * size;
        }
        let buffer = |bytes: u64| {
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("bench"),
                size: bytes,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let buffers = lengths.into_iter().map(|bytes| (bytes, buffer(bytes))).collect();
        Placed { pristine: pristine.clone(), buffers, tensors }
    }

    fn grads(&self) -> Vec<Grad> {
        let grad = |&(at, offset, elements): &(usize, u64, u64)| {
            Grad::range("g", &self.buffers[at].1, offset, elements)
        };
        self.tensors.iter().map(grad).collect()
    }

    fn restore(&self, gpu: &Gpu) {
        gpu.run(|encoder| {
            let mut from = 0;
            for (bytes, buffer) in &self.buffers {
                encoder.copy_buffer_to_buffer(&self.pristine, from, buffer, 0, *bytes);
                from += bytes;
            }
        });
    }
}

/// A pass, with what was measured of it, in ms.
struct Arm<'a> {
    placed: &'a Placed,
    place: &'static str,
    slots: Option<u32>,
    pass: Pass,
    first: f64,
    record: Vec<f64>,
    submit: Vec<f64>,
    norm: Vec<f64>,
    apply: Vec<f64>,
}

impl<'a> Arm<'a> {
    fn new(gpu: &Gpu, placed: &'a Placed, place: &'static str, slots: Option<u32>) -> Arm<'a> {
        let options = ClipperOptions::default();
        let options = slots.map_or(options, |slots| options.max_slots(slots));
        let clipper = Clipper::with_options(&gpu.device, options).unwrap();
        placed.restore(gpu);
        let start = Instant::now();
        // Small enough to clip, whatever repetitions have left.
        let pass = clipper.prepare(&placed.grads(), &Clip::global_norm(1e-30)).unwrap();
        gpu.run(|encoder| pass.record(encoder));
        let first = milliseconds(start);
        Arm { placed, place, slots, pass, first, record: vec![], submit: vec![], norm: vec![], apply: vec![] }
    }

    fn round(&mut self, gpu: &Gpu) {
        self.placed.restore(gpu);
        let ms = |record: &dyn Fn(&mut wgpu::CommandEncoder)| gpu.run(record).as_secs_f64() * 1e3;
        self.norm.push(ms(&|encoder| self.pass.record_norm(encoder)));
        self.apply.push(ms(&|encoder| self.pass.record_apply(encoder)));
        self.placed.restore(gpu);
        let start = Instant::now();
        gpu.queue.submit([self.recorded(gpu)]);
        self.submit.push(milliseconds(start));
        gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        for _ in 0..RECORDINGS {
            let start = Instant::now();
            let commands = self.recorded(gpu);
            self.record.push(milliseconds(start));
            drop(commands);
        }
    }

    fn recorded(&self, gpu: &Gpu) -> wgpu::CommandBuffer {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        self.pass.record(&mut encoder);
        encoder.finish()
    }

    fn print(mut self) {
        let dispatches = self.pass.dispatch_count();
        let [record, submit] = [&mut self.record, &mut self.submit].map(|ms| 1e3 * median(ms));
        let [norm, apply] = [&mut self.norm, &mut self.apply].map(|ms| median(ms));
        let (place, first) = (self.place, self.first);
        let slots = self.slots.map_or("default".into(), |slots| slots.to_string());
        println!(
            "| {place} | {slots} | {dispatches} | {first:.0} | {record:.0} | {submit:.0} | {norm:.2} | {apply:.2} |"
        );
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() {
    // `cargo test --benches` is for tests.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let Some(gpu) = open() else { return println!("no adapter") };
    let given = |name: &str, otherwise: &str| std::env::var(name).unwrap_or(otherwise.into());
    // What is not given is what the clipper chooses.
    let slots: Vec<Option<u32>> =
        given("GRADCLIP_BENCH_SLOTS", "default,1,2,4,8,30").split(',').map(|n| n.parse().ok()).collect();
    for name in given("GRADCLIP_BENCH", "gpt2,tiny").split(',') {
        let shapes = sets::shapes(name).unwrap_or_else(|| panic!("no gradient set `{name}`"));
        let sizes: Vec<u64> = shapes.iter().map(|shape| shape.iter().product()).collect();
        let pristine = gpu.buffer(&random(sizes.iter().sum::<u64>() as usize, 42, 1e-3));
        let [together, apart] = [false, true].map(|apart| Placed::new(&gpu, &pristine, &sizes, apart));
        let places = [("one arena", &together), ("buffers of their own", &apart)];
        let mut arms: Vec<Arm<'_>> = slots
            .iter()
            .flat_map(|&slots| places.map(|(place, placed)| Arm::new(&gpu, placed, place, slots)))
            .collect();
        for _ in 0..ROUNDS {
            arms.iter_mut().for_each(|arm| arm.round(&gpu));
        }
        println!("\n{}, {name}, medians of {ROUNDS} rounds\n", gpu.name);
        println!(
            "| tensors in | slots | dispatches | first step (ms) | record (µs) | and submit (µs) | norm (ms) | apply (ms) |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        arms.into_iter().for_each(Arm::print);
    }
}
