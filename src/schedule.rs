//! Learning rates as plain functions of the step t = 0, 1, 2 …, to be set on an optimiser before each
//! step. Nothing counts along: a run that goes on from step t asks for t.
//!
//! | call | α(t) |
//! |---|---|
//! | [`constant`](Schedule::constant) | α₀ |
//! | [`polynomial`](Schedule::polynomial) | α₀ (1 − t/T)^β, 0 from T on |
//! | [`inverse_sqrt`](Schedule::inverse_sqrt) | α₀ / √(t + 1) |
//! | [`inverse_time`](Schedule::inverse_time) | α₀ / (1 + t/γ)^β |
//! | [`exponential`](Schedule::exponential) | α₀ γᵗ |
//! | [`step_decay`](Schedule::step_decay) | α₀ γ^⌊t/N⌋ |
//! | [`cosine`](Schedule::cosine) | α_T + (α₀ − α_T) (1 + cos(πt/T)) / 2, α_T from T on |
//! | [`a.warm_up(N)`](Schedule::warm_up) | (t + 1)/(N + 1) · a(0) before N, a(t − N) from N on |
//! | [`a.then(N, b)`](Schedule::then) | a(t) before N, b(t − N) from N on |
//! | [`a.times(b)`](Schedule::times) | a(t) · b(t) |
//! | [`a.at_least(floor)`](Schedule::at_least) | max(a(t), floor) |
//!
//! What they are elsewhere:
//!
//! | call | PyTorch | Keras |
//! |---|---|---|
//! | `polynomial` | `PolynomialLR`; β = 1: `LinearLR` from 1 to 0 | `PolynomialDecay` to 0 |
//! | `inverse_time` | | `InverseTimeDecay`: γ = decay_steps / decay_rate, β = 1 |
//! | `exponential` | `ExponentialLR` | `ExponentialDecay`: γ = decay_rate^(1 / decay_steps) |
//! | `step_decay` | `StepLR` | `ExponentialDecay` with `staircase` |
//! | `cosine` | `CosineAnnealingLR`, which turns back after T | `CosineDecay`: α_T = alpha · α₀ |
//! | `warm_up` | `SequentialLR` after `LinearLR` from 1/(N + 1) to 1 in N steps | |
//! | `then` | `SequentialLR` | |
//! | `times` | `ChainedScheduler`, where b begins with 1 | |
//!
//! ```
//! use gradclip::Schedule;
//!
//! let schedule = Schedule::cosine(3e-4, 3e-5, 10_000)?.warm_up(499);
//! assert_eq!(schedule.at(249), 1.5e-4);
//! assert_eq!(schedule.at(499), 3e-4);
//! assert_eq!(schedule.at(20_000), 3e-5);
//! for (t, lr) in (0u64..).zip(schedule.iter()).take(3) {
//!     assert_eq!(lr, schedule.at(t));
//! }
//! # Ok::<(), gradclip::ScheduleError>(())
//! ```

use std::f64::consts::FRAC_PI_2;

use crate::error::ScheduleError;

/// A learning rate for each step, 0 to `f64::MAX` whatever the step: larger values are limited to that.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
// Deserialised through the checks of the constructors.
#[cfg_attr(feature = "serde", serde(try_from = "Curve", into = "Curve"))]
pub struct Schedule(Curve);

/// What a schedule is made of.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Curve {
    Constant { rate: f64 },
    Polynomial { initial: f64, steps: u64, power: f64 },
    InverseSqrt { initial: f64 },
    InverseTime { initial: f64, scale: f64, power: f64 },
    Exponential { initial: f64, factor: f64 },
    StepDecay { initial: f64, every: u64, factor: f64 },
    Cosine { initial: f64, last: f64, steps: u64 },
    WarmUp { steps: u64, schedule: Box<Schedule> },
    Then { first: Box<Schedule>, at: u64, next: Box<Schedule> },
    Times { a: Box<Schedule>, b: Box<Schedule> },
    AtLeast { floor: f64, schedule: Box<Schedule> },
}

