//! One norm over several machines: what their ranks tell each other between the halves of a step, in two reductions.
//!
//! The sums of tensors are integers aligned to a largest exponent. So what ranks exchange are a maximum of integers and a
//! sum of integers, neither of which depends on order: whatever carries them (MPI, NCCL, gloo), every rank has the same bits
//! after it, and where tensors are cut at multiples of [`CHUNK`] elements they are those of one rank that holds everything.
//!
//! # The order of a step
//!
//! | half | on an adapter | on the CPU path |
//! |---|---|---|
//! | sums of what lies here | [`Pass::record_norm`](crate::Pass::record_norm), [`Pass::record_measured`](crate::Pass::record_measured), [`Exchange::begin`] | [`Prepared::measure`](crate::cpu::Prepared::measure), [`Prepared::begin_exchange`](crate::cpu::Prepared::begin_exchange) |
//! | between ranks | all-reduce [`Exchange::maxima`] by maximum, then [`Exchange::aligned`] by sum | the same |
//! | what follows | [`Pass::write_sums`](crate::Pass::write_sums), [`Pass::record_apply`](crate::Pass::record_apply) | [`Prepared::end_exchange`](crate::cpu::Prepared::end_exchange), [`Prepared::apply`](crate::cpu::Prepared::apply) |
//!
//! Every rank prepares the same tensors in the same order, those that it holds nothing of with no elements. Then thresholds,
//! loss scale, rules that leave out steps, and reports follow from the same records everywhere. `gradclip-mpi` does all of this.
//!
//! # Why single tensors are exchanged
//!
//! A sum of tensors drops low bits of each tensor's sum, and a tensor's sum low bits of each partial: floors, which do
//! not add up from parts (`floor(a + b) >= floor(a) + floor(b)`). So what is added between ranks lies before any floor: the
//! partials of chunks, aligned to the largest exponent that a tensor has anywhere. A sum takes 4 bytes in the first reduction and
//! 24 in the second.
//!
//! A mantissa of 96 bits goes as two halves of 48, with 16 bits of headroom: for [`MOST_RANKS`] ranks. That it is below 2^96 over all
//! ranks together needs at most [`MOST_CHUNKS`] chunks over all ranks, which is for the caller to see to.

use std::ops::Range;

use crate::clip::{Clip, Rule, Scope, Summation};
use crate::combine::{self, nothing_at};
use crate::error::ClipError;
use crate::layout::{NONE, Partial, Sum};
use crate::plan::partials_in_order;
use crate::segments::{Owner, Segments};
use crate::tensor::TensorInfo;

/// Elements of a chunk. Tensors that are cut between ranks at multiples of it have the bits of one rank.
pub const CHUNK: u64 = crate::layout::CHUNK as u64;
/// The most chunks over all ranks, those of each tensor and piece rounded up.
pub const MOST_CHUNKS: u64 = crate::layout::MOST_CHUNKS;
/// The most ranks whose halves of mantissas, and whose counts, add up in 64 bits.
pub const MOST_RANKS: usize = (1 << (u64::BITS - HALF)) - 1;

/// Bits of half a mantissa.
const HALF: u32 = 48;
/// Words of a sum in the second reduction: two halves, and what is not finite.
const WORDS: usize = 3;
/// Bits below the point of a sum of powers, each at most 1, of which there are fewer than 2^46.
const POWER_BITS: i32 = 50;

