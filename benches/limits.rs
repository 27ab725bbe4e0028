//! What each limit of updates and each rule beside a clip costs: steps with one, beside AdamW without, on the CPU path and on an adapter.
//!
//! Arms take turns in one process. `GRADCLIP_BENCH=1x25000000,1000x1000` picks sets, `GRADCLIP_TEST_ADAPTER` the adapter, `GRADCLIP_ROUNDS=9` the
//! number of turns; `GRADCLIP_RECORD=FILE` appends the figures to a CSV file.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::time::{Duration, Instant};

use gradclip::cpu::{self, StepMut};
use gradclip::{Adam, Adopt, Clip, Lars, Optimizer, Sgd, Skip, Spam, UpdateLimit};

mod common;

use common::{Gpu, cut, open, random, record, sizes, stepped, summary};

const RATE: f64 = 0.01;

/// A step with something, and the bytes an element that it moves on a device.
struct Step {
    name: &'static str,
    clip: Clip,
    optimizer: Optimizer,
    bytes: u32,
}

fn steps() -> Vec<Step> {
    let clip = Clip::global_norm(1.0);
    let adamw = Adam::adamw(RATE);
    let step = |name, optimizer: Optimizer, bytes| Step { name, clip, optimizer, bytes };
    vec![
        step("AdamW", adamw.into(), 32),
        step("AdamW, root of the mean square", adamw.limit(UpdateLimit::Rms(1.0)).into(), 48),
        step("StableAdamW", Adam::stable_adamw(RATE).into(), 48),
        step("LAMB", Adam::lamb(RATE).weight_decay(0.01).into(), 48),
        step("SPAM", Spam::new(RATE).into(), 32),
        step("ADOPT", Adopt::new(RATE).into(), 32),
        step("momentum", Sgd::new(RATE).momentum(0.9).into(), 24),
        step("LARS", Lars::new(RATE).into(), 32),
        Step { clip: clip.skip(Skip::z_score(6.0)), ..step("AdamW, spikes left out", adamw.into(), 32) },
    ]
}

struct Set {
    sizes: Vec<usize>,
    gradients: Vec<f32>,
    parameters: Vec<f32>,
}

fn set(name: &str) -> Set {
    let sizes = sizes(name);
    let n = sizes.iter().sum();
    Set { sizes, gradients: random(n, 42, 1e-3), parameters: random(n, 43, 1.0) }
}

type Arm<'a> = Box<dyn FnMut() -> Duration + 'a>;

fn on_cpu<'a>(set: &'a Set, step: &Step) -> Arm<'a> {
    let (mut parameters, mut gradients) = (set.parameters.clone(), set.gradients.clone());
    let mut prepared = {
        let parameters = cut(set.sizes.iter().copied(), &mut parameters);
        let gradients = cut(set.sizes.iter().copied(), &mut gradients);
        let like: Vec<StepMut<'_>> =
            parameters.into_iter().zip(gradients).map(|(p, g)| StepMut::new("t", &g[..], p)).collect();
        cpu::prepare_step(&like, &step.clip, step.optimizer).unwrap()
    };
    Box::new(move || {
        let parameters = cut(set.sizes.iter().copied(), &mut parameters);
        let gradients = cut(set.sizes.iter().copied(), &mut gradients);
        let start = Instant::now();
        prepared.step(gradients.into_iter().map(|g| &*g).zip(parameters)).unwrap();
        start.elapsed()
    })
}

fn on_gpu<'a>(gpu: &'a Gpu, set: &Set, step: &Step) -> Arm<'a> {
    let (arena, parameters) = (gpu.buffer(&set.gradients), gpu.buffer(&set.parameters));
    let grads = stepped(&set.sizes, &arena, &parameters);
    let stepper = gpu.clipper.prepare_step(&grads, &step.clip, step.optimizer).unwrap();
    Box::new(move || gpu.run(|encoder| stepper.record_step(encoder)))
}

fn main() {
    let sets = std::env::var("GRADCLIP_BENCH").unwrap_or_else(|_| "1x25000000,1000x1000".into());
    let rounds = std::env::var("GRADCLIP_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(9);
    let mut record =
        record("set,device,step,median_ms,min_ms,max_ms,bytes_an_element,times_adamw,times_its_bytes");
    let gpu = open();
    println!("| set | device | step | ms | × AdamW | bytes/element | × AdamW's bytes |");
    println!("|---|---|---|---|---|---|---|");
    for name in sets.split(',') {
        let (set, steps) = (set(name), steps());
        let here: Vec<Arm<'_>> = steps.iter().map(|step| on_cpu(&set, step)).collect();
        let there = gpu.as_ref().map(|gpu| {
            let arms = steps.iter().map(|step| on_gpu(gpu, &set, step)).collect::<Vec<Arm<'_>>>();
            (gpu.name.as_str(), arms)
        });
        for (device, mut arms) in std::iter::once(("cpu", here)).chain(there) {
            for arm in &mut arms {
                arm();
            }
            let mut times = vec![Vec::new(); arms.len()];
            for _ in 0..rounds {
                arms.iter_mut()
                    .zip(&mut times)
                    .for_each(|(arm, times)| times.push(arm().as_secs_f64() * 1e3));
            }
            let times: Vec<[f64; 3]> = times.iter_mut().map(|times| summary(times)).collect();
            for (Step { name: step, bytes, .. }, [median, min, max]) in steps.iter().zip(&times) {
                let (ratio, of_bytes) = (median / times[0][0], f64::from(*bytes) / f64::from(steps[0].bytes));
                println!(
                    "| {name} | {device} | {step} | {median:.2} ({min:.2} to {max:.2}) | {ratio:.2} | {bytes} | {of_bytes:.2} |"
                );
                if let Some(file) = &mut record {
                    let line =
                        format!("{name},\"{device}\",\"{step}\",{median:.4},{min:.4},{max:.4},{bytes}");
                    writeln!(file, "{line},{ratio:.4},{of_bytes:.4}").unwrap();
                }
            }
        }
    }
}
