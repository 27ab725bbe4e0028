//! The transformer's sizes, and the place of each tensor of parameters.

/// Symbols that a row of logits has: more than the text has, a multiple of the tile of products.
pub(super) const VOCABULARY: usize = 96;
/// Tokens that are seen at once.
pub(super) const CONTEXT: usize = 64;
pub(super) const WIDTH: usize = 64;
pub(super) const HEADS: usize = 4;
pub(super) const LAYERS: usize = 2;
/// Sequences of a micro-batch.
pub(super) const BATCH: usize = 8;
/// Rows of all matrices of activations.
pub(super) const ROWS: usize = BATCH * CONTEXT;
pub(super) const SEED: u32 = 1;

// Kernels take whole tiles, workgroups of 64 rows or elements, and heads of whole vectors of four.
pub(super) const TILE: usize = 32;
const _: () = assert!(VOCABULARY.is_multiple_of(TILE) && WIDTH.is_multiple_of(TILE));
const _: () = assert!(ROWS.is_multiple_of(64) && WIDTH.is_multiple_of(4 * HEADS));

/// Tensors begin at multiples of 256 bytes whether their elements have two bytes or four.
const ALIGNMENT: usize = 128;

/// A tensor of parameters: inputs by outputs, row-major.
pub(super) struct Tensor {
    pub(super) name: String,
    /// First element, in each of the arenas: parameters, masters, gradients, sums, moments.
    pub(super) at: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    initial: Initial,
}

#[derive(Clone, Copy)]
enum Initial {
    One,
    /// Of this standard deviation.
    Normal(f64),
}

impl Tensor {
    pub(super) fn elements(&self) -> usize {
        self.inputs * self.outputs
    }

    pub(super) fn range(&self) -> std::ops::Range<usize> {
        self.at..self.at + self.elements()
    }

    /// Gains and embeddings have none: decay is for matrices that are multiplied with.
    pub(super) fn decays(&self) -> bool {
        self.inputs > 1 && !self.name.ends_with("embedding")
    }
}

pub(super) struct Layer {
    pub(super) attention_norm: Tensor,
    /// Queries, keys and values side by side.
    pub(super) attention_in: Tensor,
    pub(super) attention_out: Tensor,
    pub(super) mlp_norm: Tensor,
    pub(super) mlp_in: Tensor,
    pub(super) mlp_out: Tensor,
}

impl Layer {
    fn tensors(&self) -> [&Tensor; 6] {
        let Layer { attention_norm, attention_in, attention_out, mlp_norm, mlp_in, mlp_out } = self;
        [attention_norm, attention_in, attention_out, mlp_norm, mlp_in, mlp_out]
    }
}

pub(super) struct Model {
    pub(super) embedding: Tensor,
    pub(super) position: Tensor,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Tensor,
    pub(super) output: Tensor,
    /// Of an arena.
    pub(super) elements: usize,
}

impl Model {
    pub(super) fn new() -> Model {
        let mut elements = 0;
        let mut tensor = |name: String, inputs: usize, outputs: usize, initial: Initial| {
            let at = elements;
            elements = (at + inputs * outputs).next_multiple_of(ALIGNMENT);
            Tensor { name, at, inputs, outputs, initial }
        };
        // Sums of products begin with the variance of what goes in.
        let scaled = |inputs: usize| Initial::Normal((inputs as f64).powf(-0.5));
        // What is added to the residual stream is added 2 LAYERS times.
        let added = |inputs: usize| Initial::Normal(((2 * LAYERS * inputs) as f64).powf(-0.5));
        let embedding = tensor("embedding".into(), VOCABULARY, WIDTH, Initial::Normal(0.5));
        let position = tensor("position embedding".into(), CONTEXT, WIDTH, Initial::Normal(0.2));
        let layers = (0..LAYERS).map(|l| Layer {
            attention_norm: tensor(format!("layer {l} attention norm"), 1, WIDTH, Initial::One),
            attention_in: tensor(format!("layer {l} attention in"), WIDTH, 3 * WIDTH, scaled(WIDTH)),
            attention_out: tensor(format!("layer {l} attention out"), WIDTH, WIDTH, added(WIDTH)),
            mlp_norm: tensor(format!("layer {l} mlp norm"), 1, WIDTH, Initial::One),
            mlp_in: tensor(format!("layer {l} mlp in"), WIDTH, 4 * WIDTH, scaled(WIDTH)),
            mlp_out: tensor(format!("layer {l} mlp out"), 4 * WIDTH, WIDTH, added(4 * WIDTH)),
        });
        let layers = layers.collect();
        let norm = tensor("norm".into(), 1, WIDTH, Initial::One);
        let output = tensor("output".into(), WIDTH, VOCABULARY, Initial::Normal(0.02));
        Model { embedding, position, layers, norm, output, elements }
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let layers = self.layers.iter().flat_map(Layer::tensors);
        [&self.embedding, &self.position]
            .into_iter()
            .chain(layers)
            .chain([&self.norm, &self.output])
            .collect()
    }

    /// An arena of parameters before the first step.
    pub(super) fn initial(&self) -> Vec<f32> {
        let mut random = Random(SEED.into());
        let mut parameters = vec![0.0; self.elements];
        for tensor in self.tensors() {
            parameters[tensor.range()].fill_with(|| match tensor.initial {
                Initial::One => 1.0,
                Initial::Normal(deviation) => (deviation * random.normal()) as f32,
            });
        }
        parameters
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(super) struct Random(pub(super) u64);

impl Random {
    /// In [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    pub(super) fn normal(&mut self) -> f64 {
        let (radius, angle) = ((-2.0 * (1.0 - self.unit()).ln()).sqrt(), self.unit());
        radius * (2.0 * std::f64::consts::PI * angle).cos()
    }
}
