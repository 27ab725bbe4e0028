//! Runs of optimisers that other libraries made, replayed: a case folder becomes a clip, an optimiser and
//! the gradients of each step. The CPU path and devices step through them, and the parameters after every
//! step are compared with those of the peer.
//!
//! A folder holds `case.json`, a file of parameters `p.NNNN` (`f32`) and gradients `sK.g.NNNN` of step K
//! (`f32`, `f16` or `bf16`), and one of the expected parameters `sK.p.NNNN` after step K, where these are masters also of what
//! they are rounded to, `sK.h.NNNN` of the type `param_dtype`. What `function`
//! and `args` name is taken as the peer documents it, its defaults included; anything unknown is an error.
//! Where `args` has `groups`, each with `tensors` and an `optimizer`, these may differ in rate and decay.
#![allow(dead_code, unreachable_pub)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::files;
use gradclip::cpu::{self, Moments};
use gradclip::layout::Progress;
use gradclip::{
    Adam, Adopt, Clip, DType, GiveUp, Grad, History, Lars, Lion, LossScale, NAdam, NonFinite, NormType,
    Optimizer, RAdam, Remembers, Report, Rule, Scope, Sgd, Skip, Stepper, TrustRatio, Units, UpdateLimit,
};
use gradclip_verify::gpu::{Gpu, Operands, Placing};
use gradclip_verify::tensor::{Data, Element, Tensor, steps};
use gradclip_verify::tolerance;
use serde_json::{Map, Value, json};

/// Or what failed, in words.
pub type Attempt<T> = Result<T, String>;

fn words(error: impl ToString) -> String {
    error.to_string()
}

mod call;
mod case;
mod device;
mod groups;
mod optimizers;

pub use call::settings;
pub use case::*;
use device::OnDevice;
pub use device::*;
use files::number;
use groups::*;

/// Something that makes a case's steps.
trait Stepping {
    fn step(&mut self, gradients: &[Data], loss: Option<f32>) -> Attempt<Report>;
    fn parameters(&self) -> Vec<Vec<f32>>;
    /// The same in 16 bits, where they are masters.
    fn halves(&self) -> Vec<Data>;
    /// Loss scale and number of updates.
    fn progress(&self) -> Attempt<(f32, u64)>;
}

/// What a replay gave.
#[derive(Debug, Default)]
pub struct Replay {
    /// The largest error of a parameter in units of the tolerance.
    pub worst: f64,
    /// What is wrong; empty where everything matches.
    pub failures: Vec<String>,
}

impl Replay {
    fn check(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(message());
        }
    }

    fn step(&mut self, case: &Case, k: usize, stepping: &mut impl Stepping) -> Attempt<()> {
        let (step, at) = (&case.steps[k], k + 1);
        let (scale, updates) = stepping.progress()?;
        self.check(case.same_scale(scale, step.scale), || {
            format!("loss scale before step {at}: {scale}, not {:?}", step.scale)
        });
        let report = stepping.step(&step.gradients, step.loss)?;
        let skipped = stepping.progress()?.1 == updates;
        self.check(skipped == step.skipped.unwrap_or(false), || format!("step {at} skipped: {skipped}"));
        let reported = report.segments.iter().any(|s| s.skipped);
        self.check(skipped == reported, || format!("report of step {at}: skipped {reported}"));
        if let (Some((want, tolerance)), Scope::Global) = (step.norm, case.clip.scope) {
            let got = report.norm().unwrap_or(f64::NAN);
            let same = got == want || (got.is_nan() && want.is_nan());
            self.check(same || (got / want - 1.0).abs() <= tolerance, || {
                format!("norm of step {at}: {got:e}, not {want:e}")
            });
        }
        self.compare(case, at, &step.expected, &stepping.parameters());
        self.compare_halves(case, at, &stepping.halves());
        Ok(())
    }

    /// Names each tensor with a parameter of 16 bits that is not its master rounded.
    fn compare_halves(&mut self, case: &Case, at: usize, got: &[Data]) {
        let Step { expected, halves, .. } = &case.steps[at - 1];
        self.check(got.len() == halves.len(), || format!("step {at}: {} parameters of 16 bits", got.len()));
        for ((tensor, got), (master, want)) in case.tensors.iter().zip(got).zip(expected.iter().zip(halves)) {
            let fits = |i: usize| {
                let want = want.len() == got.len() && case.rounds_to(want, i, master[i]);
                want && case.rounds_to(got, i, master[i])
            };
            let wrong = (0..got.len()).find(|&i| !fits(i));
            self.check(wrong.is_none(), || {
                let i = wrong.unwrap_or_default();
                format!("s{at}.h.{}[{i}]: {}, of a master of {:e}", tensor.name, got.value(i), master[i])
            });
        }
    }

    /// Names the worst element of the step where it is too far off.
    fn compare(&mut self, case: &Case, at: usize, expected: &[Vec<f32>], got: &[Vec<f32>]) {
        let mut worst = (0.0, String::new());
        for (t, (got, want)) in got.iter().zip(expected).enumerate() {
            self.check(got.len() == want.len(), || format!("s{at}.p.{}: other length", case.tensors[t].name));
            for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
                let error = case.error(got, want);
                if error > worst.0 {
                    let what = format!("s{at}.p.{}[{i}]: {got:e}, not {want:e}", case.tensors[t].name);
                    worst = (error, format!("{what}, {error:.3} of the tolerance"));
                }
            }
        }
        self.check(worst.0 <= 1.0, || worst.1.clone());
        self.worst = self.worst.max(worst.0);
    }
}

impl Case {
    fn replay(&self, mut stepping: impl Stepping) -> Attempt<Replay> {
        let mut replay = Replay::default();
        (0..self.steps.len()).try_for_each(|k| replay.step(self, k, &mut stepping))?;
        let (scale, _) = stepping.progress()?;
        replay.check(self.same_scale(scale, self.final_scale), || {
            format!("loss scale at the end: {scale}, not {:?}", self.final_scale)
        });
        Ok(replay)
    }

    /// On the CPU path.
    pub fn on_cpu(&self) -> Attempt<Replay> {
        self.replay(OnCpu {
            case: self,
            tensors: self.tensors.clone(),
            history: History::default(),
            moments: Moments::default(),
        })
    }

    /// On a device.
    pub fn on_device(&self, gpu: &Gpu, placing: Placing) -> Attempt<Replay> {
        self.replay(OnDevice::new(self, gpu, placing)?)
    }
}

struct OnCpu<'a> {
    case: &'a Case,
    tensors: Vec<Tensor>,
    history: History,
    moments: Moments,
}

impl Stepping for OnCpu<'_> {
    fn step(&mut self, gradients: &[Data], loss: Option<f32>) -> Attempt<Report> {
        let OnCpu { case, tensors, history, moments } = self;
        loss.into_iter().for_each(|loss| history.set_loss(loss));
        tensors.iter_mut().zip(gradients).for_each(|(tensor, g)| tensor.data.clone_from(g));
        cpu::step(&mut steps(tensors), &case.clip, case.optimizer, history, moments).map_err(words)
    }

    fn parameters(&self) -> Vec<Vec<f32>> {
        self.tensors.iter().filter_map(|t| Some(t.parameter.as_ref()?.floats())).collect()
    }

    fn halves(&self) -> Vec<Data> {
        self.tensors.iter().filter_map(|t| t.half.clone()).collect()
    }

    fn progress(&self) -> Attempt<(f32, u64)> {
        Ok((self.history.loss_scale(&self.case.clip), self.history.updates()))
    }
}