/// What is exchanged between ranks for one prepared clip, allocated once.
///
/// Two ranks that hold a tensor each, with sums where messages would be:
///
/// ```
/// use gradclip::{Clip, cpu::{self, GradMut, Prepared}};
///
/// // Every rank names every tensor, and holds what it holds.
/// let (mut w, mut b) = ([30.0f32, 0.0], [40.0f32]);
/// let clip = Clip::global_norm(5.0);
/// let prepare = |w: &mut [f32], b: &mut [f32]| {
///     cpu::prepare(&[GradMut::new("w", w), GradMut::new("b", b)], &clip)
/// };
/// let mut ranks = [prepare(&mut w, &mut [])?, prepare(&mut [], &mut b)?];
/// let mut exchanges = [ranks[0].exchange(&[true, true])?, ranks[1].exchange(&[true, true])?];
///
/// ranks[0].measure([&w[..], &[]])?;
/// ranks[1].measure([&[][..], &b[..]])?;
/// for (rank, exchange) in ranks.iter().zip(&mut exchanges) {
///     rank.begin_exchange(exchange)?;
/// }
/// let [one, two] = &mut exchanges;
/// for (a, b) in one.maxima().iter_mut().zip(two.maxima()) {
///     (*a, *b) = ((*a).max(*b), (*a).max(*b));
/// }
/// for (a, b) in one.aligned().iter_mut().zip(two.aligned()) {
///     (*a, *b) = (*a + *b, *a + *b);
/// }
/// for (rank, exchange) in ranks.iter_mut().zip(&mut exchanges) {
///     rank.end_exchange(exchange)?;
/// }
/// ranks[0].apply([&mut w[..], &mut []])?;
/// ranks[1].apply([&mut [][..], &mut b[..]])?;
/// assert_eq!((w, b), ([3.0, 0.0], [4.0]));
/// assert!(ranks.iter().all(|rank| rank.norm() == Some(50.0)));
/// # Ok::<(), gradclip::ClipError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Exchange {
    parts: Segments,
    summation: Summation,
    /// Of each sum, in their order.
    own: Vec<Own>,
    stage: Stage,
    partials: Vec<Partial>,
    /// Those of tensors and parameters: of what lies here, then of all ranks.
    sums: Vec<Sum>,
    segment_sums: Vec<Sum>,
    maxima: Vec<u32>,
    addends: Vec<u64>,
}

/// What one sum is made of here.
#[derive(Clone, Debug, Default)]
struct Own {
    /// Index of the tensor.
    tensor: u32,
    partials: Range<usize>,
    /// Whether it is counted here.
    counts: bool,
    /// Whether its partials are those of units, which it is no sum of one after the other.
    units: bool,
}

/// What was done last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Ended,
    Begun,
    Aligned,
}

/// Something asked out of its order.
const ORDER: ClipError = ClipError::Combination {
    what: "an exchange between ranks",
    required: "its steps in their order: begin, maxima, aligned, and then the sums put back, once",
};

/// An optimiser's step that asks for more than sums of gradients.
pub(crate) const LIMITS_UPDATES: ClipError = ClipError::Combination {
    what: "a step over several ranks",
    required: "an optimiser whose updates no norm of their tensor limits: no rank knows the rest of a tensor",
};

impl Exchange {
    /// `counts` has one word a tensor: whether what lies here of it is counted, which is false where another rank counts the
    /// same elements. `steps` says whether an optimiser's step follows.
    pub(crate) fn new(
        infos: &[TensorInfo],
        parts: &Segments,
        clip: &Clip,
        (counts, steps): (&[bool], bool),
    ) -> Result<Exchange, ClipError> {
        check(clip, steps)?;
        if counts.len() != infos.len() {
            let (required, given) = (infos.len(), counts.len());
            return Err(ClipError::Count { required, given });
        }
        let tensors = infos.len();
        let mut place = vec![0; parts.sums()];
        for (at, &tensor) in parts.order.iter().enumerate() {
            place[tensor as usize] = at;
            if parts.parameters {
                place[tensor as usize + tensors] = at + tensors;
            }
        }
        let mut own = vec![Own::default(); parts.sums()];
        let mut count = 0;
        for (number, _, partials) in partials_in_order(infos, parts) {
            count = partials.end;
            let tensor = number % tensors;
            let units = matches!(parts.owner_of(number), Owner::Units { .. });
            own[place[number]] = Own { tensor: tensor as u32, partials, counts: counts[tensor], units };
        }
        let sums = own.len();
        Ok(Exchange {
            summation: clip.norm.into(),
            stage: Stage::Ended,
            partials: vec![bytemuck::Zeroable::zeroed(); count],
            sums: vec![combine::NOTHING; sums],
            segment_sums: vec![combine::NOTHING; parts.summed() as usize],
            maxima: vec![0; sums],
            addends: vec![0; WORDS * sums],
            parts: parts.clone(),
            own,
        })
    }

    /// Bytes of what [`Pass::record_measured`](crate::Pass::record_measured) copies, and [`Exchange::begin`] takes.
    pub fn measured_bytes(&self) -> u64 {
        (size_of_val(&self.partials[..]) + size_of_val(&self.sums[..])) as u64
    }

