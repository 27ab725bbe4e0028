//! What adaptive thresholds remember, on the host: saved, restored, and used by the CPU path.

use bytemuck::Zeroable;

use crate::clip::{Adapt, Clip, LossScale, MOST_SCALE};
use crate::error::ClipError;
use crate::layout::{Adaptation, Progress, State, Tally};

/// What the thresholds of a clip remember of earlier steps, how many steps there were, and the loss
/// scale.
///
/// The CPU path keeps one from step to step ([`cpu::clip_with`](crate::cpu::clip_with)); a prepared
/// pass keeps the same on the device, from where [`Pass::save_history`](crate::Pass::save_history)
/// copies it and to where [`Pass::restore_history`](crate::Pass::restore_history) writes it. The
/// thresholds that follow are the same bits wherever it is continued.
///
/// ```
/// use gradclip::{Adapt, Clip, History, cpu::{self, GradMut}};
///
/// let clip = Clip::global_norm(f32::INFINITY).adapt(Adapt::Average { factor: 1.5, decay: 0.9 });
/// let mut history = History::default();
/// for norm in [1.0f32, 1.0, 8.0] {
///     let mut g = [norm];
///     let report = cpu::clip_with(&mut [GradMut::new("g", &mut g)], &clip, &mut history)?;
///     assert_eq!(g[0], norm.min(1.5));
///     assert_eq!(report.clipped(), norm > 1.5);
/// }
/// let restored = History::from_bytes(&history.to_bytes())?;
/// assert_eq!(restored, history);
/// # Ok::<(), gradclip::ClipError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    pub(crate) adaptation: Adaptation,
    pub(crate) tally: Tally,
    /// Whether the loss is scaled.
    pub(crate) scaled: bool,
    pub(crate) progress: Progress,
    /// One a limit, none where thresholds are fixed.
    pub(crate) states: Vec<State>,
    /// [`Adaptation::window`] norms a limit.
    pub(crate) norms: Vec<f32>,
}

/// Nothing yet, for any clip and any number of tensors: it takes its form at the first step.
impl Default for History {
    fn default() -> History {
        History {
            adaptation: Adapt::record(None),
            tally: Tally::zeroed(),
            scaled: false,
            progress: LossScale::begin(None),
            states: Vec::new(),
            norms: Vec::new(),
        }
    }
}

/// Counts have 32 bits: a run that is gone on with has some left.
const MOST_STEPS: u32 = 4_000_000_000;

/// Begins every saved history; the last byte is the version of the format.
const MAGIC: [u8; 8] = *b"gradclp\x03";
/// The version before, the progress of which ended with the corrections.
const SECOND: [u8; 8] = *b"gradclp\x02";

impl History {
    /// For a clip with this many limits.
    pub(crate) fn new(clip: &Clip, limits: usize) -> History {
        let adaptation = Adapt::record(clip.adapt);
        let states = if clip.adapt.is_some() { limits } else { 0 };
        History {
            adaptation,
            tally: Tally::zeroed(),
            scaled: clip.loss_scale.is_some(),
            progress: LossScale::begin(clip.loss_scale),
            states: vec![State::zeroed(); states],
            norms: vec![0.0; states * adaptation.window as usize],
        }
    }

