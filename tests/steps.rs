//! The step that uses clipped gradients: every optimiser against its formula in f64, GPU against CPU,
//! however things are placed, and what a step must leave alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Gpu, Kind, data, gpu};
use gradclip::cpu::{self, Moments, StepMut};
use gradclip::layout::Progress;
use gradclip::{
    Adam, Clip, ClipError, DType, Grad, Group, History, LossScale, NonFinite, Optimizer, OptimizerError,
    PlanError, PrepareError, Report, Rule, Sgd, Stepper, Units, wgpu,
};
use half::{bf16, f16};

const SIZES: [usize; 5] = [1, 40_000, 257, 16_384, 3];
const STEPS: usize = 4;

fn tensors(kind: Kind, seed: u64) -> Vec<Vec<f32>> {
    SIZES.iter().zip(seed..).map(|(&n, seed)| data(kind, n, seed)).collect()
}

/// Every optimiser, with every constant that it has.
fn optimizers() -> Vec<Optimizer> {
    vec![
        Sgd::new(0.1).into(),
        Sgd::new(0.1).weight_decay(0.05).into(),
        Sgd::new(0.1).momentum(0.9).into(),
        Sgd::new(0.1).momentum(0.8).dampening(0.3).weight_decay(0.01).into(),
        Sgd::new(0.1).momentum(0.9).nesterov(true).weight_decay(0.01).into(),
        Adam::new(0.01).into(),
        Adam::new(0.01).betas(0.8, 0.95).eps(1e-3).weight_decay(0.1).into(),
        Adam::decoupled(0.01).weight_decay(0.1).into(),
        Adam::new(0.01).eps(1e-4).eps_hat(true).into(),
        Adam::new(0.01).betas(0.0, 0.0).into(),
    ]
}

/// The definition in f64, element by element: what the documentation of torch.optim and of Keras says.
struct Oracle {
    optimizer: Optimizer,
    moments: [f64; 2],
    step: i32,
    /// Momentum or first moment with every term's magnitude: what roundings are relative to.
    magnitude: f64,
    /// What the last step may be off by.
    bound: f64,
}

/// Roundings of one step's terms, a dozen at most, of state that is rounded once a step, and 2.5 ulp each
/// for an adapter's division and root.
const ROUNDINGS: f64 = 24.0 * f32::EPSILON as f64;

impl Oracle {
    fn new(optimizer: Optimizer) -> Oracle {
        Oracle { optimizer, moments: [0.0; 2], step: 0, magnitude: 0.0, bound: 0.0 }
    }

    fn step(&mut self, p: f64, g: f64) -> f64 {
        self.step += 1;
        let [m, v] = &mut self.moments;
        let size = g.abs() + self.optimizer.weight_decay() * p.abs();
        let before = p;
        let moved = match self.optimizer {
            Optimizer::Sgd(s) => {
                self.magnitude = size + s.momentum * self.magnitude;
                s.lr * self.magnitude
            }
            Optimizer::Adam(a) => {
                self.magnitude = a.betas.0 * self.magnitude + (1.0 - a.betas.0) * size;
                0.0
            }
            _ => unreachable!(),
        };
        self.bound = f64::from(f32::EPSILON) * (p.abs() + moved) + ROUNDINGS * moved + 1e-12;
        let after = match self.optimizer {
            Optimizer::Sgd(s) => {
                let mut g = g + s.weight_decay * p;
                if s.momentum != 0.0 {
                    *m = if self.step == 1 { g } else { s.momentum * *m + (1.0 - s.dampening) * g };
                    g = if s.nesterov { g + s.momentum * *m } else { *m };
                }
                p - s.lr * g
            }
            Optimizer::Adam(a) => {
                let (b1, b2) = a.betas;
                let mut p = p;
                let mut g = g;
                if a.decoupled {
                    p -= a.lr * a.weight_decay * p;
                } else {
                    g += a.weight_decay * p;
                }
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * g * g;
                let (c1, c2) = (1.0 - b1.powi(self.step), 1.0 - b2.powi(self.step));
                let eps = if a.eps_hat { a.eps / c2.sqrt() } else { a.eps };
                let size = (*v / c2).sqrt() + eps;
                let moved = a.lr * (self.magnitude / c1 / size.max(1e-30) + a.weight_decay * p.abs());
                self.bound += (f64::from(f32::EPSILON) + ROUNDINGS) * moved;
                if *m == 0.0 && size == 0.0 { p } else { p - a.lr * (*m / c1) / size }
            }
            _ => unreachable!(),
        };
        self.bound += f64::from(f32::EPSILON) * (after - before).abs();
        after
    }
}

