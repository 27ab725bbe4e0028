//! Loss scale, counts and corrections from step to step, on a device and on the CPU path.

use std::fmt;

use gradclip::cpu::{self, Moments};
use gradclip::layout::Progress;
use gradclip::{
    Adam, Clip, Grad, History, LossScale, NAdam, NonFinite, Optimizer, Pass, RAdam, Sgd, Stepper, wgpu,
};

use crate::budget::ADVANCE_STEPS as STEPS;
use crate::check::training::{history, progress};
use crate::failure::Failure;
use crate::gpu::{Gpu, Placed, Placing, Staged};
use crate::inputs::Random;
use crate::tally::{Findings, Wrong};
use crate::tensor::{Tensor, grads, named, steps};

/// Gradients of two tensors: finite, or one of them not.
const BATCHES: [[[f32; 3]; 2]; 3] = [
    [[1.0, 2.0, -3.0], [0.5, 0.25, 4.0]],
    [[1.0, f32::INFINITY, -3.0], [0.5, 0.25, 4.0]],
    [[1.0, 2.0, -3.0], [0.5, 0.25, f32::NAN]],
];
const BATCH: u64 = size_of::<[[f32; 3]; 2]>() as u64;
/// The words of [`Progress`]; of which those with a point are numbers, the others counts.
const WORDS: [(&str, bool); size_of::<Progress>() / 4] = [
    ("loss scale", true),
    ("1 / loss scale", true),
    ("number of finite steps", false),
    ("number of updates", false),
    ("flag that parameters move", false),
    ("share of the gradient", true),
    ("correction of the first moment", true),
    ("correction of the second moment", true),
    ("number of steps skipped in a row", false),
    ("correction of the mean", true),
    ("product of the momenta", true),
    ("correction of the gradient", true),
    ("reasons to leave out the step", false),
    ("number of such steps in a row", false),
    ("number of spikes", false),
    ("number of values watched", false),
];

/// Compares every word of a device's progress.
pub(crate) fn compare(step: usize, got: &[u8], expected: &Progress) -> Findings {
    let expected: [u32; WORDS.len()] = bytemuck::cast(*expected);
    let got: Vec<u32> = bytemuck::pod_collect_to_vec(&got[..size_of_val(&expected)]);
    let mut findings = Findings::default();
    for ((&got, expected), (what, number)) in got.iter().zip(expected).zip(WORDS) {
        let off = f64::from(got.abs_diff(expected));
        let value = |word: u32| if number { f32::from_bits(word).into() } else { f64::from(word) };
        let wrong = Wrong { step, what, at: None, got: value(got), expected: value(expected) };
        findings.named(off, 0.0, wrong);
    }
    findings
}

/// What advances, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Advance {
    optimizer: Option<Optimizer>,
    clip: Clip,
    /// Steps before those compared.
    updates: u32,
    seed: u64,
}

/// Optimisers, loss scales and numbers of steps take turns, in lists whose lengths share no factor;
/// policies take one after all optimisers.
pub(crate) fn advances() -> Vec<Advance> {
    let adam = |first, second| Some(Optimizer::from(Adam::new(0.01).betas(first, second)));
    let optimizers = [
        None,
        adam(0.9, 0.999),
        Some(Sgd::new(0.1).into()),
        adam(0.0, 0.0),
        Some(Sgd::new(0.1).momentum(0.9).dampening(0.3).into()),
        adam(0.8, 0.95),
        adam(0.87, 0.999_999),
        adam(0.9999, 0.5),
        Some(NAdam::new(0.01).into()),
        Some(RAdam::new(0.01).into()),
        Some(NAdam::new(0.01).betas(0.99, 0.9).momentum_decay(0.2).into()),
        Some(RAdam::new(0.01).betas(0.5, 0.999_999).into()),
        Some(RAdam::new(0.01).betas(0.9, 0.9).into()),
    ];
    let scale = |initial, growth, backoff, interval| {
        Some(LossScale::default().initial(initial).growth(growth).backoff(backoff).interval(interval))
    };
    let most = 2f32.powi(126);
    let scales = [
        scale(65_536.0, 2.0, 0.5, 1),
        scale(1000.0, 3.0, 0.3, 2),
        None,
        scale(most, 2.0, 0.7, 1),
        scale(1.0, 1.7, 0.01, 3),
        scale(1.0 / most, 1.1, 0.5, 4),
        scale(1e30, 1e10, 1.0, 2),
        scale(3.0, 1.0, 0.9, 5),
        scale(1e-30, 2.0, 1e-10, 7),
    ];
    let policies = [NonFinite::Skip, NonFinite::Zero, NonFinite::Skip, NonFinite::Sanitize];
    let updates = [0, 0, 1, 998, 65_530, 12_345_678, 4_000_000_000 - STEPS as u32];
    let advance = |turn: usize| {
        let clip = if turn.is_multiple_of(2) { Clip::global_norm(1.0) } else { Clip::per_tensor_norm(1.0) };
        let clip = clip.on_non_finite(policies[turn / 13 % 4]);
        let clip = scales[turn % 9].map_or(clip, |scale| clip.loss_scale(scale));
        Advance { optimizer: optimizers[turn % 13], clip, updates: updates[turn % 7], seed: turn as u64 }
    };
    (0..117).map(advance).collect()
}

