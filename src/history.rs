//! What adaptive thresholds remember, on the host: saved, restored, and used by the CPU path.

use bytemuck::{AnyBitPattern, Pod, Zeroable};

use crate::clip::{Clip, LossScale, MOST_SCALE, Skip};
use crate::error::ClipError;
use crate::layout::{Adaptation, Inputs, Progress, SKIP_LOSS, SKIP_NON_FINITE, Skipping, State, Tally};

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
    /// The rule that leaves out steps, all zeros for none.
    pub(crate) skipping: Skipping,
    /// What the program hands in for the next step.
    pub(crate) inputs: Inputs,
    /// [`Skipping::window`] norms that this rule keeps, then as many losses.
    pub(crate) watched: Vec<f32>,
}

/// Nothing yet, for any clip and any number of tensors: it takes its form at the first step.
impl Default for History {
    fn default() -> History {
        History::new(&Clip::measure(), 0)
    }
}

/// The next record of words, which it is taken from.
fn taken<T: AnyBitPattern>(words: &mut &[u32]) -> Option<T> {
    let (own, rest) = words.split_at_checked(size_of::<T>() / 4)?;
    *words = rest;
    Some(bytemuck::pod_read_unaligned(bytemuck::cast_slice(own)))
}

/// The next `count` of them.
fn many<T: AnyBitPattern + bytemuck::NoUninit>(words: &mut &[u32], count: u64) -> Option<Vec<T>> {
    let len = usize::try_from(count).ok()?.checked_mul(size_of::<T>() / 4)?;
    let (own, rest) = words.split_at_checked(len)?;
    *words = rest;
    Some(bytemuck::pod_collect_to_vec(own))
}

/// A record of which the first `len` words are there, the rest as in `record`.
fn begun<T: Pod>(words: &mut &[u32], len: usize, mut record: T) -> Option<T> {
    let (own, rest) = words.split_at_checked(len)?;
    *words = rest;
    bytemuck::cast_slice_mut(std::slice::from_mut(&mut record))[..len].copy_from_slice(own);
    Some(record)
}

/// Counts have 32 bits: a run that is gone on with has some left.
const MOST_STEPS: u32 = 4_000_000_000;

/// Begins every saved history; the last byte is the version of the format.
const MAGIC: [u8; 8] = *b"gradclp\x03";
/// The version before, which knew neither bounds of thresholds nor rules that leave out steps.
const SECOND: [u8; 8] = *b"gradclp\x02";

impl History {
    /// For a clip with this many limits.
    pub(crate) fn new(clip: &Clip, limits: usize) -> History {
        let (adaptation, skipping) = (clip.adaptation(), Skip::of(clip.skip));
        let states = if clip.adapt.is_some() { limits } else { 0 };
        History {
            adaptation,
            tally: Tally::zeroed(),
            scaled: clip.loss_scale.is_some(),
            progress: LossScale::begin(clip.loss_scale),
            states: vec![State::zeroed(); states],
            norms: vec![0.0; states * adaptation.window as usize],
            skipping,
            inputs: Inputs::default(),
            watched: vec![0.0; 2 * skipping.window as usize],
        }
    }

