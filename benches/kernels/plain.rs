//! The plainest kernels there are, by loads of 16 bytes, four in flight: what a device gives to who does nothing
//! else. A workgroup takes 64 KiB, as many `f32` as a chunk has.

use gradclip::{DType, wgpu};

use crate::compute::Compute;

use super::device::{Device, Result};
use super::record::Kernel;

/// Bytes of a workgroup.
const BLOCK: u64 = 1 << 16;

const COMMON: &str = "
const BLOCK = 4096u;
@group(0) @binding(0) var<storage, read_write> values: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> others: array<vec4<u32>>;
// A factor of 1 that the compiler does not know, and room for a sum that nobody needs.
@group(0) @binding(2) var<storage, read_write> side: array<f32, 2>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;
var<private> words: vec4<u32>;
var<private> total: f32;
var<workgroup> totals: array<f32, 256>;

// Uniform in [-1, 1), by lowbias32 of Chris Wellons' hash-prospector.
fn random(i: u32) -> f32 {
    var x = i;
    x = (x ^ (x >> 16u)) * 0x7feb352du;
    x = (x ^ (x >> 15u)) * 0x846ca68bu;
    x ^= x >> 16u;
    return f32(x >> 8u) / 8388608.0 - 1.0;
}

fn add_up(lane: u32, group: u32) {
    totals[lane] = total;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half >>= 1u) {
        if lane < half { totals[lane] += totals[lane + half]; }
        workgroupBarrier();
    }
    if lane == 0u { sums[group] = totals[0]; }
}
";

/// NAME, LOAD of element `i`, what is done with it, and what comes last.
const TEMPLATE: &str = "
@compute @workgroup_size(256)
fn NAME(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
    let group = id.y * groups.x + id.x;
    let begin = group * BLOCK;
    let end = arrayLength(&values);
    let factor = FACTOR;
    if begin + BLOCK <= end {
        for (var k = 0u; k < BLOCK; k += 1024u) {
            let i = begin + k + lane;
            let a = LOAD(i); let b = LOAD(i + 256u); let c = LOAD(i + 512u); let d = LOAD(i + 768u);
            TAKE(i, a, factor); TAKE(i + 256u, b, factor); TAKE(i + 512u, c, factor); TAKE(i + 768u, d, factor);
        }
    } else {
        for (var i = begin + lane; i < end; i += 256u) { let a = LOAD(i); TAKE(i, a, factor); }
    }
    END
}
";

/// For each type: a word's elements as two floats (one and 0), and two floats as a word.
fn conversions(dtype: DType) -> Result<&'static str> {
    Ok(match dtype {
        DType::F32 => {
            "
fn floats(word: u32) -> vec2<f32> { return vec2(bitcast<f32>(word), 0.0); }
fn word(x: vec2<f32>) -> u32 { return bitcast<u32>(x.x); }
const EACH = 1u;
"
        }
        DType::F16 => {
            "
fn floats(word: u32) -> vec2<f32> { return unpack2x16float(word); }
fn word(x: vec2<f32>) -> u32 { return pack2x16float(x); }
const EACH = 2u;
"
        }
        // Rounded towards zero, which is the plainest.
        DType::Bf16 => {
            "
fn floats(word: u32) -> vec2<f32> { return vec2(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u)); }
fn word(x: vec2<f32>) -> u32 { return (bitcast<u32>(x.x) >> 16u) | (bitcast<u32>(x.y) & 0xffff0000u); }
const EACH = 2u;
"
        }
        _ => return Err(format!("no plain kernels for {dtype}")),
    })
}

