//! Who holds what: pieces of tensors.

use std::ops::Range;

use gradclip::DType;
use gradclip::exchange::CHUNK;
use serde::{Deserialize, Serialize};

/// What this rank holds of one tensor.
///
/// ```
/// use gradclip_mpi::{Piece, shard_ranges};
///
/// // A vector on this rank alone; rows 10 to 20 of a matrix of 100 × 768; this rank's share of an embedding.
/// let bias = Piece::whole("bias", 768);
/// let rows = Piece::rows("mlp", &[100, 768], 10..20);
/// let share = shard_ranges(154_389_504, 8)[3].clone();
/// let embedding = Piece::part("embedding", 154_389_504, share);
/// assert_eq!((bias.elements(), rows.elements(), embedding.elements()), (768, 7680, 19_300_352));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    pub(crate) name: String,
    /// Elements of the whole tensor.
    pub(crate) whole: u64,
    /// Which of them lie here.
    pub(crate) first: u64,
    pub(crate) elements: u64,
    pub(crate) dtype: DType,
    /// Name and threshold of its group; none of an excluded one.
    pub(crate) group: Option<(String, Option<f64>)>,
    /// Of what lies here, for units.
    pub(crate) shape: Option<Vec<u64>>,
    pub(crate) lr_scale: f64,
    pub(crate) weight_decay: Option<f64>,
}

impl Piece {
    /// All of a tensor: of `f32`, unless set. Ranks that hold the same elements have copies, of which one is counted.
    pub fn whole(name: impl Into<String>, elements: u64) -> Piece {
        Piece::part(name, elements, 0..elements)
    }

    /// Elements `held` of a tensor of `whole` elements, counted in the whole, row-major.
    pub fn part(name: impl Into<String>, whole: u64, held: Range<u64>) -> Piece {
        let (first, elements) = (held.start, held.end.saturating_sub(held.start));
        let dtype = DType::F32;
        let (group, shape, lr_scale, weight_decay) = (None, None, 1.0, None);
        Piece { name: name.into(), whole, first, elements, dtype, group, shape, lr_scale, weight_decay }
    }

    /// Rows `held` of a tensor of this shape: what cuts along the first axis are, those of ZeRO, FSDP and DTensor's `Shard(0)`.
    pub fn rows(name: impl Into<String>, shape: &[u64], held: Range<u64>) -> Piece {
        let row = shape.get(1..).unwrap_or_default().iter().product::<u64>();
        let whole = shape.iter().product();
        let rows = held.end.saturating_sub(held.start);
        let piece = Piece::part(name, whole, held.start.saturating_mul(row)..held.end.saturating_mul(row));
        piece.shape(&[&[rows], shape.get(1..).unwrap_or_default()].concat())
    }

    /// Sets the element type.
    #[must_use]
    pub fn dtype(self, dtype: DType) -> Piece {
        Piece { dtype, ..self }
    }

    /// Puts the tensor into a group with a threshold of its own, as [`gradclip::Group::new`].
    #[must_use]
    pub fn group(self, name: impl Into<String>, threshold: impl Into<f64>) -> Piece {
        Piece { group: Some((name.into(), Some(threshold.into()))), ..self }
    }

    /// Puts the tensor into a group that is never clipped, as [`gradclip::Group::excluded`].
    #[must_use]
    pub fn excluded(self, name: impl Into<String>) -> Piece {
        Piece { group: Some((name.into(), None)), ..self }
    }

    /// Sets the shape of what lies here, for scopes that cut tensors into units.
    #[must_use]
    pub fn shape(self, shape: &[u64]) -> Piece {
        Piece { shape: Some(shape.to_vec()), ..self }
    }

    /// Sets the factor of the learning rate, for steps.
    #[must_use]
    pub fn lr_scale(self, lr_scale: f64) -> Piece {
        Piece { lr_scale, ..self }
    }

    /// Sets a weight decay of its own, for steps.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Piece {
        Piece { weight_decay: Some(weight_decay), ..self }
    }

    /// What the tensor is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many elements lie here.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(self.elements)
    }
}

/// Cuts `elements` for so many ranks at multiples of 16,384, as evenly as that allows: with such cuts every norm has the bits of one rank. Ranges
/// of the last ranks are empty where there are fewer chunks than ranks.
///
/// ```
/// let cuts = gradclip_mpi::shard_ranges(100_000, 3);
/// assert_eq!(cuts, [0..49_152, 49_152..81_920, 81_920..100_000]);
/// ```
pub fn shard_ranges(elements: u64, ranks: usize) -> Vec<Range<u64>> {
    let (chunks, count) = (elements.div_ceil(CHUNK), ranks.max(1) as u64);
    let (each, more) = (chunks / count, chunks % count);
    let cut = |rank: u64| ((each * rank + rank.min(more)) * CHUNK).min(elements);
    (0..ranks as u64).map(|rank| cut(rank)..cut(rank + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_all_at_chunks() {
        for elements in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK + 3, 154_389_504] {
            for ranks in [1, 2, 3, 7, 64] {
                let cuts = shard_ranges(elements, ranks);
                assert_eq!((cuts.len(), cuts[0].start, cuts[ranks - 1].end), (ranks, 0, elements));
                assert!(cuts.windows(2).all(|c| c[0].end == c[1].start));
                assert!(cuts.iter().all(|c| c.start % CHUNK == 0 || c.start == elements));
                let chunks = cuts.iter().map(|c| (c.end - c.start).div_ceil(CHUNK));
                let (least, most) = (chunks.clone().min().unwrap(), chunks.max().unwrap());
                assert!(most - least <= 1);
            }
        }
    }
}
