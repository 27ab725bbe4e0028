//! The recurrent net: where its tensors lie in one buffer, and what they are at first.

/// Sequences of a step.
pub const BATCH: u32 = 16;
/// Units of a state.
pub const HIDDEN: u32 = 64;

/// A net over so many symbols: h ← tanh(input[symbol] + h · recurrent + bias), logits = h · readout + readout bias.
/// Matrices lie as inputs by outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Symbols, a multiple of four.
    pub symbols: u32,
}

/// A tensor: its name, its first element in the buffer, its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// What it is called.
    pub name: &'static str,
    /// Its first element.
    pub first: u32,
    /// Inputs by outputs, or outputs.
    pub shape: Vec<u64>,
}

impl Model {
    /// All tensors, one behind the other.
    pub fn tensors(self) -> [Tensor; 5] {
        let (hidden, symbols) = (u64::from(HIDDEN), u64::from(self.symbols));
        let mut first = 0;
        [
            ("input", vec![symbols, hidden]),
            ("recurrent", vec![hidden, hidden]),
            ("bias", vec![hidden]),
            ("readout", vec![hidden, symbols]),
            ("readout bias", vec![symbols]),
        ]
        .map(|(name, shape)| {
            let tensor = Tensor { name, first, shape };
            first += tensor.elements();
            tensor
        })
    }

    /// Elements of all tensors, behind which the gradient has the loss.
    pub fn elements(self) -> u32 {
        self.tensors().iter().map(Tensor::elements).sum()
    }

    /// Parameters at first: rotations of pairs of units, which carry a state far, and inputs that are seen in it. The
    /// gradients of such a net explode at rates that learn well where they are clipped.
    pub fn initial(self, seed: u32) -> Vec<f32> {
        let mut random = Random(seed.into());
        let [input, recurrent, bias, readout, readout_bias] = self.tensors().map(|t| t.first as usize);
        let mut parameters = vec![0.0; self.elements() as usize];
        parameters[input..recurrent].fill_with(|| (0.5 * random.normal()) as f32);
        let hidden = HIDDEN as usize;
        for unit in (0..hidden).step_by(2) {
            let (sin, cos) = (random.unit() / 2.0).sin_cos();
            let at = |row: usize, column: usize| recurrent + (unit + row) * hidden + unit + column;
            let block = [(at(0, 0), cos), (at(0, 1), sin), (at(1, 0), -sin), (at(1, 1), cos)];
            block.into_iter().for_each(|(at, value)| parameters[at] = (0.9 * value) as f32);
        }
        debug_assert!(recurrent < bias && bias < readout);
        parameters[readout..readout_bias].fill_with(|| (0.1 * random.normal()) as f32);
        parameters
    }
}

impl Tensor {
    /// Number of elements.
    pub fn elements(&self) -> u32 {
        self.shape.iter().product::<u64>() as u32
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let (radius, angle) = ((-2.0 * (1.0 - self.unit()).ln()).sqrt(), self.unit());
        radius * (2.0 * std::f64::consts::PI * angle).cos()
    }
}
