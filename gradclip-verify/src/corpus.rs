//! A fixed corpus, and one hash of all that a clip makes of it, as FORMAT.md defines both: the same on every adapter and processor, and in
//! a program that shares no code with this one.
//!
//! ```
//! use gradclip::cpu;
//! use gradclip_verify::{corpus, tensor};
//!
//! let hash = corpus::hash(|tensors, clip, history| cpu::clip_with(&mut tensor::grads(tensors), clip, history));
//! assert_eq!(hash, Ok(corpus::EXPECTED));
//! ```

use gradclip::{Adapt, Clip, History, NormType, Report};
use half::{bf16, f16};

use crate::inputs::Random;
use crate::tensor::{Data, Tensor};

/// The hash of everything in the corpus.
pub const EXPECTED: u64 = 0xc0a3_3ed8_b7a4_5fc7;

/// Sets that are clipped once.
const CASES: u64 = 216;
/// Lengths about the edges of rows and chunks.
const LENGTHS: [usize; 12] = [0, 1, 15, 17, 1_023, 1_024, 1_025, 3_000, 5_000, 16_383, 16_384, 16_385];
/// Steps of each threshold that adapts.
const STEPS: u64 = 20;
/// The step of these in which an element is NaN.
const BROKEN: u64 = 9;

/// Gradients and what is done to them.
#[derive(Debug)]
pub struct Step {
    /// The set.
    pub tensors: Vec<Tensor>,
    /// The clip.
    pub clip: Clip,
    /// Whether nothing is remembered from the step before.
    pub first: bool,
}

/// The corpus, in its order.
pub fn steps() -> impl Iterator<Item = Step> {
    (0..CASES).map(case).chain((0..3).flat_map(|rule| (0..STEPS).map(move |step| adapting(rule, step))))
}

/// The hash of what `run` makes of every step of the corpus, clipped in place.
///
/// # Errors
///
/// The first of `run`.
pub fn hash<E>(
    mut run: impl FnMut(&mut [Tensor], &Clip, &mut History) -> Result<Report, E>,
) -> Result<u64, E> {
    let (mut hash, mut history) = (Hash::default(), History::default());
    for Step { mut tensors, clip, first } in steps() {
        if first {
            history = History::default();
        }
        let report = run(&mut tensors, &clip, &mut history)?;
        hash.step(&report, &tensors);
    }
    Ok(hash.value())
}

/// FNV-1a of 64 bits (Fowler, Noll and Vo), over numbers in little endian.
#[derive(Clone, Copy, Debug)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// What was found so far.
    pub fn value(self) -> u64 {
        self.0
    }

    /// What a step reports of its segments, and the elements that it leaves.
    pub fn step(&mut self, report: &Report, tensors: &[Tensor]) {
        for segment in &report.segments {
            for number in [segment.norm, segment.threshold, segment.coefficient] {
                let bits = if number.is_nan() { 0x7ff8 << 48 } else { number.to_bits() };
                self.bytes(&bits.to_le_bytes());
            }
            self.bytes(&[u8::from(segment.clipped), u8::from(segment.skipped)]);
            self.bytes(&segment.non_finite.to_le_bytes());
        }
        tensors.iter().for_each(|tensor| self.bytes(tensor.data.bytes()));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn case(number: u64) -> Step {
    let mut random = Random(number);
    let kind = number / 18 % 6;
    let mut tensors: Vec<Tensor> = (0..3)
        .map(|i| {
            let len = LENGTHS[random.below(LENGTHS.len())];
            let bits: Vec<u32> = (0..len).map(|at| element(kind, at, random.bits())).collect();
            Tensor::new(format!("t{i}"), of_type(number % 3, &bits))
        })
        .collect();
    if kind == 5 {
        tensors[1].data = match &tensors[1].data {
            Data::F16(_) => Data::F16(vec![f16::ONE, f16::NAN, f16::ONE]),
            Data::Bf16(_) => Data::Bf16(vec![bf16::ONE, bf16::NAN, bf16::ONE]),
            _ => Data::F32(vec![1.0, f32::NAN, 1.0]),
        };
    }
    let threshold = match number / 108 {
        0 => f32::from_bits((60 + random.below(160) as u32) << 23 | (random.bits() >> 41) as u32),
        _ => [f32::INFINITY, 0.0, 1.0, 1e-30][random.below(4)],
    };
    let clip = match number / 9 % 2 {
        0 => Clip::global_norm(threshold),
        _ => Clip::per_tensor_norm(threshold),
    };
    let norm = [NormType::Two, NormType::One, NormType::Inf][(number / 3 % 3) as usize];
    let unscale = [1.0, 2f32.powi(-13), 1.0 / 3.0, 3.0][random.below(4)];
    // f16 would lose what unscaling makes small, which a clip refuses.
    let unscale = if number % 3 == 2 { 1.0 } else { unscale };
    let eps = [0.0, 1e-6f32][random.below(2)];
    Step { tensors, clip: clip.norm_type(norm).unscale(unscale).eps(eps), first: true }
}

/// The bits of an `f32` that is finite.
fn element(kind: u64, at: usize, bits: u64) -> u32 {
    let any = (bits >> 32) as u32;
    let field = match kind {
        0 | 5 => 120 + any % 15,
        1 => 1 + any % 254,
        2 => any % 3,
        3 if at % 997 == 5 => 230,
        3 => 100 + any % 10,
        _ => 240 + any % 15,
    };
    let (sign, mantissa) = ((bits as u32) & (1 << 31), (bits as u32) & 0x7f_ffff);
    sign | field << 23 | mantissa
}

/// As they are, or their upper halves: as `bf16`, or as bits of `f16` whose field is cut to what is finite.
fn of_type(dtype: u64, bits: &[u32]) -> Data {
    let halves = bits.iter().map(|bits| (bits >> 16) as u16);
    match dtype {
        0 => Data::F32(bits.iter().copied().map(f32::from_bits).collect()),
        1 => Data::Bf16(halves.map(bf16::from_bits).collect()),
        _ => {
            let finite =
                |half: u16| f16::from_bits(if half >> 10 & 31 == 31 { half & !(1 << 10) } else { half });
            Data::F16(halves.map(finite).collect())
        }
    }
}

/// One tensor whose norm wanders.
fn adapting(rule: u64, step: u64) -> Step {
    let mut random = Random(1_000 + 100 * rule + step);
    let scale = (random.bits() >> 32) as u32 % 6;
    let bits = (0..100).map(|_| {
        let bits = random.bits();
        (bits as u32 & (1 << 31)) | ((118 + scale) << 23) | (bits as u32 & 0x7f_ffff)
    });
    let mut elements: Vec<f32> = bits.map(f32::from_bits).collect();
    if step == BROKEN {
        elements[50] = f32::NAN;
    }
    let adapt = match rule {
        0 => Adapt::Mean { factor: 1.5, window: 5 },
        1 => Adapt::Average { factor: 1.25, decay: 0.9 },
        _ => Adapt::Percentile { percentile: 85.0, window: 7 },
    };
    let clip = Clip::global_norm(1.0).adapt(adapt);
    Step { tensors: vec![Tensor::new("t", elements)], clip, first: step == 0 }
}
