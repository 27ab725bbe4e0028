//! Clip and step in one, prepared on the CPU path and not, beside clipping in place and a step after it: time, bytes, dispatches, on the CPU
//! path and on an adapter. Both end in the same parameters, which is checked first, as is the norm against
//! f64.
//!
//! Arms take turns in one process, gradients are restored outside the timing, and the copy bandwidth is
//! measured in the same run. `GRADCLIP_BENCH=gpt2,tiny,1000x1000` picks sets, `GRADCLIP_TEST_ADAPTER` the adapter,
//! `GRADCLIP_ROUNDS=9` the number of turns; `GRADCLIP_RECORD=FILE` appends the figures to a CSV file.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::time::{Duration, Instant};

use gradclip::cpu::{self, GradMut, Moments, StepMut};
use gradclip::{Adam, Clip, History, Optimizer, Sgd, wgpu};
use gradclip_verify::tolerance;
use rayon::prelude::*;

mod common;

use common::{Gpu, cut, open, random, record, sizes, stepped, summary};

const RATE: f64 = 0.01;

fn optimizers() -> [(&'static str, Optimizer); 3] {
    [
        ("sgd", Sgd::new(RATE).into()),
        ("momentum", Sgd::new(RATE).momentum(0.9).into()),
        ("adamw", Adam::adamw(RATE).into()),
    ]
}

struct Set {
    name: String,
    sizes: Vec<usize>,
    gradients: Vec<f32>,
    parameters: Vec<f32>,
    norm: f64,
}

fn set(name: &str) -> Set {
    let sizes = sizes(name);
    let n = sizes.iter().sum();
    let gradients = random(n, 42, 1e-3);
    let norm = gradients.par_iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    Set { name: name.into(), sizes, gradients, parameters: random(n, 43, 1.0), norm }
}

/// One way to clip and step: makes a step, and says how long it took.
struct Arm<'a> {
    device: String,
    how: &'static str,
    step: Box<dyn FnMut() -> Duration + 'a>,
    parameters: Box<dyn Fn() -> Vec<f32> + 'a>,
    dispatches: usize,
}

/// Shared by the closures of one arm.
type Shared<T> = std::rc::Rc<std::cell::RefCell<T>>;

fn shared<T>(value: T) -> Shared<T> {
    std::rc::Rc::new(std::cell::RefCell::new(value))
}

fn fused_on_cpu<'a>(set: &'a Set, clip: Clip, optimizer: Optimizer) -> Arm<'a> {
    let parameters = shared(set.parameters.clone());
    let now = parameters.clone();
    let (mut history, mut moments) = (History::default(), Moments::default());
    let step = move || {
        let mut parameters = parameters.borrow_mut();
        let mut at = 0;
        let mut steps: Vec<StepMut<'_>> = cut(set.sizes.iter().copied(), &mut parameters)
            .into_iter()
            .map(|p| {
                at += p.len();
                StepMut::new("t", &set.gradients[at - p.len()..at], p)
            })
            .collect();
        let start = Instant::now();
        let report = cpu::step(&mut steps, &clip, optimizer, &mut history, &mut moments).unwrap();
        let time = start.elapsed();
        assert!((report.norm().unwrap() / set.norm - 1.0).abs() < tolerance::NORM);
        time
    };
    let parameters = Box::new(move || now.borrow().clone());
    Arm { device: "cpu".into(), how: "fused", step: Box::new(step), parameters, dispatches: 0 }
}

/// As [`fused_on_cpu`], prepared once.
fn prepared_on_cpu<'a>(set: &'a Set, clip: Clip, optimizer: Optimizer) -> Arm<'a> {
    let parameters = shared(set.parameters.clone());
    let now = parameters.clone();
    let gradients = cut_ref(&set.sizes, &set.gradients);
    let mut prepared = {
        let mut parameters = parameters.borrow_mut();
        let like = cut(set.sizes.iter().copied(), &mut parameters).into_iter().zip(&gradients);
        let like: Vec<StepMut<'_>> = like.map(|(p, g)| StepMut::new("t", *g, p)).collect();
        cpu::prepare_step(&like, &clip, optimizer).unwrap()
    };
    let step = move || {
        let mut parameters = parameters.borrow_mut();
        let parameters = cut(set.sizes.iter().copied(), &mut parameters);
        let start = Instant::now();
        prepared.step(gradients.iter().copied().zip(parameters)).unwrap();
        let time = start.elapsed();
        assert!((prepared.norm().unwrap() / set.norm - 1.0).abs() < 1.2e-7);
        time
    };
    let parameters = Box::new(move || now.borrow().clone());
    Arm { device: "cpu".into(), how: "prepared", step: Box::new(step), parameters, dispatches: 0 }
}

fn cut_ref<'a>(sizes: &[usize], mut rest: &'a [f32]) -> Vec<&'a [f32]> {
    let one = |&len: &usize| {
        let (own, after) = rest.split_at(len);
        rest = after;
        own
    };
    sizes.iter().map(one).collect()
}

