//! CPU path against GPU over the gradient sets of well-known models, clipped and not clipped.
//!
//! Throughput counts the bytes that have to move: 4 an element where nothing is clipped, 12 where
//! gradients are read, read again and written. Gradients are restored outside the timing, so that
//! clipping really happens; every arm's answer is checked against f64 before it is timed.
//!
//! `GRADCLIP_BENCH=gpt2,tiny` picks sets; `GRADCLIP_TEST_ADAPTER` the adapter by its `backend/name`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use gradclip::cpu::{self, GradMut};
use gradclip::{Clip, Grad, wgpu};
use gradclip_verify::{sets, tolerance};

mod common;

use common::{Gpu, cut, open, random};

/// One gradient set and its norm.
struct Set {
    sizes: Vec<usize>,
    values: Vec<f32>,
    norm: f64,
}

fn set(sizes: &[u64]) -> Set {
    let values = random(sizes.iter().sum::<u64>() as usize, 42, 1e-3);
    let norm = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    Set { sizes: sizes.iter().map(|&n| n as usize).collect(), values, norm }
}

impl Set {
    fn clip(&self, clipped: bool) -> Clip {
        Clip::global_norm(if clipped { self.norm as f32 / 2.0 } else { f32::INFINITY })
    }

    /// Within an ulp of f64, whose own error over 1e8 terms is far below that.
    fn check(&self, who: &str, norm: Option<f64>, first: f32, clipped: bool) {
        let error = (norm.unwrap() / self.norm - 1.0).abs();
        assert!(error < tolerance::NORM, "{who}: norm {norm:?}, not {}", self.norm);
        let want = if clipped { self.values[0] / 2.0 } else { self.values[0] };
        let error = (f64::from(first) / f64::from(want) - 1.0).abs();
        assert!(error < tolerance::SCALED_TWICE, "{who}: first element {first}, not {want}");
    }
}

/// Splits one slice into gradients of the set's sizes.
fn grads<'a>(sizes: &[usize], values: &'a mut [f32]) -> Vec<GradMut<'a>> {
    cut(sizes.iter().copied(), values).into_iter().map(|own| GradMut::new("g", own)).collect()
}

fn cpu_arm(group: &mut BenchmarkGroup<'_, WallTime>, set: &Set, clipped: bool) {
    let clip = set.clip(clipped);
    let mut values = set.values.clone();
    let report = cpu::clip(&mut grads(&set.sizes, &mut values), &clip).unwrap();
    set.check("CPU", report.norm(), values[0], clipped);
    let regime = if clipped { "clipped" } else { "not clipped" };
    group.bench_function(format!("cpu/{regime}"), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                values.copy_from_slice(&set.values);
                let mut grads = grads(&set.sizes, &mut values);
                let start = Instant::now();
                cpu::clip(&mut grads, &clip).unwrap();
                total += start.elapsed();
            }
            total
        });
    });
}

/// The set in one arena, and a pristine copy.
struct Resident {
    arena: wgpu::Buffer,
    pristine: wgpu::Buffer,
}

impl Resident {
    fn new(gpu: &Gpu, set: &Set) -> Option<Resident> {
        let size = (set.values.len() * 4) as u64;
        if size > gpu.device.limits().max_buffer_size {
            eprintln!("{}: no buffer of {size} bytes, left out", gpu.name);
            return None;
        }
        Some(Resident { arena: gpu.buffer(&set.values), pristine: gpu.buffer(&set.values) })
    }

    fn restore(&self, gpu: &Gpu) {
        gpu.run(|e| e.copy_buffer_to_buffer(&self.pristine, 0, &self.arena, 0, None));
    }
}

fn gpu_arm(
    group: &mut BenchmarkGroup<'_, WallTime>,
    gpu: &Gpu,
    set: &Set,
    resident: &Resident,
    clipped: bool,
) {
    let mut offset = 0;
    let grads: Vec<Grad> = set
        .sizes
        .iter()
        .map(|&size| {
            offset += size as u64 * 4;
            Grad::range("g", &resident.arena, offset - size as u64 * 4, size as u64)
        })
        .collect();
    let pass = gpu.clipper.prepare(&grads, &set.clip(clipped)).unwrap();
    resident.restore(gpu);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    pass.record(&mut encoder);
    let report = pass.read_back(&mut encoder).unwrap();
    gpu.queue.submit([encoder.finish()]);
    let norm = report.wait().unwrap().norm();
    set.check(&gpu.name, norm, gpu.read(&resident.arena, 4)[0], clipped);
    let regime = if clipped { "clipped" } else { "not clipped" };
    group.bench_function(format!("{}/{regime}", gpu.name.replace('/', " ")), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                resident.restore(gpu);
                total += gpu.run(|e| pass.record(e));
            }
            total
        });
    });
}

fn benches(criterion: &mut Criterion) {
    let wanted = std::env::var("GRADCLIP_BENCH").unwrap_or_else(|_| "resnet50,gpt2,lstm,tiny,single".into());
    let gpu = open();
    for name in wanted.split(',') {
        let shapes = sets::shapes(name).unwrap_or_else(|| panic!("no gradient set `{name}`"));
        let sizes: Vec<u64> = shapes.iter().map(|shape| shape.iter().product()).collect();
        let set = set(&sizes);
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).warm_up_time(Duration::from_millis(500));
        let resident = gpu.as_ref().and_then(|gpu| Resident::new(gpu, &set));
        for clipped in [true, false] {
            let bytes = if clipped { 12 } else { 4 };
            group.throughput(Throughput::Bytes(set.values.len() as u64 * bytes));
            cpu_arm(&mut group, &set, clipped);
            if let (Some(gpu), Some(resident)) = (&gpu, &resident) {
                gpu_arm(&mut group, gpu, &set, resident, clipped);
            }
        }
        group.finish();
    }
}

criterion_group!(clip, benches);
criterion_main!(clip);
