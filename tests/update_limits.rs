//! Limits of an optimiser's update that follow from its whole tensor: long tensors, tensors cut over dispatches and placed anywhere, kernels
//! of hardware, tensors left out, what is not finite, and what a step that was not prepared to limit refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::stepping::{Here, There, parameters};
use common::{Distribution, Gpu, Placing, Tensor, bits, data, gpu, grads, named, steps};
use gradclip::cpu::{self, Moments};
use gradclip::{
    Adam, Clip, Clipper, ClipperOptions, History, Lars, NonFinite, Optimizer, OptimizerError, Sgd,
    TrustRatio, UpdateLimit,
};

/// A tensor of 137 chunks takes a workgroup to add up, others an invocation.
const SIZES: [usize; 4] = [2_230_001, 1, 16_385, 300];

fn optimizers() -> [Optimizer; 4] {
    [
        Adam::lamb(0.01).weight_decay(0.1).into(),
        Adam::adamw(0.01).weight_decay(0.1).limit(UpdateLimit::Rms(0.4)).into(),
        Adam::stable_adamw(0.01).into(),
        Lars::new(0.5).weight_decay(0.05).into(),
    ]
}

fn tensors(sizes: &[usize], seed: u64) -> Vec<Tensor> {
    let values = |seed: u64| -> Vec<Vec<f32>> {
        sizes.iter().zip(seed..).map(|(&n, seed)| data(Distribution::Uniform(1.0), n, seed)).collect()
    };
    let parameters = values(seed + 100);
    named(values(seed)).into_iter().zip(&parameters).map(|(tensor, p)| tensor.parameter(p)).collect()
}

/// One step of each optimiser in plain f64, from moments of 0.
fn in_f64(tensor: &Tensor, factor: f64, optimizer: &Optimizer) -> Vec<f64> {
    let parameter = tensor.parameter.as_ref().unwrap().floats();
    let pairs: Vec<(f64, f64)> = (tensor.data.floats().iter().zip(&parameter))
        .map(|(&g, &p)| (f64::from(g) * factor, f64::from(p)))
        .collect();
    let length =
        |of: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|&(g, p)| of(g, p).powi(2)).sum::<f64>().sqrt();
    let count = pairs.len() as f64;
    let (lr, decay) = (optimizer.lr(), optimizer.weight_decay());
    let moved = |by: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|&(g, p)| p - lr * by(g, p)).collect();
    match optimizer {
        Optimizer::Lars(lars) => {
            let u = |g: f64, p: f64| g + decay * p;
            let ratio = lars.trust.coefficient * length(&|_, p| p) / length(&u);
            moved(&|g, p| ratio * u(g, p))
        }
        Optimizer::Adam(adam) => {
            // In the first step both corrected moments are the gradient's.
            let u = |g: f64, _: f64| g / (g.abs() + adam.eps);
            let whole = |g: f64, p: f64| u(g, p) + decay * p;
            match adam.limit.unwrap() {
                UpdateLimit::Rms(most) => {
                    let ratio = (most * count.sqrt() / length(&u)).min(1.0);
                    moved(&|g, p| ratio * u(g, p) + decay * p)
                }
                UpdateLimit::Trust(_) => {
                    let ratio = length(&|_, p| p) / length(&whole);
                    moved(&|g, p| ratio * whole(g, p))
                }
                _ => {
                    let ratio = (count.sqrt() / length(&|g, _| g / g.abs().max(adam.eps))).min(1.0);
                    moved(&|g, p| ratio * whole(g, p))
                }
            }
        }
        other => panic!("{other:?}"),
    }
}

/// Of a few roundings in f32 of numbers about 1, and on devices of quotients and roots that are 2.5 ulp off, none is worth more than 2^-20 of
/// the step; a parameter below 1 adds half an ulp of its own.
fn assert_steps(got: &[Vec<f32>], tensors: &[Tensor], factor: f64, optimizer: &Optimizer, what: &str) {
    for (t, (got, tensor)) in got.iter().zip(tensors).enumerate() {
        let before = tensor.parameter.as_ref().unwrap().floats();
        for (i, (&got, want)) in got.iter().zip(in_f64(tensor, factor, optimizer)).enumerate() {
            let most = (want - f64::from(before[i])).abs() * 2f64.powi(-20) + 2f64.powi(-24);
            let off = (f64::from(got) - want).abs();
            assert!(
                off <= most,
                "{what}, {optimizer:?}, {i} of t{t}: {got} is not {want}: {off:e} of {most:e}"
            );
        }
    }
}

