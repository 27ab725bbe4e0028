//! The step that uses clipped gradients: every optimiser against its formula in f64, GPU against CPU,
//! however things are placed, and what a step must leave alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Gpu, Kind, data, gpu};
use gradclip::cpu::{self, Moments, StepMut};
use gradclip::layout::Progress;
use gradclip::{Adam, Clip, DType, Grad, History, NonFinite, Optimizer, Report, Sgd, Stepper, wgpu};
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
        Adam::adamw(0.01).weight_decay(0.1).into(),
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

/// Parameters and state of every tensor after some steps on the device.
fn after_steps(gpu: &Gpu, stepper: &Stepper, parameters: &[Grad], steps: usize) -> Vec<Vec<u32>> {
    (0..steps).for_each(|_| record(gpu, stepper));
    let words = |buffer: &wgpu::Buffer, offset: u64, n: u64| {
        let all = gpu.read::<u32>(buffer);
        all[offset as usize / 4..(offset / 4 + n) as usize].to_vec()
    };
    let moments = stepper.moments().iter().flatten();
    parameters
        .iter()
        .map(|p| words(p.buffer(), 0, p.elements()))
        .chain(moments.map(|m| words(&m.buffer, m.offset, m.elements)))
        .collect()
}

/// In one buffer: the words of each tensor of each role, in the order and with the gaps given.
fn arena(
    gpu: &Gpu,
    roles: &[Vec<Vec<f32>>; 4],
    place: impl Fn(usize, usize) -> usize,
    size: usize,
) -> Vec<Grad> {
    let mut words = vec![f32::NAN; size];
    for (role, tensors) in roles.iter().enumerate() {
        for (t, values) in tensors.iter().enumerate() {
            words[place(role, t)..place(role, t) + values.len()].copy_from_slice(values);
        }
    }
    let buffer = gpu.buffer(bytemuck::cast_slice(&words));
    let at = |role, t| place(role, t) as u64 * 4;
    (0..roles[0].len())
        .map(|t| {
            Grad::range(format!("t{t}"), &buffer, at(0, t), roles[0][t].len() as u64)
                .parameter(&buffer, at(1, t), DType::F32)
                .moment(&buffer, at(2, t))
                .moment(&buffer, at(3, t))
        })
        .collect()
}

#[test]
fn the_same_bits_however_things_are_placed() {
    let Some(gpu) = gpu() else { return };
    let (gradients, parameters) = (tensors(Kind::Uniform(1.0), 5), tensors(Kind::Uniform(1.0), 50));
    let (clip, adam) = (Clip::global_norm(3.0), Adam::adamw(0.01));
    let there = gpu.separate(&parameters);
    let grads = with_parameters(gpu.separate(&gradients), &there);
    let stepper = gpu.clipper.prepare_step(&grads, &clip, adam).unwrap();
    let want = after_steps(&gpu, &stepper, &there, 3);
    let want: Vec<Vec<u32>> = (0..SIZES.len())
        .flat_map(|t| {
            [want[t].clone(), want[SIZES.len() + 2 * t].clone(), want[SIZES.len() + 2 * t + 1].clone()]
        })
        .collect();

    let zeros: Vec<Vec<f32>> = SIZES.iter().map(|&n| vec![0.0; n]).collect();
    let roles = [gradients, parameters, zeros.clone(), zeros];
    let starts: Vec<usize> = SIZES.iter().scan(0, |sum, n| Some(std::mem::replace(sum, *sum + n))).collect();
    let total: usize = SIZES.iter().sum();
    let aligned = |n: usize| n.next_multiple_of(64);
    let aligned_starts: Vec<usize> =
        SIZES.iter().scan(0, |sum, n| Some(std::mem::replace(sum, *sum + 4 * aligned(*n)))).collect();
    type Place<'a> = (&'a str, Box<dyn Fn(usize, usize) -> usize + 'a>);
    let places: [Place<'_>; 4] = [
        ("blocks", Box::new(|role, t| role * total + starts[t])),
        ("side by side, odd", Box::new(|role, t| 3 + 4 * starts[t] + role * SIZES[t])),
        ("side by side, aligned", Box::new(|role, t| aligned_starts[t] + role * aligned(SIZES[t]))),
        ("backwards", Box::new(|role, t| (3 - role) * total + total - starts[t] - SIZES[t])),
    ];
    for (what, place) in &places {
        let grads = arena(&gpu, &roles, place, 4 * total + 4 * 64 * SIZES.len() + 8);
        // Slots of a window each, and of all four.
        for clipper in [&gpu.clipper, &gpu.clipper_with(gradclip::ClipperOptions::default().max_slots(1))] {
            let before = gpu.read::<u32>(grads[0].buffer());
            let stepper = clipper.prepare_step(&grads, &clip, adam).unwrap();
            (0..3).for_each(|_| record(&gpu, &stepper));
            let words = gpu.read::<u32>(grads[0].buffer());
            let mut touched = vec![false; words.len()];
            for t in 0..SIZES.len() {
                for role in 1..4 {
                    let range = place(role, t)..place(role, t) + SIZES[t];
                    assert!(words[range.clone()] == want[3 * t + role - 1], "{what}: role {role} of t{t}");
                    touched[range].fill(true);
                }
            }
            let left = (0..words.len()).filter(|&i| !touched[i]);
            assert!(left.into_iter().all(|i| words[i] == before[i]), "{what}: wrote beside the tensors");
            gpu.queue.write_buffer(grads[0].buffer(), 0, bytemuck::cast_slice(&before));
        }
    }
}

