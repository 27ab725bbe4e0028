//! Both passes over a micro-batch as a list of dispatches: plain data, made once.

use super::model::{BATCH, CONTEXT, HEADS, LAYERS, Layer, Model, ROWS, TILE, Tensor, VOCABULARY, WIDTH};

/// No residual: what kernels know as NONE.
pub(super) const NONE: u32 = u32::MAX;

/// Where a dispatch reads and writes, as `common.wgsl` declares and explains it.
#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Operands {
    input: u32,
    output: u32,
    weight: u32,
    result: u32,
    derivative: u32,
    residual: u32,
    kept: u32,
    deltas: u32,
    inputs: u32,
    outputs: u32,
}

#[derive(Clone, Copy)]
pub(super) enum Kernel {
    Embed,
    EmbedBySymbol,
    EmbedByPosition,
    Norm,
    NormByInput,
    NormByGain,
    Linear,
    LinearByInput,
    LinearByWeight,
    Attend,
    AttendByQuery,
    AttendByKey,
    Gelu,
    GeluByInput,
    CrossEntropy,
    End,
}

pub(super) struct Dispatch {
    pub(super) kernel: Kernel,
    pub(super) operands: Operands,
    pub(super) workgroups: [usize; 2],
}

pub(super) struct Dispatches {
    pub(super) list: Vec<Dispatch>,
    /// Of the buffer of activations.
    pub(super) activations: usize,
}

/// What the forward pass leaves of a norm and the matrix after it, each the first element of rows.
#[derive(Clone, Copy)]
struct Normed {
    input: u32,
    kept: u32,
    normed: u32,
    output: u32,
}

/// What it leaves of a layer.
struct Passed {
    attention: Normed,
    attended: u32,
    logarithms: u32,
    mlp: Normed,
    bent: u32,
}

/// Derivatives, which later ones overwrite: of the residual stream, and of what lies between.
struct Derivatives {
    stream: u32,
    wide: u32,
    narrow: u32,
    deltas: u32,
}

impl Dispatches {
    pub(super) fn new(model: &Model) -> Dispatches {
        let mut all = Dispatches { list: Vec::new(), activations: 0 };
        let mut stream = all.rows(WIDTH);
        all.push(Kernel::Embed, [ROWS, 1], Operands { output: stream, ..Operands::default() });
        let mut passed = Vec::with_capacity(LAYERS);
        for layer in &model.layers {
            let (next, left) = all.layer(layer, stream);
            passed.push(left);
            stream = next;
        }
        let last = all.normed(&model.norm, &model.output, stream);

        let losses = all.rows(1);
        let of_loss = Operands { input: last.output, kept: losses, ..Operands::default() };
        all.push(Kernel::CrossEntropy, [ROWS / 64, 1], of_loss);
        let derivatives = Derivatives {
            stream: all.rows(WIDTH),
            wide: all.rows(4 * WIDTH),
            narrow: all.rows(WIDTH),
            deltas: all.rows(HEADS),
        };
        all.normed_back((&model.norm, &model.output), last, last.output, NONE, &derivatives);
        for (layer, passed) in model.layers.iter().zip(passed).rev() {
            all.layer_back(layer, &passed, &derivatives);
        }
        let of_embedding = Operands { derivative: derivatives.stream, ..Operands::default() };
        all.push(Kernel::EmbedBySymbol, [VOCABULARY, 1], of_embedding);
        all.push(Kernel::EmbedByPosition, [CONTEXT, 1], of_embedding);
        all.push(Kernel::End, [1, 1], of_loss);
        all
    }

    /// The residual stream after a layer, and what it leaves.
    fn layer(&mut self, layer: &Layer, stream: u32) -> (u32, Passed) {
        let attention = self.normed(&layer.attention_norm, &layer.attention_in, stream);
        let (attended, logarithms) = (self.rows(WIDTH), self.rows(HEADS));
        let operands =
            Operands { input: attention.output, output: attended, kept: logarithms, ..Operands::default() };
        self.push(Kernel::Attend, [BATCH * HEADS, 1], operands);
        let between = self.linear(&layer.attention_out, attended, stream);

        let mlp = self.normed(&layer.mlp_norm, &layer.mlp_in, between);
        let bent = self.rows(4 * WIDTH);
        let operands = Operands { input: mlp.output, output: bent, ..Operands::default() };
        self.push(Kernel::Gelu, [ROWS * 4 * WIDTH / 64, 1], operands);
        let next = self.linear(&layer.mlp_out, bent, between);
        (next, Passed { attention, attended, logarithms, mlp, bent })
    }

