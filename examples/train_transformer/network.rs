//! The transformer on the device: its kernels, what they bind, and both passes over a micro-batch.

use gradclip::{records, wgpu};
use wgpu::BufferUsages as Usage;

use super::dispatches::{Dispatches, Kernel, NONE, Operands};
use super::gpu::Gpu;
use super::model::{BATCH, CONTEXT, HEADS, Model, ROWS, SEED, VOCABULARY, WIDTH};
use super::text::Text;
use super::train::MICRO_BATCHES;

/// Operands of a dispatch begin where any device can bind them.
const STRIDE: usize = 256;

pub(super) struct Network {
    pub(super) dispatches: Dispatches,
    pipelines: Vec<wgpu::ComputePipeline>,
    bound: wgpu::BindGroup,
    /// The number of the next micro-batch.
    pub(super) batch: wgpu::Buffer,
    /// Those of the micro-batches of a step.
    pub(super) losses: wgpu::Buffer,
}

impl Network {
    /// Reads parameters of bf16 and the loss scale in `progress`, writes gradients.
    pub(super) fn new(
        gpu: &Gpu,
        model: &Model,
        text: &Text,
        [parameters, gradients, progress]: [&wgpu::Buffer; 3],
    ) -> Network {
        let dispatches = Dispatches::new(model);
        let activations = gpu.storage("activations", dispatches.activations);
        let symbols = gpu.storage("text", text.symbols.len());
        gpu.write(&symbols, &text.symbols);
        let (batch, losses) = (gpu.storage("batch", 1), gpu.storage("losses", MICRO_BATCHES));
        let operands =
            gpu.buffer("operands", dispatches.list.len() * STRIDE / 4, Usage::UNIFORM | Usage::COPY_DST);
        for (i, dispatch) in dispatches.list.iter().enumerate() {
            gpu.queue.write_buffer(&operands, (i * STRIDE) as u64, bytemuck::bytes_of(&dispatch.operands));
        }

        let layout = layout(gpu);
        let buffers = [parameters, gradients, &activations, &symbols, &batch, &losses, progress];
        let mut resources: Vec<_> = buffers.iter().map(|buffer| buffer.as_entire_binding()).collect();
        let size = std::num::NonZero::new(size_of::<Operands>() as u64);
        resources.push(wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &operands,
            offset: 0,
            size,
        }));
        let bound = gpu.bind(&layout, &resources);
        let pipelines = pipelines(gpu, &layout, &constants(model, text));
        Network { dispatches, pipelines, bound, batch, losses }
    }

    /// Both passes over the next micro-batch.
    pub(super) fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for (i, dispatch) in self.dispatches.list.iter().enumerate() {
            pass.set_pipeline(&self.pipelines[dispatch.kernel as usize]);
            pass.set_bind_group(0, &self.bound, &[(i * STRIDE) as u32]);
            let [x, y] = dispatch.workgroups.map(|n| n as u32);
            pass.dispatch_workgroups(x, y, 1);
        }
    }
}

/// All kernels bind the same buffers; operands move from dispatch to dispatch.
fn layout(gpu: &Gpu) -> wgpu::BindGroupLayout {
    let storage = |read_only| wgpu::BufferBindingType::Storage { read_only };
    let uniform = wgpu::BufferBindingType::Uniform;
    let (read, write) = (storage(true), storage(false));
    let types = [read, write, write, read, write, write, uniform, uniform];
    let entries = (0..).zip(types).map(|(binding, ty)| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: binding as usize + 1 == types.len(),
            min_binding_size: None,
        },
        count: None,
    });
    let entries: Vec<_> = entries.collect();
    gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("network"),
        entries: &entries,
    })
}

fn pipelines(gpu: &Gpu, layout: &wgpu::BindGroupLayout, constants: &str) -> Vec<wgpu::ComputePipeline> {
    let layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some("network"),
        bind_group_layouts: &[Some(layout)],
        ..Default::default()
    });
    let head = records::wgsl("Clip") + constants + include_str!("shaders/common.wgsl");
    let pipeline = |(kernel, text, entry_point): &(Kernel, &str, &str)| {
        let module = gpu.module(entry_point, head.clone() + text);
        (*kernel as usize, gpu.pipeline(&module, Some(entry_point), Some(&layout)))
    };
    let mut made: Vec<_> = KERNELS.iter().map(pipeline).collect();
    made.sort_by_key(|(kernel, _)| *kernel);
    made.into_iter().map(|(_, pipeline)| pipeline).collect()
}

/// Text and entry point of each kernel.
const KERNELS: [(Kernel, &str, &str); 16] = {
    let embedding = include_str!("shaders/embedding.wgsl");
    let norm = include_str!("shaders/norm.wgsl");
    let linear = concat!(include_str!("shaders/product.wgsl"), include_str!("shaders/linear.wgsl"));
    let by_input =
        concat!(include_str!("shaders/product.wgsl"), include_str!("shaders/linear_by_input.wgsl"));
    let by_weight =
        concat!(include_str!("shaders/product.wgsl"), include_str!("shaders/linear_by_weight.wgsl"));
    let attention = include_str!("shaders/attention.wgsl");
    let gelu = include_str!("shaders/gelu.wgsl");
    let loss = include_str!("shaders/loss.wgsl");
    [
        (Kernel::Embed, embedding, "embed"),
        (Kernel::EmbedBySymbol, embedding, "embed_by_symbol"),
        (Kernel::EmbedByPosition, embedding, "embed_by_position"),
        (Kernel::Norm, norm, "norm"),
        (Kernel::NormByInput, norm, "norm_by_input"),
        (Kernel::NormByGain, norm, "norm_by_gain"),
        (Kernel::Linear, linear, "product"),
        (Kernel::LinearByInput, by_input, "product"),
        (Kernel::LinearByWeight, by_weight, "product"),
        (Kernel::Attend, attention, "attend"),
        (Kernel::AttendByQuery, attention, "attend_by_query"),
        (Kernel::AttendByKey, attention, "attend_by_key"),
        (Kernel::Gelu, gelu, "gelu"),
        (Kernel::GeluByInput, gelu, "gelu_by_input"),
        (Kernel::CrossEntropy, loss, "cross_entropy"),
        (Kernel::End, loss, "end"),
    ]
};

/// What the shaders are told, as WGSL.
fn constants(model: &Model, text: &Text) -> String {
    let constants = [
        ("NONE", NONE as usize),
        ("SEED", SEED as usize),
        ("BATCH", BATCH),
        ("MICRO_BATCHES", MICRO_BATCHES),
        ("CONTEXT", CONTEXT),
        ("ROWS", ROWS),
        ("WIDTH", WIDTH),
        ("HEADS", HEADS),
        ("HEAD", WIDTH / HEADS),
        ("VOCABULARY", VOCABULARY),
        ("SYMBOLS", text.symbols.len()),
        ("EMBEDDING", model.embedding.at),
        ("POSITION", model.position.at),
    ];
    constants.map(|(name, value)| format!("const {name} = {value}u;\n")).concat()
}
