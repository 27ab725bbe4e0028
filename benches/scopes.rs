//! What smaller segments cost: the scope of each tensor, of units by the first and by the last axis, and of
//! rows beside the global one, on the CPU path and on an adapter. Prints the dispatches of each pass.
//!
//! As in `clip`: gradients are restored outside the timing, and every norm is checked against f64
//! before it is timed. `GRADCLIP_BENCH=splats` picks sets, `GRADCLIP_TEST_ADAPTER` the adapter.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gradclip::cpu::{self, GradMut};
use gradclip::layout::Outcome;
use gradclip::{Clip, Clipper, Grad, Scope, wgpu};

#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../src/bin/gradclip/shapes.rs"]
mod shapes;

#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../src/bin/gradclip/bench_scope.rs"]
mod bench_scope;

use bench_scope::Cut;

/// The scopes that suit a set.
fn scopes(name: &str) -> impl Iterator<Item = &'static str> {
    let splats = name == "splats";
    bench_scope::NAMES
        .into_iter()
        .filter(move |scope| !scope.starts_with(if splats { "unit" } else { "row" }))
}

struct Set {
    shapes: Vec<Vec<u64>>,
    values: Vec<f32>,
}

/// Uniform in [-1e-3, 1e-3), from SplitMix64 with a fixed seed.
fn set(shapes: Vec<Vec<u64>>) -> Set {
    let mut state = 42u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let elements: u64 = shapes.iter().map(|shape| shape.iter().product::<u64>()).sum();
    Set { values: (0..elements).map(|_| next() * 1e-3).collect(), shapes }
}

impl Set {
    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.shapes.iter().map(|shape| shape.iter().product::<u64>() as usize)
    }

    /// Checks every norm against f64.
    fn check(&self, who: &str, scope: Scope, outcomes: &[Outcome]) {
        let norms = Cut::new(scope, &self.shapes).unwrap().norms(&self.values);
        assert_eq!(outcomes.len(), norms.len(), "{who}");
        for (outcome, exact) in outcomes.iter().zip(norms) {
            let error = (f64::from(outcome.norm) / exact - 1.0).abs();
            assert!(error < 1.2e-7, "{who}: norm {}, not {exact}", outcome.norm);
        }
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

/// One arm: prepares, runs once for the check, and returns how to time one step.
fn on_cpu<'a>(set: &'a Set, clip: Clip) -> Box<dyn FnMut() -> Duration + 'a> {
    let mut values = set.values.clone();
    let trace = cpu::clip_traced(&mut set.grads(&mut values), &clip).unwrap();
    set.check("CPU", clip.scope, &trace.outcomes);
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
            size: pass.outcome_bytes(),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        self.run(|e| {
            pass.record(e);
            e.copy_buffer_to_buffer(pass.outcomes(), 0, &staging, 0, pass.outcome_bytes());
        });
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let outcomes: Vec<Outcome> = bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..).unwrap());
        set.check(&self.name, clip.scope, &outcomes);
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
        let set = set(shapes::shapes(name).unwrap_or_else(|| panic!("no gradient set `{name}`")));
        let mut group = criterion.benchmark_group(format!("scopes {name}"));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_secs(1));
        for scope_name in scopes(name) {
            let scope = bench_scope::scope(scope_name).unwrap();
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