/// Clipping in place, then an update written as anybody would, in parallel blocks.
fn apart_on_cpu<'a>(set: &'a Set, clip: Clip, optimizer: Optimizer) -> Arm<'a> {
    let parameters = shared(set.parameters.clone());
    let now = parameters.clone();
    let n = set.gradients.len();
    let mut gradients = set.gradients.clone();
    let count = |k: usize| if optimizer.moments() > k { n } else { 0 };
    let (mut m, mut v) = (vec![0.0f32; count(0)], vec![0.0f32; count(1)]);
    let mut t = 0;
    let step = move || {
        gradients.copy_from_slice(&set.gradients);
        let start = Instant::now();
        let mut grads: Vec<_> = cut(set.sizes.iter().copied(), &mut gradients)
            .into_iter()
            .map(|g| GradMut::new("t", g))
            .collect();
        cpu::clip(&mut grads, &clip).unwrap();
        t += 1;
        plain_update(&optimizer, t, &gradients, &mut parameters.borrow_mut(), &mut m, &mut v);
        start.elapsed()
    };
    let parameters = Box::new(move || now.borrow().clone());
    Arm { device: "cpu".into(), how: "apart", step: Box::new(step), parameters, dispatches: 0 }
}

fn plain_update(optimizer: &Optimizer, t: i32, g: &[f32], p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    const BLOCK: usize = 1 << 14;
    let rate = RATE as f32;
    let blocks = p.par_chunks_mut(BLOCK).zip(g.par_chunks(BLOCK));
    match (optimizer, optimizer.moments()) {
        (_, 0) => blocks.for_each(|(p, g)| p.iter_mut().zip(g).for_each(|(p, g)| *p -= rate * g)),
        (_, 1) => blocks.zip(m.par_chunks_mut(BLOCK)).for_each(|((p, g), m)| {
            for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
                *m = 0.9 * *m + g;
                *p -= rate * *m;
            }
        }),
        _ => {
            let first = 1.0 / (1.0 - 0.9f64.powi(t)) as f32;
            let second = 1.0 / (1.0 - 0.999f64.powi(t)).sqrt() as f32;
            let moments = m.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK));
            blocks.zip(moments).for_each(|((p, g), (m, v))| {
                for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                    *m = 0.9 * *m + 0.1 * g;
                    *v = 0.999 * *v + 0.001 * g * g;
                    *p -= rate * (*m * first / (v.sqrt() * second + 1e-8) + 0.01 * *p);
                }
            });
        }
    }
}

fn fused_on_gpu<'a>(gpu: &'a Gpu, set: &'a Set, clip: Clip, optimizer: Optimizer) -> Arm<'a> {
    let (arena, parameters) = (gpu.buffer(&set.gradients), gpu.buffer(&set.parameters));
    let grads = stepped(&set.sizes, &arena, &parameters);
    let stepper = gpu.clipper.prepare_step(&grads, &clip, optimizer).unwrap();
    let dispatches = stepper.dispatch_count();
    let step = move || gpu.run(|e| stepper.record_step(e));
    arm_of(gpu, "fused", step, parameters, dispatches)
}

fn apart_on_gpu<'a>(gpu: &'a Gpu, set: &'a Set, clip: Clip, optimizer: Optimizer) -> Arm<'a> {
    let (pristine, arena) = (gpu.buffer(&set.gradients), gpu.buffer(&set.gradients));
    let parameters = gpu.buffer(&set.parameters);
    let grads = stepped(&set.sizes, &arena, &parameters);
    let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
    let stepper = gpu.clipper.prepare_step(&grads, &Clip::measure(), optimizer).unwrap();
    // The update alone: no norm, and the decision that one of 0 takes.
    let norm = stepper.pass().dispatch_count() - 1 - stepper.pass().plan().dispatches.len();
    let dispatches = pass.dispatch_count() + stepper.dispatch_count() - norm;
    let step = move || {
        gpu.run(|e| e.copy_buffer_to_buffer(&pristine, 0, &arena, 0, None));
        gpu.run(|e| {
            pass.record(e);
            stepper.record_update(e);
        })
    };
    arm_of(gpu, "apart", step, parameters, dispatches)
}

fn arm_of<'a>(
    gpu: &'a Gpu,
    how: &'static str,
    step: impl FnMut() -> Duration + 'a,
    parameters: wgpu::Buffer,
    dispatches: usize,
) -> Arm<'a> {
    let read = move || gpu.read(&parameters, parameters.size());
    Arm { device: gpu.name.clone(), how, step: Box::new(step), parameters: Box::new(read), dispatches }
}

