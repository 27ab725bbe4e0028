//! What smaller segments cost: the scope of each tensor, of output-first units, of columns and of rows
//! beside the global one, on the CPU path and on an adapter. Prints the dispatches of each pass.
//!
//! As in `clip`: gradients are restored outside the timing, and each arm's first norm is checked against
//! f64 before it is timed. `GRADCLIP_BENCH=splats` picks sets, `GRADCLIP_TEST_ADAPTER` the adapter.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gradclip::cpu::{self, GradMut};
use gradclip::layout::Outcome;
use gradclip::{Clip, Clipper, Grad, Scope, Units, wgpu};

#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../src/bin/gradclip/shapes.rs"]
mod shapes;

/// Rank 2: outputs first. The bias or scale that follows a weight tells its outputs.
fn shapes(name: &str, sizes: &[u64]) -> Vec<[u64; 2]> {
    let shape = |i: usize| {
        let (size, next) = (sizes[i], sizes.get(i + 1).copied().unwrap_or(1));
        match name {
            "splats" => [1_000_000, size / 1_000_000],
            _ if next < size && size % next == 0 => [next, size / next],
            _ if size % 768 == 0 => [size / 768, 768],
            _ => [1, size],
        }
    };
    (0..sizes.len()).map(shape).collect()
}

fn scopes(name: &str) -> Vec<(&'static str, Scope)> {
    let all = [
        ("global", Scope::Global),
        ("tensor", Scope::Tensor),
        ("units", Scope::Unit(Units::OutputFirst)),
        ("columns", Scope::Unit(Units::over(&[0]))),
        ("rows", Scope::Row),
    ];
    let fits = |scope: &Scope| {
        if name == "splats" { !matches!(scope, Scope::Unit(_)) } else { *scope != Scope::Row }
    };
    all.into_iter().filter(|(_, scope)| fits(scope)).collect()
}

struct Set {
    shapes: Vec<[u64; 2]>,
    values: Vec<f32>,
}

/// Uniform in [-1e-3, 1e-3), from SplitMix64 with a fixed seed.
fn set(name: &str, sizes: &[u64]) -> Set {
    let mut state = 42u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let values = (0..sizes.iter().sum()).map(|_: u64| next() * 1e-3).collect();
    Set { shapes: shapes(name, sizes), values }
}

impl Set {
    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.shapes.iter().map(|s| (s[0] * s[1]) as usize)
    }

    /// The norm of the first segment, in f64.
    fn first_norm(&self, scope: Scope) -> f64 {
        let [rows, columns] = self.shapes[0].map(|n| n as usize);
        let square = |x: &f32| f64::from(*x).powi(2);
        let squares: f64 = match scope {
            Scope::Global => self.values.iter().map(square).sum(),
            Scope::Tensor => self.values[..rows * columns].iter().map(square).sum(),
            Scope::Unit(Units::OutputFirst) => self.values[..columns].iter().map(square).sum(),
            Scope::Unit(_) => self.values[..rows * columns].iter().step_by(columns).map(square).sum(),
            _ => {
                let mut begin = 0;
                let rows = self.shapes.iter().map(|s| {
                    let row = &self.values[begin..begin + s[1] as usize];
                    begin += (s[0] * s[1]) as usize;
                    row.iter().map(square).sum::<f64>()
                });
                rows.sum()
            }
        };
        squares.sqrt()
    }

    fn grads<'a>(&self, mut values: &'a mut [f32]) -> Vec<GradMut<'a>> {
        let mut grads = Vec::new();
        for (size, shape) in self.sizes().zip(&self.shapes) {
            let (own, rest) = values.split_at_mut(size);
            grads.push(GradMut::new("g", own).shape(shape));
            values = rest;
        }
        grads
    }
}

fn check(who: &str, norm: f32, exact: f64) {
    assert!((f64::from(norm) / exact - 1.0).abs() < 1.2e-7, "{who}: norm {norm}, not {exact}");
}

