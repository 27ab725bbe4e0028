//! What a device's memory gives to kernels that do nothing else.

use gradclip::wgpu;
use serde_json::{Value, json};

use crate::Result;
use crate::gpu::Device;

/// Bytes of a buffer, where the device binds so many: more than caches hold.
const LARGE: u64 = 1 << 30;
/// Workgroups: enough for every processor of a large GPU.
const GROUPS: u32 = 8192;
/// Seconds of one submit, beside which submitting and waiting take no time.
const LONG: f64 = 0.02;

const KERNELS: &str = "
@group(0) @binding(0) var<storage, read_write> words: array<vec4<u32>>;
// A factor of 1 that the compiler does not know, and room for a sum that nobody needs.
@group(0) @binding(1) var<storage, read_write> side: array<f32, 2>;

@compute @workgroup_size(256)
fn read(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    var sum = vec4<u32>();
    for (var i = id.x; i < arrayLength(&words); i += groups.x * 256u) { sum += words[i]; }
    if (sum.x + sum.y + sum.z + sum.w == 1u) { side[1] = 1.0; }
}

@compute @workgroup_size(256)
fn multiply(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let factor = side[0];
    for (var i = id.x; i < arrayLength(&words); i += groups.x * 256u) {
        words[i] = bitcast<vec4<u32>>(bitcast<vec4<f32>>(words[i]) * factor);
    }
}
";

pub(crate) fn bandwidth(device: &Device) -> Result<Value> {
    let limits = device.device.limits();
    let bound = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    let size = LARGE.min(bound) / 16 * 16;
    let [words, other] = [0; 2].map(|_| device.buffer(size));
    let side = device.buffer(8);
    device.queue.write_buffer(&side, 0, bytemuck::bytes_of(&1.0f32));
    let source = wgpu::ShaderSource::Wgsl(KERNELS.into());
    let module = device.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let kernel = |entry: &str| Kernel::new(device, &module, entry, [&words, &side]);
    let (read, multiply) = (kernel("read"), kernel("multiply"));
    Ok(json!({
        "read": best(device, size, |encoder| read.record(encoder))?,
        "multiply": best(device, 2 * size, |encoder| multiply.record(encoder))?,
        "copy": best(device, 2 * size, |encoder| encoder.copy_buffer_to_buffer(&words, 0, &other, 0, size))?,
    }))
}

/// GB/s of the best of three.
fn best(device: &Device, bytes: u64, record: impl Fn(&mut wgpu::CommandEncoder)) -> Result<f64> {
    let [_, once] = device.run(&record)?;
    let passes = (LONG / once).clamp(1.0, 64.0) as u64;
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let [_, seconds] = device.run(|encoder| (0..passes).for_each(|_| record(encoder)))?;
        least = least.min(seconds);
    }
    Ok((bytes * passes) as f64 / least / 1e9)
}

struct Kernel {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
}

impl Kernel {
    fn new(device: &Device, module: &wgpu::ShaderModule, entry: &str, buffers: [&wgpu::Buffer; 2]) -> Kernel {
        let pipeline = device.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry),
            layout: None,
            module,
            entry_point: Some(entry),
            compilation_options: Default::default(),
            cache: None,
        });
        let entries = [0, 1]
            .map(|i| wgpu::BindGroupEntry { binding: i as u32, resource: buffers[i].as_entire_binding() });
        let bindings = device.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(entry),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Kernel { pipeline, bindings }
    }

    fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bindings, &[]);
        pass.dispatch_workgroups(GROUPS, 1, 1);
    }
}
