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
use gradclip::{Clip, Grad, Scope};
use gradclip_verify::sets;
use gradclip_verify::sets::scope::{self, Cut};
use gradclip_verify::tolerance;

mod common;

use common::{Gpu, cut, open, random};

/// The scopes that suit a set.
fn scopes(name: &str) -> impl Iterator<Item = &'static str> {
    let splats = name == "splats";
    scope::NAMES.into_iter().filter(move |scope| !scope.starts_with(if splats { "unit" } else { "row" }))
}

struct Set {
    shapes: Vec<Vec<u64>>,
    values: Vec<f32>,
}

fn set(shapes: Vec<Vec<u64>>) -> Set {
    let elements: u64 = shapes.iter().map(|shape| shape.iter().product::<u64>()).sum();
    Set { values: random(elements as usize, 42, 1e-3), shapes }
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
            assert!(error < tolerance::NORM, "{who}: norm {}, not {exact}", outcome.norm);
        }
    }

    fn grads<'a>(&self, values: &'a mut [f32]) -> Vec<GradMut<'a>> {
        let tensors = cut(self.sizes(), values).into_iter().zip(&self.shapes);
        tensors.map(|(own, shape)| GradMut::new("g", own).shape(shape)).collect()
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

/// The dispatches of one arm, and how to time one step.
fn on_gpu<'a>(gpu: &'a Gpu, set: &Set, clip: Clip) -> (usize, Box<dyn FnMut() -> Duration + 'a>) {
    let (pristine, arena) = (gpu.buffer(&set.values), gpu.buffer(&set.values));
    let mut offset = 0;
    let mut grads = Vec::new();
    for (size, shape) in set.sizes().zip(&set.shapes) {
        grads.push(Grad::range("g", &arena, offset, size as u64).shape(shape));
        offset += size as u64 * 4;
    }
    let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
    gpu.run(|e| pass.record(e));
    let outcomes: Vec<Outcome> = gpu.read(pass.outcomes(), pass.outcome_bytes());
    set.check(&gpu.name, clip.scope, &outcomes);
    let dispatches = pass.dispatch_count();
    let step = move || {
        gpu.run(|e| e.copy_buffer_to_buffer(&pristine, 0, &arena, 0, None));
        gpu.run(|e| pass.record(e))
    };
    (dispatches, Box::new(step))
}

fn benches(criterion: &mut Criterion) {
    let wanted = std::env::var("GRADCLIP_BENCH").unwrap_or_else(|_| "resnet50,gpt2,splats".into());
    let gpu = open();
    for name in wanted.split(',') {
        let set = set(sets::shapes(name).unwrap_or_else(|| panic!("no gradient set `{name}`")));
        let mut group = criterion.benchmark_group(format!("scopes {name}"));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_secs(1));
        for scope_name in scopes(name) {
            let scope = scope_name.parse().unwrap();
            for (regime, threshold, bytes) in [("clipped", 1e-4, 12), ("not clipped", f32::INFINITY, 4)] {
                let clip = Clip::global_norm(threshold).scope(scope);
                group.throughput(Throughput::Bytes(set.values.len() as u64 * bytes));
                let mut step = on_cpu(&set, clip);
                group.bench_function(format!("cpu/{scope_name}/{regime}"), |b| {
                    b.iter_custom(|n| (0..n).map(|_| step()).sum());
                });
                let Some(gpu) = &gpu else { continue };
                let (dispatches, mut step) = on_gpu(gpu, &set, clip);
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
