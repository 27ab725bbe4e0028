//! Four micro-batches and a step of AdamW on the CPU path: the trainer, with `f32` parameters and with 16 bits, beside the parts that it
//! is made of, and PyTorch where `GRADCLIP_TORCH` names a Python that has it.
//!
//! Arms take turns in one process, PyTorch in one of its own that waits meanwhile, and the bandwidth of a copy is measured in the same
//! run. `GRADCLIP_BENCH=gpt2,tiny` picks sets, `GRADCLIP_ROUNDS=9` the number of turns; `GRADCLIP_RECORD=FILE` appends to a CSV file.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use gradclip::cpu::{self, ParameterMut, StepMut, SumMut};
use gradclip::{Adam, Clip};
use gradclip_verify::sets;
use half::bf16;
use rayon::prelude::*;

mod common;

use common::{random, record, summary};

const MICRO_BATCHES: usize = 4;

struct Set {
    name: String,
    gradients: Vec<Vec<f32>>,
    halves: Vec<Vec<bf16>>,
    elements: usize,
}

fn set(name: &str) -> Set {
    let shapes = sets::shapes(name).unwrap_or_else(|| panic!("no gradient set `{name}`"));
    let one = |(i, s): (usize, &Vec<u64>)| random(s.iter().product::<u64>() as usize, i as u64, 1e-3);
    let gradients: Vec<Vec<f32>> = shapes.iter().enumerate().map(one).collect();
    let halves = gradients.iter().map(|g| g.iter().map(|&x| bf16::from_f32(x)).collect()).collect();
    let elements = gradients.iter().map(Vec::len).sum();
    Set { name: name.into(), gradients, halves, elements }
}

/// One way to train, with the bytes that a step of it moves for an element.
struct Arm<'a> {
    how: &'static str,
    bytes: usize,
    /// Milliseconds of a step.
    step: Box<dyn FnMut() -> f64 + 'a>,
}

/// A sum reads and writes 12 bytes of `f32`, the first 8; the step moves 32, with masters 34, `bf16` alone 28.
fn bytes(gradient: usize, step: usize) -> usize {
    MICRO_BATCHES * (gradient + 8) - 4 + step
}

fn ones(set: &Set) -> Vec<Vec<f32>> {
    set.gradients.iter().map(|g| vec![1.0; g.len()]).collect()
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

fn parts(set: &Set, clip: Clip) -> Arm<'_> {
    let (mut p, mut sums) = (ones(set), ones(set));
    let clip = clip.unscale(1.0 / MICRO_BATCHES as f64);
    let mut prepared = {
        let like: Vec<_> = sums.iter().zip(&mut p).map(|(g, p)| StepMut::new("t", &g[..], p)).collect();
        cpu::prepare_step(&like, &clip, Adam::adamw(0.01)).unwrap()
    };
    let step = move || {
        timed(|| {
            for micro_batch in 0..MICRO_BATCHES {
                let each = set.gradients.iter().zip(&mut sums);
                let mut each: Vec<_> = each.map(|(g, sum)| SumMut::new("t", &g[..], sum)).collect();
                cpu::accumulate(&mut each, micro_batch == 0).unwrap();
            }
            prepared.step(sums.iter().map(|sum| &sum[..]).zip(&mut p)).unwrap();
        })
    };
    Arm { how: "parts", bytes: bytes(4, 32), step: Box::new(step) }
}

fn single(set: &Set, clip: Clip) -> Arm<'_> {
    let mut p = ones(set);
    let mut trainer = {
        let like: Vec<_> =
            set.gradients.iter().zip(&mut p).map(|(g, p)| StepMut::new("t", &g[..], p)).collect();
        cpu::prepare_training(&like, &clip, Adam::adamw(0.01), MICRO_BATCHES as u32).unwrap()
    };
    let step = move || {
        timed(|| {
            for _ in 0..MICRO_BATCHES {
                trainer.record(set.gradients.iter().map(|g| &g[..]).zip(&mut p)).unwrap();
            }
        })
    };
    Arm { how: "trainer, f32", bytes: bytes(4, 32), step: Box::new(step) }
}

/// Gradients of `bf16`, too.
fn mixed(set: &Set, clip: Clip) -> Arm<'_> {
    let mut masters = ones(set);
    let mut p: Vec<Vec<bf16>> = set.halves.iter().map(|g| vec![bf16::ONE; g.len()]).collect();
    let mut trainer = {
        let both = masters.iter_mut().zip(&mut p).map(|(m, p)| ParameterMut::Bf16(m, p));
        let like: Vec<_> = set.halves.iter().zip(both).map(|(g, p)| StepMut::new("t", &g[..], p)).collect();
        cpu::prepare_training(&like, &clip, Adam::adamw(0.01), MICRO_BATCHES as u32).unwrap()
    };
    let step = move || {
        timed(|| {
            for _ in 0..MICRO_BATCHES {
                let both = masters.iter_mut().zip(&mut p).map(|(m, p)| ParameterMut::Bf16(m, p));
                trainer.record(set.halves.iter().map(|g| &g[..]).zip(both)).unwrap();
            }
        })
    };
    Arm { how: "trainer, bf16 and masters", bytes: bytes(2, 34), step: Box::new(step) }
}