impl Schedule {
    /// `rate` in every step.
    pub fn constant(rate: f64) -> Result<Schedule, ScheduleError> {
        Curve::Constant { rate }.try_into()
    }

    /// α₀ (1 − t/T)^β with T = `steps`, and 0 from T on. `power` β is 1 for a linear decay.
    pub fn polynomial(initial: f64, steps: u64, power: f64) -> Result<Schedule, ScheduleError> {
        Curve::Polynomial { initial, steps, power }.try_into()
    }

    /// α₀ / √(t + 1).
    pub fn inverse_sqrt(initial: f64) -> Result<Schedule, ScheduleError> {
        Curve::InverseSqrt { initial }.try_into()
    }

    /// α₀ / (1 + t/γ)^β, where `scale` γ is the steps after which 1 + t/γ is 2.
    pub fn inverse_time(initial: f64, scale: f64, power: f64) -> Result<Schedule, ScheduleError> {
        Curve::InverseTime { initial, scale, power }.try_into()
    }

    /// α₀ γᵗ. A `factor` γ above 1 grows, as in a search for the largest useful rate (Smith 2017,
    /// arXiv 1506.01186), until γᵗ or the rate is limited to `f64::MAX`.
    pub fn exponential(initial: f64, factor: f64) -> Result<Schedule, ScheduleError> {
        Curve::Exponential { initial, factor }.try_into()
    }

    /// α₀ γ^⌊t/N⌋: times `factor` γ after `every` N steps. Limited as
    /// [`exponential`](Schedule::exponential) is.
    pub fn step_decay(initial: f64, every: u64, factor: f64) -> Result<Schedule, ScheduleError> {
        Curve::StepDecay { initial, every, factor }.try_into()
    }

    /// Half a cosine from `initial` to `last` in `steps` T, and `last` from T on: one period of SGDR
    /// (Loshchilov and Hutter 2017, arXiv 1608.03983), whose restarts are [`then`](Schedule::then)
    /// another. `last` may be above `initial`: the rate rises.
    pub fn cosine(initial: f64, last: f64, steps: u64) -> Result<Schedule, ScheduleError> {
        Curve::Cosine { initial, last, steps }.try_into()
    }

    /// Linear warm-up (Goyal et al. 2017, arXiv 1706.02677): in the first `steps` N steps (t + 1)/(N + 1)
    /// of this schedule's first rate, then this schedule from its beginning. No step has the rate 0, and
    /// step N is the first with the whole rate.
    #[must_use]
    pub fn warm_up(self, steps: u64) -> Schedule {
        if steps == 0 {
            return self;
        }
        Schedule(Curve::WarmUp { steps, schedule: Box::new(self) })
    }

    /// This schedule before step `at`, from there on `next`, which begins with its step 0.
    #[must_use]
    pub fn then(self, at: u64, next: Schedule) -> Schedule {
        Schedule(Curve::Then { first: Box::new(self), at, next: Box::new(next) })
    }

    /// The product of both at the same step: a rate, and a factor for it.
    #[must_use]
    pub fn times(self, other: Schedule) -> Schedule {
        Schedule(Curve::Times { a: Box::new(self), b: Box::new(other) })
    }

    /// This schedule, but `floor` where it is below that.
    pub fn at_least(self, floor: f64) -> Result<Schedule, ScheduleError> {
        Curve::AtLeast { floor, schedule: Box::new(self) }.try_into()
    }