    fn layer_back(&mut self, layer: &Layer, passed: &Passed, derivatives: &Derivatives) {
        let &Derivatives { stream, wide, narrow, deltas } = derivatives;
        self.linear_back(&layer.mlp_out, passed.bent, stream, wide);
        let operands =
            Operands { input: passed.mlp.output, output: wide, derivative: wide, ..Operands::default() };
        self.push(Kernel::GeluByInput, [ROWS * 4 * WIDTH / 64, 1], operands);
        self.normed_back((&layer.mlp_norm, &layer.mlp_in), passed.mlp, wide, stream, derivatives);

        self.linear_back(&layer.attention_out, passed.attended, stream, narrow);
        let operands = Operands {
            input: passed.attention.output,
            output: wide,
            result: passed.attended,
            derivative: narrow,
            kept: passed.logarithms,
            deltas,
            ..Operands::default()
        };
        self.push(Kernel::AttendByQuery, [BATCH * HEADS, 1], operands);
        self.push(Kernel::AttendByKey, [BATCH * HEADS, 1], operands);
        let tensors = (&layer.attention_norm, &layer.attention_in);
        self.normed_back(tensors, passed.attention, wide, stream, derivatives);
    }

    /// A norm of the stream, and a matrix after it.
    fn normed(&mut self, gain: &Tensor, matrix: &Tensor, input: u32) -> Normed {
        let (kept, normed) = (self.rows(1), self.rows(WIDTH));
        let weight = gain.at as u32;
        let operands = Operands { input, output: normed, weight, kept, ..Operands::default() };
        self.push(Kernel::Norm, [ROWS / 64, 1], operands);
        let output = self.linear(matrix, normed, NONE);
        Normed { input, kept, normed, output }
    }

    /// From the derivative by its output to that by the stream, to which `residual` is added.
    fn normed_back(
        &mut self,
        (gain, matrix): (&Tensor, &Tensor),
        passed: Normed,
        derivative: u32,
        residual: u32,
        &Derivatives { stream, narrow, .. }: &Derivatives,
    ) {
        self.linear_back(matrix, passed.normed, derivative, narrow);
        let operands = Operands {
            input: passed.input,
            output: stream,
            weight: gain.at as u32,
            derivative: narrow,
            residual,
            kept: passed.kept,
            ..Operands::default()
        };
        self.push(Kernel::NormByGain, [1, 1], operands);
        self.push(Kernel::NormByInput, [ROWS / 64, 1], operands);
    }

    fn linear(&mut self, tensor: &Tensor, input: u32, residual: u32) -> u32 {
        let output = self.rows(tensor.outputs);
        let operands = Operands { input, output, residual, ..of(tensor) };
        self.push(Kernel::Linear, [tensor.outputs / TILE, ROWS / TILE], operands);
        output
    }

    /// The gradient of a matrix, and from the derivative by its output that by its input.
    fn linear_back(&mut self, tensor: &Tensor, input: u32, derivative: u32, output: u32) {
        let operands = Operands { input, output, derivative, ..of(tensor) };
        let (inputs, outputs) = (tensor.inputs / TILE, tensor.outputs / TILE);
        self.push(Kernel::LinearByWeight, [outputs, inputs], operands);
        self.push(Kernel::LinearByInput, [inputs, ROWS / TILE], operands);
    }

    /// Room for a matrix of so many columns.
    fn rows(&mut self, columns: usize) -> u32 {
        let at = self.activations;
        self.activations += ROWS * columns;
        at as u32
    }

    fn push(&mut self, kernel: Kernel, workgroups: [usize; 2], operands: Operands) {
        self.list.push(Dispatch { kernel, operands, workgroups });
    }
}

fn of(tensor: &Tensor) -> Operands {
    let (weight, inputs, outputs) = (tensor.at as u32, tensor.inputs as u32, tensor.outputs as u32);
    Operands { weight, inputs, outputs, ..Operands::default() }
}