impl Advance {
    pub(crate) async fn check(&self, gpu: &Gpu) -> Result<Findings, Failure> {
        let mut random = Random(40_000 + self.seed);
        let batches: Vec<usize> = (0..STEPS).map(|_| [0, 1, 0, 2, 0, 0][random.below(6)]).collect();
        let mut here = history(&self.clip, self.updates, 1.0)?;
        let staged = self.there(gpu, &here, &batches).await?;
        let mut moments = Moments::default();
        let mut findings = Findings::default();
        for (step, (staged, &batch)) in staged.iter().zip(&batches).enumerate() {
            self.here(batch, &mut here, &mut moments)?;
            findings.join(compare(step, &gpu.collect_async(staged).await?[0], &progress(&here)));
        }
        Ok(findings)
    }

    /// The tensors of a batch. Where parameters are does not matter here.
    fn tensors(batch: usize) -> Vec<Tensor> {
        let tensors = named(BATCHES[batch].map(|gradient| gradient.to_vec()));
        tensors.into_iter().map(|tensor| tensor.parameter(vec![1.0f32; 3])).collect()
    }

    /// A step on the CPU path.
    fn here(&self, batch: usize, history: &mut History, moments: &mut Moments) -> Result<(), Failure> {
        let mut tensors = Advance::tensors(batch);
        match &self.optimizer {
            None => drop(cpu::clip_with(&mut grads(&mut tensors), &self.clip, history)?),
            Some(optimizer) => {
                cpu::step(&mut steps(&mut tensors), &self.clip, *optimizer, history, moments)?;
            }
        }
        Ok(())
    }

    /// All steps on a device, in one submit, with the progress after each.
    async fn there(&self, gpu: &Gpu, begin: &History, batches: &[usize]) -> Result<Vec<Staged>, Failure> {
        let source = gpu.upload(bytemuck::cast_slice(&BATCHES));
        let placed = Placed::upload(gpu, &Advance::tensors(0), Placing::PACKED);
        let prepared = Prepared::new(gpu, &placed.grads, self).await?;
        prepared.pass().restore_history(&gpu.queue, begin)?;
        let step = |encoder: &mut wgpu::CommandEncoder, batch: usize| {
            encoder.copy_buffer_to_buffer(&source, batch as u64 * BATCH, &placed.buffers[0], 0, BATCH);
            prepared.record(encoder);
            gpu.stage(encoder, [prepared.pass().progress()])
        };
        Ok(gpu.submit(|encoder| batches.iter().map(|&batch| step(encoder, batch)).collect()))
    }
}

/// What records a step: with or without an optimiser.
enum Prepared {
    Clip(Box<Pass>),
    Step(Box<Stepper>),
}

impl Prepared {
    async fn new(gpu: &Gpu, grads: &[Grad], advance: &Advance) -> Result<Prepared, Failure> {
        Ok(match advance.optimizer {
            None => Prepared::Clip(gpu.clipper.prepare_async(grads, &advance.clip).await?.into()),
            Some(optimizer) => {
                Prepared::Step(gpu.clipper.prepare_step_async(grads, &advance.clip, optimizer).await?.into())
            }
        })
    }

    fn pass(&self) -> &Pass {
        match self {
            Prepared::Clip(pass) => pass,
            Prepared::Step(stepper) => stepper.pass(),
        }
    }

    fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        match self {
            Prepared::Clip(pass) => pass.record(encoder),
            Prepared::Step(stepper) => stepper.record_step(encoder),
        }
    }
}

impl fmt::Display for Advance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Advance { optimizer, clip, updates, .. } = self;
        write!(f, "{optimizer:?} after {updates} updates, {:?}, ", clip.loss_scale)?;
        write!(f, "{:?}, {:?}", clip.scope, clip.non_finite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rotation must not leave out what the lists promise.
    #[test]
    fn every_scale_meets_every_policy_and_optimizer() {
        let advances = advances();
        let count = |test: &dyn Fn(&Advance) -> bool| advances.iter().filter(|a| test(a)).count();
        let scales: Vec<_> = advances[..9].iter().map(|a| a.clip.loss_scale).collect();
        for scale in scales {
            assert_eq!(count(&|a| a.clip.loss_scale == scale), 13);
            for policy in [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize] {
                assert!(count(&|a| a.clip.loss_scale == scale && a.clip.non_finite == policy) > 0);
            }
        }
        assert!(advances.iter().all(|a| a.clip.validate().is_ok()));
    }
}
