//! norm and history of a limit -> its threshold, and the history of the next step: the twin of
//! `shaders/threshold.wgsl`, in `f32` operations that every processor rounds correctly.

use crate::layout::{
    ADAPT_ADAGC, ADAPT_AGGC, ADAPT_AVERAGE, ADAPT_MEAN, ADAPT_NOISY_QUANTILE, ADAPT_PERCENTILE,
    ADAPT_QUANTILE, ADAPT_ZSCORE, Adaptation, NOISE_OF_THRESHOLDS, REACTION_FROM_ZERO, REACTION_MAX,
    REACTION_MEAN, REACTION_PAST, State,
};

use crate::real::{F32_MIN_EXPONENT, NO_MIN_EXPONENT, Real};

use super::noise::NoiseKeys;

/// Noise on counts is rounded to 2^-20.
const COUNT_DIGITS: i32 = 20;
/// Beside a standard deviation.
const SMALL: f32 = 1e-6;

/// What the limit on the whole set makes of this step.
#[derive(Clone, Copy)]
pub(crate) struct Whole {
    pub(crate) coefficient: f32,
    pub(crate) finite: bool,
}

/// One limit in one step. `norm` is `None` where an element is not finite.
pub(crate) struct Step<'a> {
    pub(crate) adaptation: &'a Adaptation,
    /// Its number, of which its noise is.
    pub(crate) limit: u32,
    /// What holds without a history.
    pub(crate) initial: f32,
    /// At most `f32::MAX`.
    pub(crate) norm: f32,
    pub(crate) measured: bool,
    pub(crate) whole: Whole,
    /// Nothing is limited, and nothing remembered.
    pub(crate) free: bool,
}