fn by_chance(set: &Set, clip: Clip) -> Arm<'_> {
    let mut p: Vec<Vec<bf16>> = set.halves.iter().map(|g| vec![bf16::ONE; g.len()]).collect();
    let mut trainer = {
        let like: Vec<_> = set
            .halves
            .iter()
            .zip(&mut p)
            .map(|(g, p)| StepMut::new("t", &g[..], &mut p[..]).stochastic_rounding(1))
            .collect();
        cpu::prepare_training(&like, &clip, Adam::adamw(0.01), MICRO_BATCHES as u32).unwrap()
    };
    let step = move || {
        timed(|| {
            for _ in 0..MICRO_BATCHES {
                let p = p.iter_mut().map(|p| &mut p[..]);
                trainer.record(set.halves.iter().map(|g| &g[..]).zip(p)).unwrap();
            }
        })
    };
    Arm { how: "trainer, bf16 by chance", bytes: bytes(2, 28), step: Box::new(step) }
}

/// A process that makes a step for each line.
struct Torch {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Torch {
    fn step(&mut self) -> f64 {
        writeln!(self.ask, "step").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It clears, adds, divides, clips and steps: 8 + 3 · 12 + 8 + 12 + 28 bytes.
fn torch(set: &Set) -> Option<Arm<'static>> {
    let python = std::env::var_os("GRADCLIP_TORCH")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/torch_training.py");
    let mut command = Command::new(python);
    command.arg(script).arg(&set.name).arg(rayon::current_num_threads().to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (ask, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut torch = Torch { child, ask, answers };
    Some(Arm { how: "PyTorch, foreach", bytes: 92, step: Box::new(move || torch.step()) })
}

/// Bytes a second of a copy in parallel, read and written.
fn copy_bandwidth(set: &Set) -> f64 {
    let from: Vec<f32> = vec![1.0; set.elements];
    let mut to = vec![0.0f32; set.elements];
    let mut copy = || {
        timed(|| {
            to.par_chunks_mut(1 << 14).zip(from.par_chunks(1 << 14)).for_each(|(t, f)| t.copy_from_slice(f))
        })
    };
    let best = (0..5).map(|_| copy()).fold(f64::INFINITY, f64::min);
    set.elements as f64 * 8e3 / best
}

fn main() {
    let sets = std::env::var("GRADCLIP_BENCH").unwrap_or_else(|_| "gpt2,tiny".into());
    let rounds = std::env::var("GRADCLIP_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(9);
    let mut record = record(
        "set,tensors,elements,how,copy_gb_per_s,median_ms,min_ms,max_ms,bytes_an_element,gb_per_s,times_trainer",
    );
    println!(
        "| set | how | ms | bytes/element | GB/s | of copy | × trainer |\n|---|---|---|---|---|---|---|"
    );
    for name in sets.split(',') {
        let set = set(name);
        let (copy, clip) = (copy_bandwidth(&set), Clip::global_norm(1.0));
        let mut arms = vec![single(&set, clip), parts(&set, clip), mixed(&set, clip), by_chance(&set, clip)];
        arms.extend(torch(&set));
        arms.iter_mut().for_each(|arm| {
            (arm.step)();
        });
        let mut times = vec![Vec::new(); arms.len()];
        for _ in 0..rounds {
            arms.iter_mut().zip(&mut times).for_each(|(arm, times)| times.push((arm.step)()));
        }
        let times: Vec<[f64; 3]> = times.iter_mut().map(|times| summary(times)).collect();
        for (arm, &[ms, min, max]) in arms.iter().zip(&times) {
            let (rate, ratio) = ((arm.bytes * set.elements) as f64 / ms * 1e3, ms / times[0][0]);
            println!(
                "| {name} | {} | {ms:.3} ({min:.3} to {max:.3}) | {} | {:.2} | {:.0} % | {ratio:.2} |",
                arm.how,
                arm.bytes,
                rate / 1e9,
                rate * 100.0 / copy
            );
            if let Some(file) = &mut record {
                writeln!(
                    file,
                    "{name},{},{},\"{}\",{:.4},{ms:.4},{min:.4},{max:.4},{},{:.4},{ratio:.4}",
                    set.gradients.len(),
                    set.elements,
                    arm.how,
                    copy / 1e9,
                    arm.bytes,
                    rate / 1e9
                )
                .unwrap();
            }
        }
    }
}