/// One arm: prepares, runs once for the check, and returns how to time one step.
fn on_cpu<'a>(set: &'a Set, clip: Clip) -> Box<dyn FnMut() -> Duration + 'a> {
    let mut values = set.values.clone();
    let trace = cpu::clip_traced(&mut set.grads(&mut values), &clip).unwrap();
    check("CPU", trace.outcomes[0].norm, set.first_norm(clip.scope));
    Box::new(move || {
        values.copy_from_slice(&set.values);
        let mut grads = set.grads(&mut values);
        let start = Instant::now();
        cpu::clip(&mut grads, &clip).unwrap();
        start.elapsed()
    })
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

impl Gpu {
    fn buffer(&self, set: &Set, from: Option<&wgpu::Buffer>) -> wgpu::Buffer {
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("bench"),
            size: (set.values.len() * 4) as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: from.is_none(),
        });
        if from.is_none() {
            buffer.get_mapped_range_mut(..).unwrap().copy_from_slice(bytemuck::cast_slice(&set.values));
            buffer.unmap();
        }
        buffer
    }

    fn run(&self, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Duration {
        let start = Instant::now();
        let mut encoder = self.device.create_command_encoder(&Default::default());
        record(&mut encoder);
        self.queue.submit([encoder.finish()]);
        self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        start.elapsed()
    }

    fn arm<'a>(&'a self, set: &Set, clip: Clip) -> (usize, Box<dyn FnMut() -> Duration + 'a>) {
        let pristine = self.buffer(set, None);
        let arena = self.buffer(set, Some(&pristine));
        let mut offset = 0;
        let mut grads = Vec::new();
        for (size, shape) in set.sizes().zip(&set.shapes) {
            grads.push(Grad::range("g", &arena, offset, size as u64).shape(shape));
            offset += size as u64 * 4;
        }
        let pass = self.clipper.prepare(&grads, &clip).unwrap();
        let restore = move || self.run(|e| e.copy_buffer_to_buffer(&pristine, 0, &arena, 0, None));
        restore();
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("bench staging"),
            size: size_of::<Outcome>() as u64,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        self.run(|e| {
            pass.record(e);
            e.copy_buffer_to_buffer(pass.outcomes(), 0, &staging, 0, size_of::<Outcome>() as u64);
        });
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let outcome: Outcome = bytemuck::pod_read_unaligned(&staging.get_mapped_range(..).unwrap());
        check(&self.name, outcome.norm, set.first_norm(clip.scope));
        let dispatches = pass.dispatch_count();
        (
            dispatches,
            Box::new(move || {
                restore();
                self.run(|e| pass.record(e))
            }),
        )
    }
}

fn benches(criterion: &mut Criterion) {
    let wanted = std::env::var("GRADCLIP_BENCH").unwrap_or_else(|_| "resnet50,gpt2,splats".into());
    let gpu = open();
    for name in wanted.split(',') {
        let sizes = shapes::preset(name).unwrap_or_else(|| panic!("no gradient set `{name}`"));
        let set = set(name, &sizes);
        let mut group = criterion.benchmark_group(format!("scopes {name}"));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_secs(1));
        for (scope_name, scope) in scopes(name) {
            for (regime, threshold, bytes) in [("clipped", 1e-4, 12), ("not clipped", f32::INFINITY, 4)] {
                let clip = Clip::global_norm(threshold).scope(scope);
                group.throughput(Throughput::Bytes(set.values.len() as u64 * bytes));
                let mut step = on_cpu(&set, clip);
                group.bench_function(format!("cpu/{scope_name}/{regime}"), |b| {
                    b.iter_custom(|n| (0..n).map(|_| step()).sum());
                });
                let Some(gpu) = &gpu else { continue };
                let (dispatches, mut step) = gpu.arm(&set, clip);
                let who = gpu.name.replace('/', " ");
                println!("{name}, {scope_name}: {dispatches} dispatches on {who}");
                group.bench_function(format!("{who}/{scope_name}/{regime}"), |b| {
                    b.iter_custom(|n| (0..n).map(|_| step()).sum());
                });
            }
        }
        group.finish();
    }
}

criterion_group!(scopes_, benches);
criterion_main!(scopes_);