/// Gradients in the middle of words, of every type, are read and not written.
#[test]
fn short_types_are_not_rounded_in_between() {
    let gpu = gpu();
    let n = 20_001;
    let wide = data(Kind::Uniform(1.0), n, 3);
    let parameters = vec![data(Kind::Uniform(1.0), n, 4)];
    let (clip, sgd) = (Clip::global_norm(0.5), Optimizer::from(Sgd::new(1.0)));
    let short: [(DType, Vec<u8>, Vec<f32>); 2] = [
        {
            let g: Vec<f16> = wide.iter().map(|&x| f16::from_f32(x)).collect();
            (DType::F16, bytemuck::cast_slice(&g).to_vec(), g.iter().map(|x| x.to_f32()).collect())
        },
        {
            let g: Vec<bf16> = wide.iter().map(|&x| bf16::from_f32(x)).collect();
            (DType::Bf16, bytemuck::cast_slice(&g).to_vec(), g.iter().map(|x| x.to_f32()).collect())
        },
    ];
    for (dtype, bytes, values) in short {
        let norm = common::norm(std::slice::from_ref(&values));
        let mut on_host = parameters.clone();
        let (f16s, bf16s): (&[f16], &[bf16]) = (bytemuck::cast_slice(&bytes), bytemuck::cast_slice(&bytes));
        let step = match dtype {
            DType::F16 => StepMut::new("t", f16s, &mut on_host[0]),
            _ => StepMut::new("t", bf16s, &mut on_host[0]),
        };
        cpu::step(&mut [step], &clip, &sgd, &mut History::default(), &mut Moments::default()).unwrap();
        for i in 0..n {
            // One rounding of the product and one of the difference.
            let moved = f64::from(values[i]) * 0.5 / norm;
            let want = f64::from(parameters[0][i]) - moved;
            let bound = (moved.abs() * 2.0 + want.abs()) * f64::from(f32::EPSILON);
            assert!((f64::from(on_host[0][i]) - want).abs() <= bound, "{dtype} {i}");
        }
        let Some(gpu) = &gpu else { continue };
        let grads = gpu.placed(2 * n + 6, &[(2, bytes.clone(), dtype)]);
        let before = gpu.read::<u8>(grads[0].buffer());
        let there = gpu.separate(&parameters);
        let grads = with_parameters(grads, &there);
        record(gpu, &gpu.clipper.prepare_step(&grads, &clip, sgd).unwrap());
        let got = common::contents(gpu, &there, &parameters);
        for i in 0..n {
            let bound = on_host[0][i].abs() * f32::EPSILON + 1e-9;
            assert!((got[0][i] - on_host[0][i]).abs() <= bound, "{dtype} {i} on {}", gpu.name);
        }
        assert!(gpu.read::<u8>(grads[0].buffer()) == before);
    }
}

/// What is not clipped moves as if nothing could be; a learning rate of 0 moves nothing, of any size.
#[test]
fn coefficient_one_and_learning_rate_zero() {
    let gpu = gpu();
    for optimizer in optimizers() {
        for kind in [Kind::Uniform(1.0), Kind::Bits, Kind::Subnormal] {
            let gradients = tensors(Kind::Uniform(1.0), 7);
            let parameters = tensors(kind, 8);
            let run = |clip: &Clip, optimizer: &Optimizer| {
                let mut on_host = parameters.clone();
                let (mut history, mut moments) = (History::default(), Moments::default());
                for _ in 0..2 {
                    on_cpu(&mut on_host, &gradients, clip, optimizer, &mut history, &mut moments);
                }
                let there = gpu.as_ref().map(|gpu| {
                    let there = gpu.separate(&parameters);
                    let grads = with_parameters(gpu.separate(&gradients), &there);
                    let stepper = gpu.clipper.prepare_step(&grads, clip, *optimizer).unwrap();
                    after_steps(gpu, &stepper, &there, 2)
                });
                (common::bits(&on_host), there)
            };
            let norm = common::norm(&gradients) as f32;
            let above = run(&Clip::global_norm(norm * 1.01), &optimizer);
            assert!(above == run(&Clip::measure(), &optimizer), "{optimizer:?} {kind:?}");
            let (on_host, there) = run(&Clip::global_norm(1.0), &optimizer.with_lr(0.0));
            let overflows = kind == Kind::Bits && optimizer.weight_decay() > 0.0;
            if !overflows {
                assert!(on_host == common::bits(&parameters), "{optimizer:?} {kind:?}");
                let same = there.is_none_or(|t| t[..SIZES.len()] == common::bits(&parameters));
                assert!(same, "{optimizer:?} {kind:?}");
            }
        }
    }
}