impl Step<'_> {
    /// Sets the threshold of this step in `state`, and remembers the norm. `norms` is the ring of the
    /// limit's norms.
    pub(crate) fn run(mut self, state: &mut State, norms: &mut [f32]) {
        let Adaptation { rule, window, reaction, a, .. } = *self.adaptation;
        let place = (state.observed % window.max(1)) as usize;
        let before = state.observed.min(window) as usize;
        let filled = (state.observed + u32::from(self.measured)).min(window) as usize;
        let old = *state;
        if self.free {
            *state = State {
                steps: old.steps + 1,
                threshold: f32::INFINITY,
                alone: 0,
                counted: 0,
                over: 0,
                raised: 0.0,
                ..old
            };
            return;
        }
        let past = rule == ADAPT_MEAN || (rule == ADAPT_PERCENTILE && reaction == REACTION_PAST);
        let own = (self.measured && window > 0).then_some(self.norm);
        let remember = |norms: &mut [f32]| {
            if let Some(norm) = own {
                norms[place] = norm;
            }
        };
        if !past {
            remember(norms);
        }
        let known = &norms[..if past { before } else { filled }];
        state.threshold = self.bounded(self.initial);
        (state.alone, state.raised) = (0, 0.0);
        match rule {
            ADAPT_MEAN if !known.is_empty() => state.threshold = self.bounded(mul(a, mean(known))),
            ADAPT_AVERAGE => self.by_average(state),
            ADAPT_PERCENTILE if !known.is_empty() => state.threshold = self.bounded(percentile(known, a)),
            ADAPT_ZSCORE => self.by_score(state, known),
            ADAPT_ADAGC => self.by_tensor(state),
            ADAPT_QUANTILE => self.by_quantile(state),
            ADAPT_NOISY_QUANTILE => self.by_noisy_quantile(state),
            ADAPT_AGGC => self.by_interval(state),
            _ => {}
        }
        if past {
            remember(norms);
        }
        if self.measured {
            state.observed += 1;
        } else {
            (state.mean, state.variance) = (old.mean, old.variance);
        }
        state.steps += 1;
        (state.counted, state.over) = (0, 0);
    }

    fn bounded(&self, threshold: f32) -> f32 {
        threshold.max(self.adaptation.least).min(self.adaptation.most)
    }

    /// The exponential average, which begins with the first norm.
    fn averaged(&self, state: &State, norm: f32) -> f32 {
        if state.observed == 0 { norm } else { average(self.adaptation.b, state.mean, norm) }
    }

    fn by_average(&self, state: &mut State) {
        if state.observed > 0 {
            state.threshold = self.bounded(mul(self.adaptation.a, state.mean));
        }
        state.mean = self.averaged(state, self.norm);
    }

    fn by_score(&self, state: &mut State, norms: &[f32]) {
        if state.observed < self.adaptation.steps {
            if norms.len() == self.adaptation.steps as usize {
                state.mean = mean(norms);
                state.variance = variance(norms, state.mean);
            }
            return;
        }
        state.threshold = self.bounded(self.spike_threshold(state));
        let clipped = self.norm.min(state.threshold);
        let b = self.adaptation.b;
        state.mean = average(b, state.mean, clipped);
        let distance = (clipped - state.mean).abs();
        state.variance = average(b, state.variance, mul(distance, distance));
    }

    /// Where a norm far above the mean is reduced to; else something that does not clip it.
    fn spike_threshold(&self, state: &State) -> f32 {
        let Adaptation { a: z, reaction, .. } = *self.adaptation;
        let deviation = state.variance.sqrt();
        let divisor = add(deviation, SMALL);
        let score = div((self.norm - state.mean).max(0.0), divisor);
        if score <= z {
            return self.norm.max(add(state.mean, mul(z, divisor)));
        }
        let above = mul(z, deviation);
        match reaction {
            REACTION_MEAN => state.mean,
            REACTION_MAX => add(state.mean, above),
            _ => add(state.mean, div(above, div(score, z))),
        }
    }

    /// During the warm-up the limit on the whole set holds, and the least of what it leaves is kept.
    fn by_tensor(&mut self, state: &mut State) {
        let Adaptation { a, steps, .. } = *self.adaptation;
        if state.steps < steps {
            state.threshold = f32::INFINITY;
            let clipped = mul(self.norm, self.whole.coefficient);
            self.measured &= self.whole.finite;
            state.mean = clipped.min(if state.observed == 0 { f32::MAX } else { state.mean });
            return;
        }
        (state.alone, state.threshold) = (1, self.bounded(f32::INFINITY));
        if state.observed > 0 {
            state.threshold = self.bounded(mul(a, state.mean));
        }
        state.mean = self.averaged(state, self.norm.min(state.threshold));
    }

    /// C after the last step, whose segments were counted.
    fn by_quantile(&mut self, state: &mut State) {
        let counted = state.counted;
        let share = (counted > 0).then(|| div((counted - state.over) as f32, counted as f32));
        self.follow(state, share.map(|share| (share, self.adaptation.a)));
    }

    /// The same with noise on the count, whose bits are those of the step. Where nothing was counted there is noise alone: that C moves must
    /// not depend on the examples, either.
    fn by_noisy_quantile(&mut self, state: &mut State) {
        let Adaptation { a: quantile, d: expected, .. } = *self.adaptation;
        // Half of those within less half of those above, in units of 2^-20.
        let halves = i64::from(state.counted) - 2 * i64::from(state.over);
        let total = (halves << (COUNT_DIGITS - 1)) + self.noise_of_count(state.steps);
        let exact = Real::new(total.unsigned_abs().into(), -COUNT_DIGITS, false);
        let share = div(exact.round(F32_MIN_EXPONENT).to_f32(), expected);
        // 1/2 + share against the quantile, both without a sign.
        let shares = if total < 0 { (0.5, add(quantile, share)) } else { (add(0.5, share), quantile) };
        self.follow(state, Some(shares));
    }

    /// C moves by how far a share of segments lies above the one that is wanted, if any were counted; the first step has what is set.
    fn follow(&mut self, state: &mut State, shares: Option<(f32, f32)>) {
        if state.steps == 0 {
            state.mean = state.threshold;
        } else if let Some((share, wanted)) = shares {
            let factor = exp(mul(self.adaptation.b, (share - wanted).abs()));
            state.mean = if share > wanted { div(state.mean, factor) } else { mul(state.mean, factor) };
        }
        self.measured = true;
        state.mean = self.bounded(state.mean);
        state.threshold = state.mean;
    }

    fn noise_of_count(&self, steps: u32) -> i64 {
        let Adaptation { c, steps: low, reaction: high, .. } = *self.adaptation;
        let deviation = Real::from_f32(c).round(NO_MIN_EXPONENT);
        if deviation.mantissa == 0 {
            return 0;
        }
        let z = NoiseKeys::new([low, high], self.limit, NOISE_OF_THRESHOLDS).at(0, steps);
        z.on_grid(u64::from(deviation.mantissa) << 40, 7 - COUNT_DIGITS - deviation.exponent)
    }

    /// Within an interval around the average of what it left of earlier norms.
    fn by_interval(&self, state: &mut State) {
        let Adaptation { a: high, b: decay, c: low, d: min_norm, e: max_up, f: max_down, .. } =
            *self.adaptation;
        let from_zero = self.adaptation.reaction == REACTION_FROM_ZERO;
        let begun = state.observed > 0 || from_zero;
        let average_before = if state.observed > 0 { state.mean } else { 0.0 };
        let upper = mul(high, average_before);
        if begun {
            let limit = if upper > 0.0 { upper.max(mul(max_down, self.norm)) } else { f32::INFINITY };
            state.threshold = self.bounded(limit);
        }
        let lower = min_norm.max(mul(low, average_before));
        let raised = if max_up > 0.0 { lower.min(mul(max_up, self.norm)) } else { lower };
        state.raised = raised.min(state.threshold);
        let raised = if self.norm > 0.0 { self.norm.max(state.raised) } else { 0.0 };
        let left = if self.norm > state.threshold { state.threshold } else { raised };
        state.mean = if begun { average(decay, average_before, left) } else { left };
    }
}