    /// One of a run that another program began: so many steps of an optimiser of Adam's kind, momentum or Lion, whose state goes on
    /// with corrections of the next step, and nothing that thresholds remember. It takes its form at the next step, as the default
    /// does. NAdam and SPAM count otherwise, and need a history of their own.
    ///
    /// ```
    /// assert_eq!(gradclip::History::after_updates(100).updates(), 100);
    /// ```
    pub fn after_updates(updates: u64) -> History {
        let mut history = History::default();
        history.progress.updates = updates.min(MOST_STEPS.into()) as u32;
        history
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
    /// [`ClipError::State`] where it was begun with another adaptive threshold, another rule that leaves out steps, other limits, or loss
    /// scaling in one of both only.
    pub(crate) fn fit(&mut self, clip: &Clip, limits: usize) -> Result<(), ClipError> {
        let mut needed = History { inputs: self.inputs, ..History::new(clip, limits) };
        let begun = History { inputs: Inputs::default(), ..self.clone() };
        if self.tally.steps == 0 && History::after_updates(self.updates()) == begun {
            needed.progress.updates = self.progress.updates;
            *self = needed;
            return Ok(());
        }
        if self.form() == needed.form() {
            (self.adaptation, self.skipping) = (needed.adaptation, needed.skipping);
            return Ok(());
        }
        let words = |h: &History| {
            let scaled = if h.scaled { "loss scaling" } else { "no loss scaling" };
            format!(
                "{} limits of {:?}, {scaled} and {:?}",
                h.states.len(),
                h.adaptation.without_key(),
                h.skipping
            )
        };
        Err(ClipError::State { required: words(&needed), given: words(self) })
    }

    /// What a clip has to have in common with it: bounds of thresholds and what is a spike may change within a run.
    fn form(&self) -> impl PartialEq + use<> {
        const SERIES: u32 = SKIP_LOSS | SKIP_NON_FINITE;
        let adaptation = Adaptation { least: 0.0, most: 0.0, ..self.adaptation.without_key() };
        let Skipping { window, flags, .. } = self.skipping;
        // Whether there is a rule at all counts: without one nobody takes back what it found last.
        let rule = self.skipping != Skipping::zeroed();
        (adaptation, self.states.len(), self.scaled, rule, window, flags & SERIES)
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

    /// Sets the loss of the next step, which [`Skip::with_loss`] watches; 0 before the first.
    pub fn set_loss(&mut self, loss: f32) {
        self.inputs.loss = loss;
    }

    /// Sets the norm of the next step, where [`Clip::use_norm`] takes it from here; before the first it is infinite, which is no norm.
    pub fn set_norm(&mut self, norm: f32) {
        self.inputs.norm = norm;
    }

    /// Optimiser steps so far: skipped ones do not count.
    pub fn updates(&self) -> u64 {
        self.progress.updates.into()
    }

    /// As bytes, for a checkpoint. The order of bytes is little-endian everywhere.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut add = |words: &[u32]| bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        add(bytemuck::cast_slice(&[self.adaptation.without_key()]));
        add(bytemuck::cast_slice(&[self.skipping]));
        add(bytemuck::cast_slice(&[self.inputs]));
        add(&[self.states.len() as u32, u32::from(self.scaled)]);
        add(bytemuck::cast_slice(&[self.tally]));
        add(bytemuck::cast_slice(&[self.progress]));
        add(bytemuck::cast_slice(&self.states));
        add(bytemuck::cast_slice(&self.norms));
        add(bytemuck::cast_slice(&self.watched));
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
        let own = bytes.strip_prefix(&MAGIC).map(|rest| (rest, true));
        let second = || bytes.strip_prefix(&SECOND).map(|rest| (rest, false));
        let Some((rest, current)) = own.or_else(second) else {
            return Err(wrong(format!("{} bytes that do not begin as one", bytes.len())));
        };
        let words: Vec<u32> =
            rest.chunks_exact(4).filter_map(|w| w.first_chunk()).map(|w| u32::from_le_bytes(*w)).collect();
        let read = if current { History::read(&words) } else { History::read_second(&words) };
        let history = read.filter(|_| rest.len() % 4 == 0);
        let cut = || wrong(format!("{} bytes, too many or too few of them", bytes.len()));
        let history = history.ok_or_else(cut)?;
        match history.wrong_value() {
            None => Ok(history),
            Some(what) => Err(wrong(what)),
        }
    }

    /// From the words of [`History::to_bytes`], where they are as many as they say.
    fn read(words: &[u32]) -> Option<History> {
        let mut rest = words;
        let adaptation: Adaptation = taken(&mut rest)?;
        let skipping: Skipping = taken(&mut rest)?;
        let inputs = taken(&mut rest)?;
        let [states, scaled]: [u32; 2] = taken(&mut rest)?;
        let (tally, progress) = (taken(&mut rest)?, taken(&mut rest)?);
        let norms = u64::from(states) * u64::from(adaptation.window);
        let history = History {
            adaptation,
            tally,
            scaled: scaled != 0,
            progress,
            states: many(&mut rest, states.into())?,
            norms: many(&mut rest, norms)?,
            skipping,
            inputs,
            watched: many(&mut rest, 2 * u64::from(skipping.window))?,
        };
        rest.is_empty().then_some(history)
    }

    /// The same of the version before, whose records were the first words of these.
    fn read_second(words: &[u32]) -> Option<History> {
        const PROGRESS: usize = std::mem::offset_of!(Progress, skips) / 4;
        const STATE: usize = std::mem::offset_of!(State, raised) / 4;
        const ADAPTATION: usize = std::mem::offset_of!(Adaptation, c) / 4;
        let (empty, mut rest) = (History::default(), words);
        let adaptation: Adaptation = begun(&mut rest, ADAPTATION, empty.adaptation)?;
        let [states, scaled]: [u32; 2] = taken(&mut rest)?;
        let tally = taken(&mut rest)?;
        let progress = begun(&mut rest, PROGRESS, empty.progress)?;
        let norms = u64::from(states) * u64::from(adaptation.window);
        if rest.len() as u64 != u64::from(states) * STATE as u64 + norms {
            return None;
        }
        let states = (0..states).map(|_| begun(&mut rest, STATE, State::zeroed())).collect::<Option<_>>()?;
        let norms = many(&mut rest, norms)?;
        Some(History { adaptation, tally, scaled: scaled != 0, progress, states, norms, ..empty })
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
        let Progress { finite_steps, updates, skips, strikes, spikes, watched, .. } = self.progress;
        let Tally { steps, clipped_steps, skipped_steps, .. } = self.tally;
        let counts =
            [finite_steps, updates, skips, steps, clipped_steps, skipped_steps, strikes, spikes, watched];
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
        if self.skipping == Skipping::zeroed() && self.progress.reasons != 0 {
            return Some(format!("reasons {:#x} of a rule that there is not", self.progress.reasons));
        }
        let keeps_all = self.skipping.flags & SKIP_NON_FINITE != 0;
        let (norms, losses) = self.watched.split_at(self.watched.len() / 2);
        let unlike = |value: &&f32| value.is_nan() || (value.is_infinite() && !keeps_all);
        if let Some(value) =
            norms.iter().find(|norm| unlike(norm) || **norm < 0.0).or(losses.iter().find(unlike))
        {
            return Some(format!("a norm or loss of {value}"));
        }
        let limits = self.states.iter().flat_map(|s| [s.mean, s.variance, s.raised]);
        if let Some(value) = limits.into_iter().find(|v| !finite(v)) {
            return Some(format!("a mean or variance of {value}"));
        }
        let over =
            self.states.iter().find(|s| s.threshold.is_nan() || s.threshold < 0.0 || s.over > s.counted);
        over.map(|s| format!("a threshold of {}, {} of {} segments above it", s.threshold, s.over, s.counted))
    }
}