/// One NaN anywhere: no parameter, no moment, no count. The next step is what it would have been.
#[test]
fn a_skipped_step_never_was() {
    let gpu = gpu();
    let good = tensors(Kind::Uniform(1.0), 11);
    let mut bad = good.clone();
    bad[1][39_999] = f32::NAN;
    let parameters = tensors(Kind::Uniform(1.0), 12);
    for clip in [Clip::global_norm(2.0), Clip::per_tensor_norm(2.0)] {
        for optimizer in [Optimizer::from(Sgd::new(0.1).momentum(0.9).dampening(0.5)), Adam::new(0.1).into()]
        {
            let mut runs = Vec::new();
            for sequence in [&[&good, &good][..], &[&bad, &good, &bad, &good, &bad]] {
                let mut on_host = parameters.clone();
                let (mut history, mut moments) = (History::default(), Moments::default());
                let mut skipped = 0;
                for gradients in sequence {
                    let report =
                        on_cpu(&mut on_host, gradients, &clip, &optimizer, &mut history, &mut moments);
                    skipped = report.skipped_steps;
                }
                assert_eq!((history.updates(), skipped), (2, sequence.len() as u64 - 2));
                let there = gpu.as_ref().map(|gpu| {
                    let there = gpu.separate(&parameters);
                    let grads = with_parameters(gpu.separate(&good), &there);
                    let stepper = gpu.clipper.prepare_step(&grads, &clip, optimizer).unwrap();
                    for gradients in sequence {
                        for (grad, g) in grads.iter().zip(*gradients) {
                            gpu.queue.write_buffer(grad.buffer(), 0, bytemuck::cast_slice(g));
                        }
                        record(gpu, &stepper);
                    }
                    let progress: Progress = gpu.read(stepper.pass().progress())[0];
                    assert_eq!(progress.updates, 2);
                    after_steps(gpu, &stepper, &there, 0)
                });
                runs.push((common::bits(&on_host), moments, there));
            }
            assert!(runs[0] == runs[1], "{clip:?} {optimizer:?}");
        }
    }
}

/// The other policies leave something to step with.
#[test]
fn non_finite_gradients_under_every_policy() {
    let gpu = gpu();
    let gradients = vec![vec![3.0f32, f32::INFINITY], vec![4.0f32]];
    let parameters = vec![vec![1.0f32, 1.0], vec![1.0f32]];
    let sgd = Optimizer::from(Sgd::new(1.0));
    let cases = [
        (NonFinite::Skip, [1.0f32, 1.0, 1.0]),
        (NonFinite::Zero, [1.0, 1.0, 1.0]),
        (NonFinite::Sanitize, [0.4, 1.0, 0.2]),
        (NonFinite::Nan, [f32::NAN; 3]),
    ];
    for (policy, want) in cases {
        let clip = Clip::global_norm(1.0).on_non_finite(policy);
        let mut on_host = parameters.clone();
        on_cpu(&mut on_host, &gradients, &clip, &sgd, &mut History::default(), &mut Moments::default());
        let same = |got: &[Vec<f32>]| {
            let close = |(g, w): (&f32, &f32)| (g.is_nan() && w.is_nan()) || (g - w).abs() <= 2e-7;
            got.iter().flatten().zip(&want).all(close)
        };
        assert!(same(&on_host), "{policy:?}: {on_host:?}");
        let Some(gpu) = &gpu else { continue };
        let there = gpu.separate(&parameters);
        let grads = with_parameters(gpu.separate(&gradients), &there);
        record(gpu, &gpu.clipper.prepare_step(&grads, &clip, sgd).unwrap());
        let got = common::contents(gpu, &there, &parameters);
        assert!(same(&got), "{policy:?} on {}: {got:?}", gpu.name);
    }
}