fn add(a: f32, b: f32) -> f32 {
    (a + b).min(f32::MAX)
}

fn mul(a: f32, b: f32) -> f32 {
    (a * b).min(f32::MAX)
}

fn div(a: f32, b: f32) -> f32 {
    (a / b).min(f32::MAX)
}

/// b * m + (1 - b) * x.
fn average(b: f32, m: f32, x: f32) -> f32 {
    add(mul(b, m), mul(1.0 - b, x))
}

/// e^x for x up to 16: the series to the seventh power at x / 2^k below a quarter, squared k times.
fn exp(x: f32) -> f32 {
    let (mut y, mut k) = (x, 0);
    while y > 0.25 {
        y *= 0.5;
        k += 1;
    }
    let series = (1..=7).rev().fold(1.0, |e, n| add(1.0, mul(e, div(y, n as f32))));
    (0..k).fold(series, |e, _| mul(e, e))
}

/// Summed as integers in units of the largest one's exponent: in any order the same.
fn mean(norms: &[f32]) -> f32 {
    let field = |norm: f32| (norm.to_bits() >> 23).max(1);
    let exponent = norms.iter().map(|&n| field(n)).max().unwrap_or(1);
    let term = |&norm: &f32| {
        let mantissa = u64::from(norm.to_bits() - ((field(norm) - 1) << 23)) << 32;
        u128::from(mantissa.checked_shr(exponent - field(norm)).unwrap_or(0))
    };
    let sum = crate::real::Real::new(norms.iter().map(term).sum(), exponent as i32 - 182, false);
    let sum = sum.round(crate::real::F32_MIN_EXPONENT).to_f32().min(f32::MAX);
    div(sum, norms.len().max(1) as f32)
}

/// The mean squared distance from the mean.
fn variance(norms: &[f32], mean: f32) -> f32 {
    let square = |&norm: &f32| mul((norm - mean).abs(), (norm - mean).abs());
    div(norms.iter().map(square).fold(0.0, add), norms.len().max(1) as f32)
}

/// Between the two nearest ranks, as numpy interpolates.
fn percentile(norms: &[f32], percent: f32) -> f32 {
    let mut sorted = norms.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let last = sorted.len() - 1;
    let rank = div(mul(percent, last as f32), 100.0);
    let k = rank as usize;
    let t = rank - k as f32;
    let (a, b) = (sorted[k], sorted[(k + 1).min(last)]);
    if t < 0.5 { add(a, mul(b - a, t)) } else { b - mul(b - a, 1.0 - t) }
}