#[test]
fn long_tensors_beside_short_ones() {
    let gpu = gpu();
    let (tensors, clip) = (tensors(&SIZES, 1), Clip::global_norm(500.0));
    let report = cpu::clip(&mut grads(&mut tensors.clone()), &clip).unwrap();
    let factor = 500.0 / report.norm().unwrap();
    assert!(factor < 1.0);
    for optimizer in optimizers() {
        let mut here = Here::new(&tensors, &clip, optimizer);
        here.step();
        assert_steps(&here.parameters(), &tensors, factor, &optimizer, "CPU");
        let Some(gpu) = &gpu else { continue };
        // SwiftShader takes minutes for kernels of hardware.
        let forms = if gpu.compiles_slowly() { 1 } else { 2 };
        for (form, clipper) in gpu.forms().iter().take(forms).enumerate() {
            let there = There::with(gpu, clipper, gpu.place(&tensors, Placing::APART), &clip, optimizer);
            there.step();
            let what = format!("form {form} on {}", gpu.name);
            assert_steps(&there.parameters(), &tensors, factor, &optimizer, &what);
        }
    }
}

fn stepped(gpu: &Gpu, clipper: &Clipper, tensors: &[Tensor], optimizer: Optimizer) -> Vec<Vec<u32>> {
    let placed = gpu.place(tensors, Placing::APART);
    let there = There::with(gpu, clipper, placed, &Clip::global_norm(3.0), optimizer);
    (0..2).for_each(|_| there.step());
    bits(&there.parameters())
}

/// One binding holds two chunks here, so a tensor of five lies in several dispatches, and others between its chunks.
#[test]
fn tensors_cut_over_dispatches_have_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    let tensors = tensors(&[81_920, 7, 40_000, 16_384], 7);
    let narrow = gpu.other(|device| device.required_limits.max_storage_buffer_binding_size = 1 << 17);
    for optimizer in optimizers() {
        let want = stepped(&gpu, &gpu.clipper, &tensors, optimizer);
        assert!(stepped(&narrow, &narrow.clipper, &tensors, optimizer) == want, "{optimizer:?}");
        let one = narrow.clipper_with(ClipperOptions::default().max_slots(1));
        assert!(stepped(&narrow, &one, &tensors, optimizer) == want, "one slot, {optimizer:?}");
    }
}

/// A tensor that is left out steps as without the limit, and others as if they all were limited.
#[test]
fn tensors_may_be_left_out() {
    let gpu = gpu();
    let (tensors, clip) = (tensors(&[700, 300, 20], 3), Clip::measure());
    // A gradient that is larger than those before it is what StableAdamW limits.
    let larger = |t: &Tensor| t.data.floats().iter().map(|g| 8.0 * g).collect::<Vec<f32>>();
    let gradients: [Vec<Vec<f32>>; 2] =
        [tensors.iter().map(|t| t.data.floats()).collect(), tensors.iter().map(larger).collect()];
    let out = [1usize];
    let plain = |optimizer: Optimizer| match optimizer {
        Optimizer::Lars(lars) => {
            Sgd::new(lars.lr).momentum(lars.momentum).weight_decay(lars.weight_decay).into()
        }
        Optimizer::Adam(adam) => Optimizer::Adam({
            let mut adam = adam;
            adam.limit = None;
            adam
        }),
        other => other,
    };
    let of = |optimizer: Optimizer, out: &[usize]| {
        let mut own = tensors.clone();
        let (mut history, mut moments) = (History::default(), Moments::default());
        for gradients in &gradients {
            own.iter_mut().zip(gradients).for_each(|(tensor, g)| tensor.data = g.into());
            let all = steps(&mut own).into_iter().enumerate();
            let mut all: Vec<_> = all.map(|(i, step)| step.limits_update(!out.contains(&i))).collect();
            cpu::step(&mut all, &clip, optimizer, &mut history, &mut moments).unwrap();
        }
        bits(&parameters(&own))
    };
    for optimizer in optimizers() {
        let (some, all, none) = (of(optimizer, &out), of(optimizer, &[]), of(plain(optimizer), &[]));
        assert!(some[0] == all[0] && some[2] == all[2] && all[1] != none[1], "{optimizer:?}");
        // Their momentum has the learning rate in it, which is another rounding.
        if matches!(optimizer, Optimizer::Adam(_)) {
            assert_eq!(some[1], none[1], "{optimizer:?}");
        }
        let Some(gpu) = &gpu else { continue };
        let there = |optimizer: Optimizer, out: &[usize]| {
            let mut placed = gpu.place(&tensors, Placing::APART);
            for &i in out {
                placed.grads[i] = placed.grads[i].clone().limits_update(false);
            }
            let mut there = There::with(gpu, &gpu.clipper, placed, &clip, optimizer);
            for gradients in &gradients {
                there.put(gradients);
                there.step();
            }
            bits(&there.parameters())
        };
        let [some, all] = [&out[..], &[]].map(|out| there(optimizer, out));
        assert!(some[0] == all[0] && some[2] == all[2], "{optimizer:?} on {}", gpu.name);
        if matches!(optimizer, Optimizer::Adam(_)) {
            assert_eq!(some[1], there(plain(optimizer), &[])[1], "{optimizer:?} on {}", gpu.name);
        }
        let every = there(optimizer, &[0, 1, 2]);
        if matches!(optimizer, Optimizer::Adam(_)) {
            assert_eq!(every, there(plain(optimizer), &[]), "{optimizer:?} on {}", gpu.name);
        }
    }
}

