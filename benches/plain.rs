//! Norm and apply beside the plainest kernels there are: one `f32` sum of squares, workgroup by workgroup, and
//! one multiplication in place, over the same buffer. What exact sums cost, and what an adapter gives; also by
//! size of workgroups. Prints a table.
//!
//! `GRADCLIP_BENCH_ELEMENTS=100000000` sets the size; `GRADCLIP_TEST_ADAPTER` the adapter by its
//! `backend/name`.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use gradclip::{Clip, Clipper, ClipperOptions, Grad, Pass, wgpu};

mod common;

use common::compute::Compute;
use common::{Gpu, open, random};

const ROUNDS: usize = 9;
const WORKGROUPS: [u32; 4] = [64, 128, 256, 512];

/// A workgroup adds 16,384 elements, as ours does; neighbouring invocations read neighbouring elements.
const PLAIN: &str = "
@group(0) @binding(0) var<storage, read_write> values: array<f32>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
var<workgroup> shared_sums: array<f32, 256>;

fn first(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return (group.y * groups.x + group.x) * 16384u;
}

@compute @workgroup_size(256)
fn sum(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
    let begin = first(group, groups);
    let end = min(begin + 16384u, arrayLength(&values));
    var own = 0.0;
    for (var i = begin + lane; i < end; i += 256u) {
        own += values[i] * values[i];
    }
    shared_sums[lane] = own;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half >>= 1u) {
        if lane < half {
            shared_sums[lane] += shared_sums[lane + half];
        }
        workgroupBarrier();
    }
    if lane == 0u && begin < end {
        sums[begin / 16384u] = shared_sums[0];
    }
}

@compute @workgroup_size(256)
fn multiply(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
    let begin = first(group, groups);
    let end = min(begin + 16384u, arrayLength(&values));
    for (var i = begin + lane; i < end; i += 256u) {
        values[i] *= 0.5;
    }
}
";

struct Plain {
    /// The sum of squares, and the multiplication.
    pipelines: Vec<wgpu::ComputePipeline>,
    bind_group: wgpu::BindGroup,
    groups: [u32; 2],
}

impl Plain {
    fn new(gpu: &Gpu, values: &wgpu::Buffer) -> Plain {
        let chunks = (values.size() / 4).div_ceil(16384);
        let across = chunks.min(65535);
        let sums = gpu.buffer(&vec![0.0; chunks as usize]);
        let compute = Compute::new(&gpu.device, PLAIN, 2, ["sum", "multiply"]);
        let bind_group = compute.bind(&gpu.device, [values.as_entire_binding(), sums.as_entire_binding()]);
        let groups = [across as u32, chunks.div_ceil(across) as u32];
        Plain { pipelines: compute.pipelines, bind_group, groups }
    }

    fn record(&self, pipeline: &wgpu::ComputePipeline, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.groups[0], self.groups[1], 1);
    }
}

/// Prepared passes of one size of workgroups, that clip and that do not.
struct Ours {
    workgroup: u32,
    pass: Pass,
}

fn ours(gpu: &Gpu, values: &wgpu::Buffer, workgroup: u32) -> Option<Ours> {
    let options = ClipperOptions::default().workgroup_size(workgroup);
    let clipper = Clipper::with_options(&gpu.device, options).ok()?;
    // Small enough to clip, whatever repetitions have left.
    let pass = clipper.prepare(&[Grad::new("all", values)], &Clip::global_norm(1e-30));
    Some(Ours { workgroup, pass: pass.ok()? })
}

fn main() {
    // `cargo test --benches` is for tests.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let Some(gpu) = open() else { return println!("no adapter") };
    let elements = std::env::var("GRADCLIP_BENCH_ELEMENTS").ok().and_then(|n| n.parse().ok());
    let elements: usize = elements.unwrap_or(10_000_000);
    let values = random(elements, 42, 1.0);
    let (pristine, buffer) = (gpu.buffer(&values), gpu.buffer(&values));
    drop(values);
    let plain = Plain::new(&gpu, &buffer);
    let ours: Vec<Ours> = WORKGROUPS.into_iter().filter_map(|w| ours(&gpu, &buffer, w)).collect();

    let mut times: Vec<(String, Vec<f64>)> = Vec::new();
    for round in 0..=ROUNDS {
        let mut at = 0;
        let mut time = |name: &str, record: &dyn Fn(&mut wgpu::CommandEncoder)| {
            gpu.run(|e| e.copy_buffer_to_buffer(&pristine, 0, &buffer, 0, buffer.size()));
            let ms = gpu.run(record).as_secs_f64() * 1e3;
            if round == 0 {
                times.push((name.to_owned(), Vec::new()));
            } else {
                times[at].1.push(ms);
            }
            at += 1;
        };
        time("plain f32 sum of squares", &|e| plain.record(&plain.pipelines[0], e));
        for o in &ours {
            time(&format!("norm half, workgroups of {}", o.workgroup), &|e| o.pass.record_norm(e));
        }
        time("plain multiplication in place", &|e| plain.record(&plain.pipelines[1], e));
        for o in &ours {
            // Decides with the norm measured before it, in the same submit as nothing else.
            time(&format!("apply half, workgroups of {}", o.workgroup), &|e| o.pass.record_apply(e));
        }
    }
    println!("{}, {elements} elements, {ROUNDS} rounds\n", gpu.name);
    println!("| kernels | median (ms) | quartiles (ms) | plain / this |\n|---|---|---|---|");
    let mut reference = 1.0;
    for (name, mut ms) in times {
        ms.sort_by(f64::total_cmp);
        let median = ms[ROUNDS / 2];
        if name.starts_with("plain") {
            reference = median;
        }
        let quartiles = format!("{:.2} to {:.2}", ms[ROUNDS / 4], ms[3 * ROUNDS / 4]);
        println!("| {name} | {median:.2} | {quartiles} | {:.0} % |", 100.0 * reference / median);
    }
}