fn on_cpu(
    parameters: &mut [Vec<f32>],
    gradients: &[Vec<f32>],
    clip: &Clip,
    optimizer: &Optimizer,
    history: &mut History,
    moments: &mut Moments,
) -> Report {
    let mut steps: Vec<StepMut<'_>> =
        parameters.iter_mut().zip(gradients).map(|(p, g)| StepMut::new("t", &g[..], p)).collect();
    cpu::step(&mut steps, clip, optimizer, history, moments).unwrap()
}

/// Clips and steps on the device, without a wait in between.
fn record(gpu: &Gpu, stepper: &Stepper) {
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    stepper.record_step(&mut encoder);
    gpu.queue.submit([encoder.finish()]);
}

fn with_parameters(grads: Vec<Grad>, parameters: &[Grad]) -> Vec<Grad> {
    grads.into_iter().zip(parameters).map(|(g, p)| g.parameter(p.buffer(), 0, DType::F32)).collect()
}

#[test]
fn every_optimizer_follows_its_formula_on_cpu_and_gpu() {
    let gpu = gpu();
    for optimizer in optimizers() {
        let mut on_host = tensors(Kind::Uniform(1.0), 1);
        let there = gpu.as_ref().map(|gpu| {
            let (grads, parameters) = (gpu.separate(&on_host), gpu.separate(&on_host));
            let grads = with_parameters(grads, &parameters);
            let clip = Clip::global_norm(10.0);
            (gpu.clipper.prepare_step(&grads, &clip, optimizer).unwrap(), grads, parameters)
        });
        let mut oracles: Vec<Vec<Oracle>> =
            on_host.iter().map(|t| t.iter().map(|_| Oracle::new(optimizer)).collect()).collect();
        let (mut history, mut moments) = (History::default(), Moments::default());
        let mut wanted: Vec<Vec<f64>> =
            on_host.iter().map(|t| t.iter().map(|&p| f64::from(p)).collect()).collect();
        for step in 0..STEPS {
            let gradients = tensors(Kind::Uniform(1.0), 100 + step as u64);
            let norm = common::norm(&gradients);
            assert!(norm > 10.0);
            for (t, g) in gradients.iter().enumerate() {
                for (i, &g) in g.iter().enumerate() {
                    wanted[t][i] = oracles[t][i].step(wanted[t][i], f64::from(g) * 10.0 / norm);
                }
            }
            let report = on_cpu(
                &mut on_host,
                &gradients,
                &Clip::global_norm(10.0),
                &optimizer,
                &mut history,
                &mut moments,
            );
            assert!(report.clipped());
            let compare = |got: &[Vec<f32>], what: &str| {
                for t in 0..got.len() {
                    for i in 0..got[t].len() {
                        let (got, want, bound) = (got[t][i], wanted[t][i], oracles[t][i].bound);
                        let off = (f64::from(got) - want).abs();
                        let what = format!("{what}, {optimizer:?}, step {step}, t{t}[{i}]");
                        assert!(off <= bound, "{what}: {got} is not {want}, off by {off:e} of {bound:e}");
                    }
                }
            };
            compare(&on_host, "CPU");
            if let (Some(gpu), Some((stepper, grads, parameters))) = (&gpu, &there) {
                for (grad, g) in grads.iter().zip(&gradients) {
                    gpu.queue.write_buffer(grad.buffer(), 0, bytemuck::cast_slice(g));
                }
                record(gpu, stepper);
                compare(&common::contents(gpu, parameters, &gradients), &gpu.name);
                assert!(common::bits(&common::contents(gpu, grads, &gradients)) == common::bits(&gradients));
            }
            // Earlier roundings of a parameter are not this step's.
            for (w, h) in wanted.iter_mut().flatten().zip(on_host.iter().flatten()) {
                *w = f64::from(*h);
            }
        }
        assert_eq!(history.updates(), STEPS as u64);
    }
}