    /// One that begins after so many optimiser steps of another program, with NAdam's product of all μ so far.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn begun_after(clip: &Clip, limits: usize, updates: u32, product: f32) -> History {
        let mut history = History::new(clip, limits);
        (history.progress.updates, history.progress.momentum_product) = (updates, product);
        history
    }

    /// Takes the form that a clip needs, if it has none yet.
    ///
    /// # Errors
    ///
    /// [`ClipError::State`] where it was begun with another adaptive threshold, other limits, or loss
    /// scaling in one of both only.
    pub(crate) fn fit(&mut self, clip: &Clip, limits: usize) -> Result<(), ClipError> {
        let needed = History::new(clip, limits);
        if *self == History::default() {
            *self = needed;
            return Ok(());
        }
        let form = |h: &History| (h.adaptation, h.states.len(), h.scaled);
        if form(self) == form(&needed) {
            return Ok(());
        }
        let words = |h: &History| {
            let scaled = if h.scaled { "loss scaling" } else { "no loss scaling" };
            format!("{} limits of {:?} and {scaled}", h.states.len(), h.adaptation)
        };
        Err(ClipError::State { required: words(&needed), given: words(self) })
    }

    /// Number of the last step, 0 before the first.
    pub fn steps(&self) -> u64 {
        self.tally.steps.into()
    }

    /// The threshold of each limit in the last step; empty where thresholds are fixed.
    pub fn thresholds(&self) -> Vec<f32> {
        self.states.iter().map(|s| s.threshold).collect()
    }

    /// What the next loss is to be multiplied by: 1 unless `clip` has a
    /// [`LossScale`].
    pub fn loss_scale(&self, clip: &Clip) -> f32 {
        if self.scaled { self.progress.scale } else { LossScale::begin(clip.loss_scale).scale }
    }

    /// Optimiser steps so far: skipped ones do not count.
    pub fn updates(&self) -> u64 {
        self.progress.updates.into()
    }

    /// As bytes, for a checkpoint. The order of bytes is little-endian everywhere.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut add = |words: &[u32]| bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        add(bytemuck::cast_slice(&[self.adaptation]));
        add(&[self.states.len() as u32, u32::from(self.scaled)]);
        add(bytemuck::cast_slice(&[self.tally]));
        add(bytemuck::cast_slice(&[self.progress]));
        add(bytemuck::cast_slice(&self.states));
        add(bytemuck::cast_slice(&self.norms));
        bytes
    }

    /// From what [`History::to_bytes`] gave.
    ///
    /// # Errors
    ///
    /// [`ClipError::State`] for other bytes, some of them, or values that no step ever leaves: a loss
    /// scale of 0, say, or a norm that is NaN.
    pub fn from_bytes(bytes: &[u8]) -> Result<History, ClipError> {
        let wrong = |given: String| ClipError::State { required: "a saved history".into(), given };
        let own = bytes.strip_prefix(&MAGIC).map(|rest| (rest, PROGRESS));
        let second = || bytes.strip_prefix(&SECOND).map(|rest| (rest, SECOND_PROGRESS));
        let Some((rest, saved)) = own.or_else(second) else {
            return Err(wrong(format!("{} bytes that do not begin as one", bytes.len())));
        };
        let words: Vec<u32> =
            rest.chunks_exact(4).filter_map(|w| w.first_chunk()).map(|w| u32::from_le_bytes(*w)).collect();
        const HEAD: usize = size_of::<Adaptation>() / 4;
        const TALLY: usize = size_of::<Tally>() / 4;
        const PROGRESS: usize = size_of::<Progress>() / 4;
        const SECOND_PROGRESS: usize = std::mem::offset_of!(Progress, skips) / 4;
        const STATE: usize = size_of::<State>() / 4;
        let cut = || wrong(format!("{} bytes, too many or too few of them", bytes.len()));
        let (head, words) = words.split_at_checked(HEAD).ok_or_else(cut)?;
        let (&states, words) = words.split_first().ok_or_else(cut)?;
        let (&scaled, words) = words.split_first().ok_or_else(cut)?;
        let adaptation: Adaptation = bytemuck::pod_read_unaligned(bytemuck::cast_slice(head));
        let (states, window) = (states as usize, adaptation.window as usize);
        let norms = states.checked_mul(window).ok_or_else(cut)?;
        let whole = states.checked_mul(STATE).and_then(|n| n.checked_add(norms)?.checked_add(TALLY + saved));
        if Some(words.len()) != whole || rest.len() % 4 != 0 {
            return Err(cut());
        }
        let (tally, words) = words.split_at(TALLY);
        let (known, words) = words.split_at(saved);
        let mut progress = LossScale::begin(None);
        bytemuck::cast_slice_mut(std::slice::from_mut(&mut progress))[..saved].copy_from_slice(known);
        let (states, norms) = words.split_at(states * STATE);
        let history = History {
            adaptation,
            tally: bytemuck::pod_read_unaligned(bytemuck::cast_slice(tally)),
            scaled: scaled != 0,
            progress,
            states: bytemuck::pod_collect_to_vec(states),
            norms: bytemuck::pod_collect_to_vec(norms),
        };
        match history.wrong_value() {
            None => Ok(history),
            Some(what) => Err(wrong(what)),
        }
    }

    /// A value that no step ever leaves: from it every later one would go wrong.
    fn wrong_value(&self) -> Option<String> {
        let Progress { scale, unscale, share, correction, second_correction, .. } = self.progress;
        let Progress { mean_correction, momentum_product, gradient_correction, .. } = self.progress;
        if !(f32::MIN_POSITIVE..=MOST_SCALE).contains(&scale) || unscale != 1.0 / scale {
            return Some(format!("a loss scale of {scale} and its inverse {unscale}"));
        }
        let finite = |value: &f32| value.is_finite() && *value >= 0.0;
        if let Some(value) = [correction, second_correction, gradient_correction].iter().find(|v| !finite(v))
        {
            return Some(format!("a correction of {value}"));
        }
        // 1 - dampening may be negative.
        if !share.is_finite() {
            return Some(format!("a share of {share}"));
        }
        let Progress { finite_steps, updates, skips, .. } = self.progress;
        let Tally { steps, clipped_steps, skipped_steps, .. } = self.tally;
        let counts = [finite_steps, updates, skips, steps, clipped_steps, skipped_steps];
        let all = counts.into_iter().chain(self.states.iter().flat_map(|s| [s.steps, s.observed]));
        if let Some(count) = all.into_iter().find(|count| *count > MOST_STEPS) {
            return Some(format!("a count of {count} steps"));
        }
        if mean_correction != 1.0 || !(0.0..=1.0).contains(&momentum_product) {
            return Some(format!("corrections of {mean_correction} and {momentum_product}"));
        }
        if let Some(norm) = self.norms.iter().find(|norm| !finite(norm)) {
            return Some(format!("a norm of {norm}"));
        }
        let limits = self.states.iter().flat_map(|s| [s.mean, s.variance]);
        if let Some(value) = limits.into_iter().find(|v| !finite(v)) {
            return Some(format!("a mean or variance of {value}"));
        }
        let over =
            self.states.iter().find(|s| s.threshold.is_nan() || s.threshold < 0.0 || s.over > s.counted);
        over.map(|s| format!("a threshold of {}, {} of {} segments above it", s.threshold, s.over, s.counted))
    }
}