/// A NaN makes its own tensor NaN, as PyTorch's norms would, and no other.
#[test]
fn a_tensor_that_is_not_finite_spoils_no_other() {
    let gpu = gpu();
    let clip = Clip::measure().on_non_finite(NonFinite::Sanitize);
    let mut parameters = [vec![1.0f32, 2.0, 3.0], vec![1.0, -1.0]];
    parameters[0][1] = f32::NAN;
    let gradients = [vec![0.5f32, 0.25, 1.0], vec![0.5f32, f32::INFINITY]];
    let tensors: Vec<Tensor> =
        named(gradients).into_iter().zip(&parameters).map(|(t, p)| t.parameter(p)).collect();
    for optimizer in [Adam::lamb(0.01).weight_decay(0.1).into(), Optimizer::from(Lars::new(0.5))] {
        let mut here = Here::new(&tensors, &clip, optimizer);
        here.step();
        let check = |after: &[Vec<f32>], what: &str| {
            assert!(after[0].iter().all(|p| p.is_nan()), "{optimizer:?} on {what}: {after:?}");
            assert!(after[1].iter().all(|p| p.is_finite()), "{optimizer:?} on {what}: {after:?}");
            assert!(after[1][0] < 1.0, "{optimizer:?} on {what}: {after:?}");
        };
        check(&here.parameters(), "CPU");
        let Some(gpu) = &gpu else { continue };
        let there = There::new(gpu, &tensors, &clip, optimizer);
        there.step();
        check(&there.parameters(), &gpu.name);
    }
}

/// A limit that was prepared can be taken off and changed; one that was not is refused.
#[test]
fn limits_change_where_they_were_prepared() {
    let gpu = gpu();
    let (tensors, clip) = (tensors(&[700, 20], 11), Clip::global_norm(3.0));
    let course = [
        Adam::lamb(0.01),
        Adam::lamb(0.01).limit(TrustRatio::default().most(0.5)),
        Adam::adamw(0.02).eps(1e-6).weight_decay(0.0),
        Adam::adamw(0.01).limit(UpdateLimit::Rms(0.2)),
    ];
    let mut here = Here::new(&tensors, &clip, course[0]);
    for adam in course {
        here.optimizer = adam.into();
        here.step();
    }
    let Some(gpu) = &gpu else { return };
    let there = There::new(gpu, &tensors, &clip, course[0]);
    for adam in course {
        there.stepper.set_optimizer(&gpu.queue, adam).unwrap();
        there.step();
    }
    for (got, want) in there.parameters().concat().iter().zip(here.parameters().concat()) {
        // Four steps of about 0.01, each off by 2^-18 of it at most.
        assert!((got - want).abs() <= 4.0 * 0.02 * 2f32.powi(-18) + 1e-7, "{got} {want} on {}", gpu.name);
    }
    let plain = There::new(gpu, &tensors, &clip, course[2]);
    let refused = plain.stepper.set_optimizer(&gpu.queue, course[0]);
    assert!(matches!(refused, Err(OptimizerError::Combination { .. })), "{refused:?}");
    assert_eq!(plain.stepper.optimizer(), course[2].into());
}

/// Which rows a gradient names is known when it is there: no factor of a whole tensor follows from some.
#[test]
fn rows_of_a_table_have_no_limit() {
    let (g, mut table) = ([1.0f32, 2.0], [1.0f32, 2.0, 3.0, 4.0]);
    let mut step = |limits: bool, optimizer: Optimizer| {
        let step = cpu::StepMut::new("table", &g[..], &mut table[..]).rows(&[1]).limits_update(limits);
        let (mut history, mut moments) = (History::default(), Moments::default());
        cpu::step(&mut [step], &Clip::measure(), optimizer, &mut history, &mut moments)
    };
    for optimizer in optimizers() {
        let refused = step(true, optimizer).unwrap_err().to_string();
        assert!(refused.contains("`table`") && refused.contains("limit"), "{refused}");
        step(false, optimizer).unwrap();
    }
}

#[test]
fn limits_that_are_none_are_refused() {
    let refused = |optimizer: Optimizer| optimizer.validate().unwrap_err().to_string();
    for most in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-60] {
        refused(Adam::new(0.1).limit(UpdateLimit::Rms(most)).into());
    }
    for most in [0.0, -1.0, f64::NAN] {
        refused(Adam::lamb(0.1).limit(TrustRatio::default().most(most)).into());
    }
    refused(Lars::new(0.1).trust(TrustRatio::default().coefficient(-1.0)).into());
    refused(Lars::new(0.1).trust(TrustRatio::default().eps(f64::INFINITY)).into());
    refused(Lars::new(0.1).momentum(-0.1).into());
    let both = refused(Adam::lamb(0.1).amsgrad(true).into());
    assert!(both.contains("AMSGrad"), "{both}");
}
