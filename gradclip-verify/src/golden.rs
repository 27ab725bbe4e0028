//! Two numbers for all that a fixed corpus comes to: the same on every processor, in WebAssembly, and the first of them on every adapter.
//!
//! A page that shows the first one beside [`EXPECTED`] shows that the visitor's device has the bits of the machine on which the tests ran.

use std::fmt;

use gradclip::NormType;
use gradclip::layout::Outcome;

use crate::failure::Failure;
use crate::gpu::{Gpu, Placed};
use crate::inputs::{Case, Sizes, clips, four_rows, recipes};
use crate::tensor::{Data, Element, Tensor};

/// The corpus, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Golden {
    /// Of what is decided: norm, threshold, coefficient, action and flags of every segment.
    pub decided: u64,
    /// Of the elements afterwards, any NaN like any other.
    pub elements: u64,
}

/// What it has to be.
pub const EXPECTED: Golden = Golden { decided: 0xcc23_6b84_974f_f9d6, elements: 0xe2ac_3e9d_b90d_74f8 };

/// One in so many of the large sets.
const SHARE: usize = 11;

impl fmt::Display for Golden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} {:016x}", self.decided, self.elements)
    }
}

/// The corpus through the CPU path.
///
/// # Errors
///
/// What the library refuses.
///
/// ```
/// use gradclip_verify::golden;
///
/// assert_eq!(golden::on_cpu()?, golden::EXPECTED);
/// # Ok::<(), gradclip_verify::Failure>(())
/// ```
pub fn on_cpu() -> Result<Golden, Failure> {
    let (mut decided, mut elements) = (Hash::default(), Hash::default());
    for case in corpus() {
        let (trace, after) = case.traced()?;
        decided.outcomes(&trace.outcomes);
        after.iter().for_each(|tensor| elements.data(&tensor.data));
    }
    Ok(Golden { decided: decided.0, elements: elements.0 })
}

/// The corpus through an adapter: what is decided. Elements are left out, since an adapter may flush subnormal ones to 0. `done` is awaited
/// after each case, with its number and that of all.
///
/// # Errors
///
/// What the library refuses, and where the device fails.
pub async fn on_adapter(gpu: &Gpu, mut done: impl AsyncFnMut(usize, usize)) -> Result<u64, Failure> {
    let mut decided = Hash::default();
    let cases = corpus();
    for (i, case) in (1..).zip(&cases) {
        let placed = Placed::upload(gpu, &case.tensors, case.placing);
        let pass = gpu.clipper.prepare_async(&placed.grads, &case.clip).await?;
        let staged = gpu.submit(|encoder| {
            pass.record(encoder);
            gpu.stage_parts(encoder, [(pass.outcomes(), 0..pass.outcome_bytes())])
        });
        let outcomes: Vec<Outcome> = bytemuck::pod_collect_to_vec(&gpu.collect_async(&staged).await?[0]);
        decided.outcomes(&outcomes);
        done(i, cases.len()).await;
    }
    Ok(decided.0)
}

/// Every rule in every scope with every exact norm over a small set, in turns of each type; and a share of the large sets: sizes around
/// columns and chunks, all magnitudes, what is not finite under every policy.
fn corpus() -> Vec<Case> {
    let exact = |norm: NormType| !matches!(norm, NormType::P(_));
    let small = clips().into_iter().filter(|clip| exact(clip.norm)).enumerate().map(|(turn, clip)| {
        let rounded = |data: Data| {
            let values: Vec<f32> = data.values().map(|value| value as f32).collect();
            Data::rounded(Element::ON_DEVICES[turn % 3], &values)
        };
        let tensors = four_rows(turn as u64, &clip).into_iter().map(|tensor| Tensor {
            data: rounded(tensor.data),
            parameter: tensor.parameter.map(rounded),
            ..tensor
        });
        Case::of(tensors.collect(), clip)
    });
    let some =
        |recipe: &crate::inputs::Recipe| exact(recipe.clip.norm) && !matches!(recipe.sizes, Sizes::Long);
    let large = recipes::recipes().into_iter().filter(some).step_by(SHARE).map(|recipe| recipe.cook());
    small.chain(large).collect()
}

/// FNV-1a (Fowler, Noll and Vo) over words of 64 bits instead of bytes.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Default for Hash {
    fn default() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        // Multiplication carries upwards only.
        self.0 ^= self.0 >> 29;
    }

    fn outcomes(&mut self, outcomes: &[Outcome]) {
        let words: &[u32] = bytemuck::cast_slice(outcomes);
        words.iter().for_each(|&word| self.word(word.into()));
    }

    fn data(&mut self, data: &Data) {
        for i in 0..data.len() {
            self.word(if data.value(i).is_nan() { u64::MAX } else { data.bits(i) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_comes_to_what_it_has_to() {
        assert_eq!(on_cpu().unwrap(), EXPECTED);
    }

    /// A hash that a change leaves alone would show nothing.
    #[test]
    fn every_word_counts() {
        let words = [3, 5, u64::MAX, 0, 5];
        let hashed = |words: &[u64]| {
            let mut hash = Hash::default();
            words.iter().for_each(|&word| hash.word(word));
            hash.0
        };
        let whole = hashed(&words);
        for at in 0..words.len() {
            for bit in 0..64 {
                let mut other = words;
                other[at] ^= 1 << bit;
                assert_ne!(hashed(&other), whole, "word {at}, bit {bit}");
            }
        }
    }
}