fn copy_bandwidth(gpu: &Gpu, set: &Set) -> f64 {
    let (from, to) = (gpu.buffer(&set.gradients), gpu.buffer(&set.gradients));
    let copy = || gpu.run(|e| e.copy_buffer_to_buffer(&from, 0, &to, 0, None));
    let best = (0..5).map(|_| copy()).min().unwrap();
    from.size() as f64 * 2.0 / best.as_secs_f64()
}

/// Bytes a second of a copy in parallel, read and written.
fn copy_bandwidth_of_cpu(set: &Set) -> f64 {
    let mut to = vec![0.0f32; set.gradients.len()];
    let mut copy = || {
        let start = Instant::now();
        to.par_chunks_mut(1 << 14)
            .zip(set.gradients.par_chunks(1 << 14))
            .for_each(|(t, f)| t.copy_from_slice(f));
        start.elapsed()
    };
    let best = (0..5).map(|_| copy()).min().unwrap();
    to.len() as f64 * 8.0 / best.as_secs_f64()
}

/// Bytes an element that an arm moves: the norm reads 4, clipping in place reads and writes 8 where it
/// changes anything, the update reads a gradient and reads and writes parameter and moments.
fn bytes(how: &str, clipped: bool, moments: usize) -> usize {
    let scale = if how == "apart" && clipped { 8 } else { 0 };
    4 + scale + 4 + 8 * (1 + moments)
}

/// The arms of one device take turns; their medians.
fn compare(set: &Set, arms: &mut [Arm<'_>], rounds: usize) -> Vec<[f64; 3]> {
    arms.iter_mut().for_each(|arm| {
        (arm.step)();
    });
    let after: Vec<Vec<f32>> = arms.iter().map(|arm| (arm.parameters)()).collect();
    for other in &after[1..] {
        let same =
            after[0].par_iter().zip(other).all(|(a, b)| (a - b).abs() <= 3e-6 * RATE as f32 + a.abs() * 3e-7);
        assert!(same, "{}: the arms disagree", set.name);
    }
    let mut times = vec![Vec::new(); arms.len()];
    for _ in 0..rounds {
        for (arm, times) in arms.iter_mut().zip(&mut times) {
            times.push((arm.step)().as_secs_f64() * 1e3);
        }
    }
    times.iter_mut().map(|times| summary(times)).collect()
}

fn main() {
    let sets = std::env::var("GRADCLIP_BENCH").unwrap_or_else(|_| "gpt2,tiny".into());
    let rounds = std::env::var("GRADCLIP_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(9);
    let mut record = record(
        "set,tensors,elements,device,optimizer,regime,how,copy_gb_per_s,median_ms,min_ms,max_ms,bytes_an_element,gb_per_s,dispatches,times_fused",
    );
    let gpu = open();
    println!(
        "| set | device | optimizer | regime | how | ms | bytes/element | GB/s | of copy | dispatches | × fused |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for name in sets.split(',') {
        let set = set(name);
        let copies = [copy_bandwidth_of_cpu(&set), gpu.as_ref().map_or(0.0, |gpu| copy_bandwidth(gpu, &set))];
        for (optimizer_name, optimizer) in optimizers() {
            for (regime, threshold) in [("clipped", 0.5 * set.norm as f32), ("not clipped", f32::INFINITY)] {
                let clip = Clip::global_norm(threshold);
                let on_cpu =
                    [fused_on_cpu, prepared_on_cpu, apart_on_cpu].map(|arm| arm(&set, clip, optimizer));
                let on_cpu = Vec::from(on_cpu);
                let on_gpu = gpu.as_ref().map(|g| {
                    vec![fused_on_gpu(g, &set, clip, optimizer), apart_on_gpu(g, &set, clip, optimizer)]
                });
                for (mut arms, copy) in std::iter::once(on_cpu).chain(on_gpu).zip(copies) {
                    let times = compare(&set, &mut arms, rounds);
                    for (arm, [median, min, max]) in arms.iter().zip(&times) {
                        let bytes = bytes(arm.how, threshold.is_finite(), optimizer.moments());
                        let rate = (bytes * set.gradients.len()) as f64 / median / 1e6;
                        let ratio = median / times[0][0];
                        println!(
                            "| {name} | {} | {optimizer_name} | {regime} | {} | {median:.2} ({min:.2} to {max:.2}) | {bytes} | {rate:.2} | {:.0} % | {} | {ratio:.2} |",
                            arm.device,
                            arm.how,
                            rate * 1e11 / copy,
                            arm.dispatches
                        );
                        if let Some(file) = &mut record {
                            writeln!(
                                file,
                                "{name},{},{},\"{}\",{optimizer_name},{regime},{},{:.4},{median:.4},{min:.4},{max:.4},{bytes},{rate:.4},{},{ratio:.4}",
                                set.sizes.len(), set.gradients.len(), arm.device, arm.how, copy / 1e9, arm.dispatches
                            )
                            .unwrap();
                        }
                    }
                }
            }
        }
    }
}
