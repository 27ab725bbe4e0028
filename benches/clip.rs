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
use gradclip::{Clip, Clipper, Grad, Pass, wgpu};

#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../src/bin/gradclip/shapes.rs"]
mod shapes;

/// One gradient set and its norm.
struct Set {
    sizes: Vec<usize>,
    values: Vec<f32>,
    norm: f64,
}

/// Uniform in [-1e-3, 1e-3), from SplitMix64 with a fixed seed.
fn set(sizes: &[u64]) -> Set {
    let mut state = 42u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..sizes.iter().sum()).map(|_: u64| next() * 1e-3).collect();
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
        assert!(error < 1.2e-7, "{who}: norm {norm:?}, not {}", self.norm);
        let want = if clipped { self.values[0] / 2.0 } else { self.values[0] };
        assert!((first / want - 1.0).abs() < 1e-6, "{who}: first element {first}, not {want}");
    }
}

/// Splits one slice into gradients of the set's sizes.
fn grads<'a>(sizes: &[usize], mut values: &'a mut [f32]) -> Vec<GradMut<'a>> {
    let mut grads = Vec::new();
    for &size in sizes {
        let (own, rest) = values.split_at_mut(size);
        grads.push(GradMut::new("g", own));
        values = rest;
    }
    grads
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

struct Gpu {
    name: String,
    device: wgpu::Device,
    queue: wgpu::Queue,
    clipper: Clipper,
}

fn open() -> Option<Gpu> {
    let wanted = std::env::var("GRADCLIP_TEST_ADAPTER").unwrap_or_default().to_lowercase();
    let name = |a: &wgpu::Adapter| gradclip::session::adapter_name(&a.get_info());
    let adapter =
        gradclip::session::adapters().into_iter().find(|a| name(a).to_lowercase().contains(&wanted))?;
    let descriptor =
        wgpu::DeviceDescriptor { required_limits: Clipper::required_limits(&adapter), ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).ok()?;
    let clipper = Clipper::new(&device).ok()?;
    Some(Gpu { name: name(&adapter), device, queue, clipper })
}

/// The set in one arena, and a pristine copy.
struct Resident {
    arena: wgpu::Buffer,
    pristine: wgpu::Buffer,
}

impl Gpu {
    fn upload(&self, set: &Set) -> Option<Resident> {
        let size = (set.values.len() * 4) as u64;
        if size > self.device.limits().max_buffer_size {
            eprintln!("{}: no buffer of {size} bytes, left out", self.name);
            return None;
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffer = |mapped_at_creation| {
            let label = Some("bench");
            self.device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation })
        };
        let (arena, pristine) = (buffer(false), buffer(true));
        let mut view = pristine.get_mapped_range_mut(..).unwrap();
        view.copy_from_slice(bytemuck::cast_slice(&set.values));
        drop(view);
        pristine.unmap();
        Some(Resident { arena, pristine })
    }

    fn wait(&self) {
        self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    }

    fn restore(&self, resident: &Resident) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&resident.pristine, 0, &resident.arena, 0, None);
        self.queue.submit([encoder.finish()]);
        self.wait();
    }

    /// Record, submit, wait: what a step without anything else would take.
    fn step(&self, pass: &Pass) -> Duration {
        let start = Instant::now();
        let mut encoder = self.device.create_command_encoder(&Default::default());
        pass.record(&mut encoder);
        self.queue.submit([encoder.finish()]);
        self.wait();
        start.elapsed()
    }

    fn first(&self, resident: &Resident) -> f32 {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("bench staging"),
            size: 4,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&resident.arena, 0, &staging, 0, 4);
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.wait();
        bytemuck::pod_read_unaligned(&staging.get_mapped_range(..).unwrap())
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
    gpu.restore(resident);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    pass.record(&mut encoder);
    let report = pass.read_back(&mut encoder).unwrap();
    gpu.queue.submit([encoder.finish()]);
    let norm = report.wait(&gpu.device).unwrap().norm();
    set.check(&gpu.name, norm, gpu.first(resident), clipped);
    let regime = if clipped { "clipped" } else { "not clipped" };
    group.bench_function(format!("{}/{regime}", gpu.name.replace('/', " ")), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                gpu.restore(resident);
                total += gpu.step(&pass);
            }
            total
        });
    });
}

fn benches(criterion: &mut Criterion) {
    let wanted = std::env::var("GRADCLIP_BENCH").unwrap_or_else(|_| "resnet50,gpt2,lstm,tiny,single".into());
    let gpu = open();
    for name in wanted.split(',') {
        let shapes = shapes::shapes(name).unwrap_or_else(|| panic!("no gradient set `{name}`"));
        let sizes: Vec<u64> = shapes.iter().map(|shape| shape.iter().product()).collect();
        let set = set(&sizes);
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).warm_up_time(Duration::from_millis(500));
        let resident = gpu.as_ref().and_then(|gpu| gpu.upload(&set));
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