/// What each kernel does with 16 bytes.
const TAKES: &str = "
fn load(i: u32) -> vec4<u32> { return values[i]; }
fn load_other(i: u32) -> vec4<u32> { return others[i]; }
fn make(i: u32) -> u32 { return word(vec2(random(EACH * i), random(EACH * i + EACH - 1u))); }
fn load_random(i: u32) -> vec4<u32> {
    return vec4(make(4u * i), make(4u * i + 1u), make(4u * i + 2u), make(4u * i + 3u));
}
fn take_store(i: u32, own: vec4<u32>, factor: f32) { values[i] = own; }
fn take_read(i: u32, own: vec4<u32>, factor: f32) { words += own; }
fn take_sum(i: u32, own: vec4<u32>, factor: f32) {
    let a = floats(own.x); let b = floats(own.y); let c = floats(own.z); let d = floats(own.w);
    total += dot(a, a) + dot(b, b) + dot(c, c) + dot(d, d);
}
fn take_multiply(i: u32, own: vec4<u32>, factor: f32) {
    values[i] = vec4(word(floats(own.x) * factor), word(floats(own.y) * factor),
        word(floats(own.z) * factor), word(floats(own.w) * factor));
}
";

/// Entry, load, take, factor, end.
const KERNELS: [[&str; 5]; 5] = [
    ["copy", "load_other", "take_store", "0.0", ""],
    ["read", "load", "take_read", "0.0", "if words.x + words.y + words.z + words.w == 1u { side[1] = 1.0; }"],
    ["sum", "load", "take_sum", "0.0", "add_up(lane, group);"],
    ["multiply", "load", "take_multiply", "side[0]", ""],
    ["fill", "load_random", "take_store", "0.0", ""],
];

/// The kernels over one buffer, window by window where a binding does not take all of it.
pub(crate) struct Plain {
    pipelines: Vec<wgpu::ComputePipeline>,
    windows: Vec<(wgpu::BindGroup, [u32; 2])>,
}

impl Plain {
    /// Over `values`, a multiple of 16 bytes, copied from `others`, which are as many for who copies.
    pub(crate) fn new(device: &Device, dtype: DType, [values, others]: [&wgpu::Buffer; 2]) -> Result<Plain> {
        let mut source = [COMMON, conversions(dtype)?, TAKES].concat();
        for [name, load, take, factor, end] in KERNELS {
            source += &TEMPLATE
                .replace("NAME", name)
                .replace("LOAD", load)
                .replace("TAKE", take)
                .replace("FACTOR", factor)
                .replace("END", end);
        }
        let compute = Compute::new(&device.gpu.device, &source, 4, KERNELS.iter().map(|[entry, ..]| *entry));
        let window = device.window();
        let side = device.buffer(8)?;
        device.gpu.queue.write_buffer(&side, 0, bytemuck::bytes_of(&1.0f32));
        let sums = device.buffer(4 * window.min(values.size()).div_ceil(BLOCK))?;
        let windows = (0..values.size()).step_by(window as usize).map(|offset| {
            let size = window.min(values.size() - offset);
            let part = |buffer| {
                let size =
                    std::num::NonZeroU64::new(size.min(wgpu::Buffer::size(buffer).saturating_sub(offset)));
                wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
            };
            let resources = [part(values), part(others), side.as_entire_binding(), sums.as_entire_binding()];
            let group = compute.bind(&device.gpu.device, resources);
            let groups = size.div_ceil(BLOCK) as u32;
            // 65,535 are as many as every device takes in a dimension.
            let rows = groups.div_ceil(65535);
            (group, [groups.div_ceil(rows), rows])
        });
        let windows = windows.collect();
        device.wait()?;
        Ok(Plain { pipelines: compute.pipelines, windows })
    }

    pub(crate) fn dispatch(&self, kernel: Kernel, pass: &mut wgpu::ComputePass<'_>) {
        let at = match kernel {
            Kernel::Copy => 0,
            Kernel::Read => 1,
            Kernel::Sum => 2,
            _ => 3,
        };
        self.dispatch_at(at, pass);
    }

    /// Gradients, alike in each window.
    pub(crate) fn fill(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.dispatch_at(4, pass);
    }

    fn dispatch_at(&self, at: usize, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipelines[at]);
        for (group, [across, down]) in &self.windows {
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(*across, *down, 1);
        }
    }
}
