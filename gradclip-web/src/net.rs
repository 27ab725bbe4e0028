//! Both passes through time on the device: buffers and kernels of one net.

use gradclip::{DType, Grad, wgpu};

use crate::gpu::Gpu;
use crate::model::{BATCH, HIDDEN, Model};
use crate::settings::Settings;
use crate::text::Text;

/// What a net keeps on the device.
#[derive(Debug)]
pub struct Net {
    model: Model,
    /// All parameters.
    pub parameters: wgpu::Buffer,
    /// Their gradients, and behind them the loss.
    pub gradient: wgpu::Buffer,
    /// The momentum of each parameter.
    pub momentum: wgpu::Buffer,
}

/// A kernel of the net with its buffers.
#[derive(Debug)]
struct Kernel {
    pipeline: wgpu::ComputePipeline,
    bound: wgpu::BindGroup,
    workgroups: [u32; 2],
}

/// Kernels from symbols to gradients, in their order.
#[derive(Debug)]
pub struct Passes(Vec<Kernel>);

impl Net {
    /// A net with these parameters.
    pub fn new(gpu: &Gpu, model: Model, parameters: &[f32]) -> Net {
        let elements = u64::from(model.elements());
        let net = Net {
            model,
            parameters: gpu.storage("parameters", elements),
            // Kernels write four elements at once.
            gradient: gpu.storage("gradient", elements + 4),
            momentum: gpu.storage("momentum", elements),
        };
        gpu.queue.write_buffer(&net.parameters, 0, bytemuck::cast_slice(parameters));
        net
    }

    /// The gradients with what a step on them moves.
    pub fn grads(&self) -> Vec<Grad> {
        let tensors = self.model.tensors();
        let grads = tensors.iter().map(|tensor| {
            let at = 4 * u64::from(tensor.first);
            Grad::range(tensor.name, &self.gradient, at, tensor.elements().into())
                .shape(&tensor.shape)
                .parameter(&self.parameters, at, DType::F32)
                .moment(&self.momentum, at)
        });
        grads.collect()
    }

    /// The loss of the last step: its buffer and first byte.
    pub fn loss(&self) -> (&wgpu::Buffer, u64) {
        (&self.gradient, 4 * u64::from(self.model.elements()))
    }

    /// The passes over the batch of the step that the first word of `step` tells.
    pub fn passes(&self, gpu: &Gpu, text: &Text, settings: &Settings, step: &wgpu::Buffer) -> Passes {
        let (length, symbols) = (settings.length, self.model.symbols);
        let per_symbol = u64::from(settings.symbols());
        let characters = gpu.storage("text", text.symbols.len() as u64);
        gpu.queue.write_buffer(&characters, 0, bytemuck::cast_slice(&text.symbols));
        let states = gpu.storage("states", u64::from(BATCH * (length + 1) * HIDDEN));
        let by_logits = gpu.storage("loss by logits", per_symbol * u64::from(symbols));
        let deltas = gpu.storage("loss by states", per_symbol * u64::from(HIDDEN));
        let losses = gpu.storage("losses", per_symbol);
        let constants = self.constants(text, settings);
        let kernel = |label, source: &str, buffers: &[&wgpu::Buffer], workgroups| {
            let source = [&constants, include_str!("../shaders/text.wgsl"), source].concat();
            Kernel::new(gpu, label, source, buffers, workgroups)
        };
        let (parameters, gradient) = (&self.parameters, &self.gradient);
        let forward = include_str!("../shaders/forward.wgsl");
        let readout = include_str!("../shaders/readout.wgsl");
        let backward = include_str!("../shaders/backward.wgsl");
        let sum = include_str!("../shaders/gradient.wgsl");
        let read_out = [parameters, &characters, step, &states, &by_logits, &deltas, &losses];
        let summed = [&characters, step, &states, &by_logits, &deltas, &losses, gradient];
        let vectors = self.model.elements() / 4 + 1;
        Passes(vec![
            kernel("forward", forward, &[parameters, &characters, step, &states], [BATCH, 1]),
            kernel("readout", readout, &read_out, [length, BATCH]),
            kernel("backward", backward, &[parameters, &states, &deltas], [BATCH, 1]),
            kernel("gradient", sum, &summed, [vectors.div_ceil(64), 1]),
        ])
    }

    /// What the shaders know of net, text and run.
    fn constants(&self, text: &Text, settings: &Settings) -> String {
        let [input, recurrent, bias, readout, readout_bias] = self.model.tensors().map(|t| t.first);
        let symbols = self.model.symbols;
        let constants = [
            ("BATCH", BATCH),
            ("LENGTH", settings.length),
            ("SYMBOLS", symbols),
            ("HIDDEN", HIDDEN),
            ("LANES", HIDDEN.max(symbols) / 4),
            ("SEED", settings.seed),
            ("TEXT", text.symbols.len() as u32),
            ("INPUT", input),
            ("RECURRENT", recurrent),
            ("BIAS", bias),
            ("READOUT", readout),
            ("READOUT_BIAS", readout_bias),
            ("LOSS", self.model.elements()),
        ];
        constants.map(|(name, value)| format!("const {name}: u32 = {value}u;\n")).concat()
    }
}

impl Kernel {
    fn new(
        gpu: &Gpu,
        label: &str,
        source: String,
        buffers: &[&wgpu::Buffer],
        workgroups: [u32; 2],
    ) -> Kernel {
        let source = wgpu::ShaderSource::Wgsl(source.into());
        let label = Some(label);
        let module = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
        let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        let resources = buffers.iter().map(|buffer| buffer.as_entire_binding());
        let entries =
            (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource });
        let bound = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries.collect::<Vec<_>>(),
        });
        Kernel { pipeline, bound, workgroups }
    }
}

impl Passes {
    /// Records both passes.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for Kernel { pipeline, bound, workgroups: [x, y] } in &self.0 {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, bound, &[]);
            pass.dispatch_workgroups(*x, *y, 1);
        }
    }
}