    /// Bytes of the two reductions, as this rank hands them over.
    pub fn exchanged_bytes(&self) -> [u64; 2] {
        [size_of_val(&self.maxima[..]) as u64, size_of_val(&self.addends[..]) as u64]
    }

    /// Begins with what the norm half left on a device.
    ///
    /// # Errors
    ///
    /// [`ClipError::Count`] for another number of bytes than [`Exchange::measured_bytes`].
    pub fn begin(&mut self, measured: &[u8]) -> Result<(), ClipError> {
        let (required, given) = (self.measured_bytes() as usize, measured.len());
        if required != given {
            return Err(ClipError::Count { required, given });
        }
        let (partials, sums) = measured.split_at(size_of_val(&self.partials[..]));
        bytemuck::cast_slice_mut(&mut self.partials).copy_from_slice(partials);
        bytemuck::cast_slice_mut(&mut self.sums).copy_from_slice(sums);
        self.begun();
        Ok(())
    }

    /// Begins with the records of the CPU path.
    pub(crate) fn begin_with(&mut self, partials: &[Partial], sums: &[Sum]) -> Result<(), ClipError> {
        for (required, given) in [(self.partials.len(), partials.len()), (self.sums.len(), sums.len())] {
            if required != given {
                return Err(ClipError::Count { required, given });
            }
        }
        self.partials.copy_from_slice(partials);
        self.sums.copy_from_slice(sums);
        self.begun();
        Ok(())
    }

    fn begun(&mut self) {
        for ((sum, own), maximum) in self.sums.iter_mut().zip(&self.own).zip(&mut self.maxima) {
            if !own.counts {
                *sum = combine::NOTHING;
            }
            *maximum = sum.exponent;
        }
        self.stage = Stage::Begun;
    }

    /// The largest exponent of each sum here, to be replaced by the largest of all ranks: a reduction by maximum.
    pub fn maxima(&mut self) -> &mut [u32] {
        &mut self.maxima
    }

    /// Mantissas and counts of what lies here, aligned to [`Exchange::maxima`], to be replaced by their sums over all ranks: a
    /// reduction by sum. They are aligned by the first call after [`Exchange::begin`]; there are none before that.
    pub fn aligned(&mut self) -> &mut [u64] {
        match self.stage {
            Stage::Ended => return &mut [],
            Stage::Aligned => return &mut self.addends,
            Stage::Begun => self.stage = Stage::Aligned,
        }
        let Exchange { own, partials, sums, maxima, addends, summation, .. } = self;
        let all = own.iter().zip(&*sums).zip(&*maxima).zip(addends.chunks_exact_mut(WORDS));
        for (((own, sum), &maximum), to) in all {
            let aligned = own.aligned(sum, partials, maximum, *summation);
            let count = u64::from(sum.non_finite) | (u64::from(sum.nan) << HALF);
            let mask = (1 << HALF) - 1;
            to.copy_from_slice(&[(aligned & mask) as u64, (aligned >> HALF) as u64, count]);
        }
        &mut self.addends
    }

    /// The sums of all ranks that were last put back: of tensors, and of segments.
    #[doc(hidden)]
    pub fn sums(&self) -> [&[Sum]; 2] {
        [&self.sums, &self.segment_sums]
    }

    /// The sums of all ranks, for so many of tensors and of segments.
    pub(crate) fn end(&mut self, tensors: usize, segments: usize) -> Result<Sums<'_>, ClipError> {
        for (required, given) in [(tensors, self.sums.len()), (segments, self.segment_sums.len())] {
            if required != given {
                return Err(ClipError::Count { required, given });
            }
        }
        if self.stage != Stage::Aligned {
            return Err(ORDER);
        }
        self.stage = Stage::Ended;
        let Exchange { own, sums, maxima, addends, summation, .. } = self;
        let all = own.iter().zip(&mut *sums).zip(&*maxima).zip(addends.chunks_exact(WORDS));
        for (((own, sum), &exponent), words) in all {
            *sum = own.whole(exponent, words, *summation);
        }
        let Exchange { parts, sums, segment_sums, summation, .. } = self;
        combine::whole_segments(sums, parts, *summation, segment_sums);
        let first = if parts.cut() { parts.count as usize } else { 0 };
        let until = if parts.cut() { parts.decided() as usize } else { segment_sums.len() };
        Ok(Sums { tensors: sums, segments: &segment_sums[first..until], first })
    }
}