    /// The rate of step `t`, the first being 0.
    pub fn at(&self, t: u64) -> f64 {
        let rate = match &self.0 {
            Curve::Constant { rate } => *rate,
            Curve::Polynomial { initial, steps, power } => {
                // At β = 0 the power of 0 would be 1.
                if t < *steps { initial * part(steps - t, *steps).powf(*power) } else { 0.0 }
            }
            Curve::InverseSqrt { initial } => initial / (t as f64 + 1.0).sqrt(),
            Curve::InverseTime { initial, scale, power } => initial / (1.0 + t as f64 / scale).powf(*power),
            Curve::Exponential { initial, factor } => initial * growth(*factor, t),
            Curve::StepDecay { initial, every, factor } => initial * growth(*factor, t / every),
            Curve::Cosine { initial, last, steps } => {
                // (1 ± cos 2x) / 2 as squares, which cancel nothing where the cosine is near ∓1.
                let t = t.min(*steps);
                let done = (FRAC_PI_2 * part(t, *steps)).sin().powi(2);
                let left = (FRAC_PI_2 * part(steps - t, *steps)).sin().powi(2);
                initial * left + last * done
            }
            Curve::WarmUp { steps, schedule } => match t.checked_sub(*steps) {
                None => schedule.at(0) * ((t as f64 + 1.0) / (*steps as f64 + 1.0)),
                Some(t) => schedule.at(t),
            },
            Curve::Then { first, at, next } => match t.checked_sub(*at) {
                None => first.at(t),
                Some(t) => next.at(t),
            },
            Curve::Times { a, b } => a.at(t) * b.at(t),
            Curve::AtLeast { floor, schedule } => schedule.at(t).max(*floor),
        };
        // No sign either: −0 is a valid rate.
        rate.min(f64::MAX).abs()
    }

    /// The rates of steps 0, 1, 2 …
    pub fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        (0..=u64::MAX).map(|t| self.at(t))
    }
}

/// `t` of `steps` as a fraction.
fn part(t: u64, steps: u64) -> f64 {
    t as f64 / steps as f64
}

/// `factor`ⁿ, finite so that a rate of 0 stays 0.
fn growth(factor: f64, n: u64) -> f64 {
    factor.powf(n as f64).min(f64::MAX)
}

impl TryFrom<Curve> for Schedule {
    type Error = ScheduleError;

    fn try_from(curve: Curve) -> Result<Schedule, ScheduleError> {
        match curve {
            Curve::Constant { rate } => not_negative("rate", rate)?,
            Curve::Polynomial { initial, steps, power } => {
                not_negative("initial rate", initial)?;
                at_least_one("number of steps", steps)?;
                not_negative("power", power)?;
            }
            Curve::InverseSqrt { initial } => not_negative("initial rate", initial)?,
            Curve::InverseTime { initial, scale, power } => {
                not_negative("initial rate", initial)?;
                positive("time scale", scale)?;
                not_negative("power", power)?;
            }
            Curve::Exponential { initial, factor } => {
                not_negative("initial rate", initial)?;
                positive("factor", factor)?;
            }
            Curve::StepDecay { initial, every, factor } => {
                not_negative("initial rate", initial)?;
                at_least_one("number of steps", every)?;
                positive("factor", factor)?;
            }
            Curve::Cosine { initial, last, steps } => {
                not_negative("initial rate", initial)?;
                not_negative("last rate", last)?;
                at_least_one("number of steps", steps)?;
            }
            Curve::AtLeast { floor, .. } => not_negative("floor", floor)?,
            Curve::WarmUp { .. } | Curve::Then { .. } | Curve::Times { .. } => {}
        }
        Ok(Schedule(curve))
    }
}

#[cfg(feature = "serde")]
impl From<Schedule> for Curve {
    fn from(schedule: Schedule) -> Curve {
        schedule.0
    }
}

fn not_negative(what: &'static str, given: f64) -> Result<(), ScheduleError> {
    if given >= 0.0 && given.is_finite() {
        return Ok(());
    }
    Err(ScheduleError::Argument { what, required: "0 or more and finite", given })
}

fn positive(what: &'static str, given: f64) -> Result<(), ScheduleError> {
    if given > 0.0 && given.is_finite() {
        return Ok(());
    }
    Err(ScheduleError::Argument { what, required: "above 0 and finite", given })
}

fn at_least_one(what: &'static str, given: u64) -> Result<(), ScheduleError> {
    if given >= 1 {
        return Ok(());
    }
    Err(ScheduleError::Argument { what, required: "1 or more", given: given as f64 })
}