/// What all ranks measured together.
pub(crate) struct Sums<'e> {
    pub(crate) tensors: &'e [Sum],
    /// Of units, which lie whole on one rank, only that of the whole set, if there is one.
    pub(crate) segments: &'e [Sum],
    /// The index of the first of these.
    pub(crate) first: usize,
}

impl Own {
    /// The mantissa aligned to an exponent that is at least its own, or a sum of powers in units of 2^-[`POWER_BITS`].
    fn aligned(&self, sum: &Sum, partials: &[Partial], exponent: u32, summation: Summation) -> u128 {
        if !self.counts {
            return 0;
        }
        let target = nothing_at(exponent);
        if let Summation::P(p) = summation {
            let powers = f64::from(f32::from_bits(sum.mantissa[0]));
            let ratio = combine::power_of_ratio(sum.exponent, exponent, f32::from_bits(p));
            return (powers * ratio * 2f64.powi(POWER_BITS)) as u128;
        }
        let items = partials[self.partials.clone()].iter();
        let items = items.map(|partial| combine::item(partial, self.tensor, summation));
        let Sum { mantissa, .. } = match self.units {
            true => combine::combine([*sum, target].into_iter(), summation),
            false => combine::combine(items.chain([target]), summation),
        };
        let [lo, mid, hi] = mantissa.map(u128::from);
        lo | (mid << 32) | (hi << 64)
    }

    /// The sum of all ranks, from what their words add up to.
    fn whole(&self, exponent: u32, words: &[u64], summation: Summation) -> Sum {
        let [lo, hi, count] = [words[0], words[1], words[2]];
        let total = u128::from(lo) + (u128::from(hi) << HALF);
        let powers = (total as f64 * 2f64.powi(-POWER_BITS)) as f32;
        let mantissa = if let Summation::P(_) = summation { powers.to_bits().into() } else { total };
        let non_finite = count & ((1 << HALF) - 1);
        Sum {
            mantissa: combine::words(mantissa),
            exponent,
            non_finite: non_finite.try_into().unwrap_or(u32::MAX),
            nan: u32::from(count >> HALF != 0),
            first: if non_finite == 0 { NONE } else { self.tensor },
            pad: 0,
        }
    }
}

/// That a clip means the same over several ranks.
fn check(clip: &Clip, steps: bool) -> Result<(), ClipError> {
    let units = matches!(clip.scope, Scope::Unit(_));
    let required = match clip {
        _ if clip.use_norm => "a norm that is measured: one that is handed in is that of all ranks already",
        Clip { scope: Scope::Row, .. } => "another scope than rows, which lie on all ranks",
        Clip { rule: Rule::Rms | Rule::Average, .. } => {
            "a rule that asks for no number of elements: no rank knows those of others"
        }
        _ if units && (steps || clip.adapt.is_some() || clip.loss_scale.is_some()) => {
            "no step, loss scale or adaptive threshold under units: each rank knows its own units alone"
        }
        _ => return Ok(()),
    };
    Err(ClipError::Combination { what: "a clip over several ranks", required })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most that ranks can add up: every rank's mantissa at most its share of 2^96, halves below 2^48 from each.
    #[test]
    fn the_largest_sums_fit() {
        let largest = (1u64 << HALF) - 1;
        assert!(u128::from(largest) * (MOST_RANKS as u128) < 1 << 64);
        let own = Own { counts: true, ..Own::default() };
        let whole = |words: [u64; 3]| own.whole(7, &words, Summation::Two);
        let all = whole([largest, largest, 0]);
        assert_eq!(all.mantissa, [u32::MAX; 3]);
        // Carries of the lower half go into the upper one.
        let ranks = MOST_RANKS as u64;
        let carried = whole([largest * ranks, 0, (u64::from(u32::MAX) * ranks) | (1 << 63)]);
        let exact = u128::from(largest) * u128::from(ranks);
        assert_eq!(carried.mantissa, combine::words(exact));
        assert_eq!((carried.non_finite, carried.nan, carried.first), (u32::MAX, 1, 0));
    }
}
