//! The step that uses clipped gradients: every optimiser against its formula in f64, GPU against CPU,
//! however things are placed, and what a step must leave alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::stepping::{Here, There};
use common::tolerance::{SCALED, TWICE_ROUNDED};
use common::{
    Data, Distribution, Element, Gpu, Placed, Tensor, assert_close, bits, budget, data, gpu, named, norm,
};
use gradclip::layout::Progress;
use gradclip::{
    Adam, Adopt, Clip, ClipperOptions, DType, Grad, Lars, Lion, NAdam, NonFinite, Optimizer, RAdam, Sgd,
    Spam, TrustRatio, UpdateLimit,
};
use gradclip_verify::oracle::near::{Machine, Near};
use gradclip_verify::oracle::optimizer::Step;

const SIZES: [usize; 5] = [1, 40_000, 257, 16_384, 3];

fn values(kind: Distribution, seed: u64) -> Vec<Vec<f32>> {
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
        Adam::new(0.01).betas(0.9, 0.5).amsgrad(true).into(),
        Adam::adamw(0.01).weight_decay(0.1).betas(0.8, 0.6).amsgrad(true).eps_hat(true).maximize(true).into(),
        Sgd::new(0.1).momentum(0.9).weight_decay(0.05).maximize(true).into(),
        NAdam::new(0.01).into(),
        NAdam::new(0.01).betas(0.8, 0.95).eps(1e-3).weight_decay(0.1).momentum_decay(0.2).into(),
        NAdam::new(0.01).decoupled(true).weight_decay(0.1).maximize(true).into(),
        RAdam::new(0.01).into(),
        RAdam::new(0.01).betas(0.8, 0.95).eps(1e-3).weight_decay(0.1).into(),
        RAdam::new(0.01).betas(0.9, 0.99).decoupled(true).weight_decay(0.1).maximize(true).into(),
        Lars::new(0.5).into(),
        Lars::new(0.5).momentum(0.5).nesterov(true).weight_decay(0.05).trust(TrustRatio::default()).into(),
        Lars::new(0.1).weight_decay(2.0).norms_apart(true).maximize(true).into(),
        Adam::lamb(0.01).into(),
        Adam::lamb(0.01).weight_decay(0.1).limit(TrustRatio::default().most(0.5).eps(1e-3)).into(),
        Adam::new(0.01).limit(UpdateLimit::Rms(0.5)).into(),
        Adam::adamw(0.01).weight_decay(0.1).limit(UpdateLimit::Rms(0.1)).maximize(true).into(),
        Adam::stable_adamw(0.01).into(),
        Adam::new(0.01).betas(0.8, 0.6).eps(0.1).weight_decay(0.05).limit(UpdateLimit::Rate).into(),
        Spam::new(0.01).into(),
        Spam::new(0.01).interval(3).warmup(2).delay(1).threshold(0.5).weight_decay(0.1).into(),
        Spam::new(0.01).betas(0.8, 0.5).interval(0).delay(2).threshold(2.0).maximize(true).into(),
        Adopt::new(0.01).into(),
        Adopt::new(0.01).betas(0.8, 0.95).eps(1e-3).weight_decay(0.1).clipping(false).into(),
        Adopt::new(0.01).betas(0.9, 0.5).decoupled(true).weight_decay(0.1).maximize(true).into(),
        Lion::new(0.01).into(),
        Lion::new(0.01).betas(0.95, 0.98).weight_decay(0.1).maximize(true).into(),
    ]
}

/// Whether an update has a factor that follows from its whole tensor.
fn has_ratio(optimizer: &Optimizer) -> bool {
    match optimizer {
        Optimizer::Lars(_) => true,
        Optimizer::Adam(adam) => adam.limit.is_some(),
        _ => false,
    }
}

/// Gradients and their parameters.
fn tensors(gradients: &[Vec<f32>], parameters: &[Vec<f32>]) -> Vec<Tensor> {
    named(gradients).into_iter().zip(parameters).map(|(tensor, p)| tensor.parameter(p)).collect()
}

/// Parameter and moments of each element; the last stands for those that there are not.
fn states(parameters: &[Vec<f32>], moments: &[Vec<Vec<f32>>]) -> Vec<[f64; 4]> {
    let of = |t: usize, i: usize| {
        let moment =
            |k: usize| moments.get(t).and_then(|m| m.get(k).or(m.last())).map_or(0.0, |m| f64::from(m[i]));
        [parameters[t][i].into(), moment(0), moment(1), moment(2)]
    };
    parameters
        .iter()
        .enumerate()
        .flat_map(|(t, p)| (0..p.len()).map(move |i| (t, i)))
        .map(|(t, i)| of(t, i))
        .collect()
}

/// Each step by itself: from the state before it, every element is where the formula has it.
fn assert_follows(step: &Step, gradients: &[Vec<f32>], [before, after]: [&[[f64; 4]]; 2], what: &str) {
    let factor = 10.0 / norm(gradients);
    assert!(factor < 1.0);
    let clipped = |g: f32| {
        let g = f64::from(g) * factor;
        Near::within(g, SCALED * g.abs())
    };
    let mut rest = before;
    let tensors: Vec<Step> = gradients
        .iter()
        .map(|own| {
            let from = rest.split_off(..own.len()).unwrap();
            step.limited(own.iter().map(|&g| clipped(g)).zip(from.iter().copied()))
        })
        .collect();
    let steps = gradients.iter().zip(&tensors).flat_map(|(own, step)| own.iter().map(move |g| (step, g)));
    for (i, ((step, &g), (from, got))) in steps.zip(before.iter().zip(after)).enumerate() {
        let near = step.of(clipped(g), *from);
        for (role, (near, &got)) in near.iter().zip(got).enumerate() {
            let (off, most) = (near.off(got), near.most());
            assert!(
                off <= most,
                "{what}, role {role} of {i}: {got} is not {}: {off} of {most} ulp",
                near.value
            );
        }
    }
}

#[test]
fn every_optimizer_follows_its_formula_on_cpu_and_gpu() {
    let gpu = gpu();
    let (clip, parameters) = (Clip::global_norm(10.0), values(Distribution::Uniform(1.0), 1));
    for optimizer in optimizers() {
        let tensors = tensors(&parameters, &parameters);
        let mut here = Here::new(&tensors, &clip, optimizer);
        let mut there = gpu.as_ref().map(|gpu| There::new(gpu, &tensors, &clip, optimizer));
        let begin = states(&parameters, &[]);
        let mut before = [begin.clone(), begin];
        // RAdam rectifies none before the sixth.
        let rectified = if matches!(optimizer, Optimizer::RAdam(_)) { 3 } else { 0 };
        let steps = budget::TRAINING_STEPS as u32 + rectified;
        for t in 1..=steps {
            let gradients = values(Distribution::Uniform(1.0), 99 + u64::from(t));
            let step = |machine| Step::new(machine, optimizer, t, 1.0, optimizer.weight_decay());
            let what = |who: &str| format!("{who}, {optimizer:?}, step {t}");
            here.put(&gradients);
            assert!(here.step().clipped());
            let after = states(&here.parameters(), &here.moments.tensors);
            assert_follows(&step(Machine::CPU), &gradients, [&before[0], &after], &what("CPU"));
            before[0] = after;
            let (Some(gpu), Some(there)) = (&gpu, &mut there) else { continue };
            there.put(&gradients);
            there.step();
            let after = states(&there.parameters(), &there.moments());
            assert_follows(&step(Machine::DEVICE), &gradients, [&before[1], &after], &what(&gpu.name));
            before[1] = after;
        }
        assert_eq!(here.history.updates(), u64::from(steps));
    }
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
    let buffer = gpu.upload(bytemuck::cast_slice(&words));
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
    let (gradients, parameters) =
        (values(Distribution::Uniform(1.0), 5), values(Distribution::Uniform(1.0), 50));
    let (clip, adam) = (Clip::global_norm(3.0), Adam::adamw(0.01));
    let there = There::new(&gpu, &tensors(&gradients, &parameters), &clip, adam);
    (0..3).for_each(|_| there.step());
    // Of each tensor the parameter and both moments.
    let want = there.parameters().into_iter().zip(there.moments()).flat_map(|(p, m)| [vec![p], m].concat());
    let want: Vec<Vec<u32>> = bits(&want.collect::<Vec<_>>());

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
        for clipper in [&gpu.clipper, &gpu.clipper_with(ClipperOptions::default().max_slots(1))] {
            let before = gpu.read::<u32>(grads[0].buffer());
            let stepper = clipper.prepare_step(&grads, &clip, adam).unwrap();
            (0..3).for_each(|_| gpu.submit(|encoder| stepper.record_step(encoder)));
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
    let (wide, parameter) =
        (data(Distribution::Uniform(1.0), 20_001, 3), data(Distribution::Uniform(1.0), 20_001, 4));
    let clip = Clip::global_norm(0.5);
    for element in [Element::F16, Element::Bf16] {
        let tensor = [Tensor::new("t", Data::rounded(element, &wide)).parameter(&parameter)];
        let gradient = tensor[0].data.floats();
        let factor = 0.5 / norm(std::slice::from_ref(&gradient));
        let mut here = Here::new(&tensor, &clip, Sgd::new(1.0));
        here.step();
        let own = here.parameters().remove(0);
        for (i, ((g, p), own)) in gradient.iter().zip(&parameter).zip(&own).enumerate() {
            // One rounding of the product and one of the difference.
            let moved = f64::from(*g) * factor;
            let want = f64::from(*p) - moved;
            let bound = (moved.abs() * 2.0 + want.abs()) * TWICE_ROUNDED;
            assert!((f64::from(*own) - want).abs() <= bound, "{element:?} {i}");
        }
        let Some(gpu) = &gpu else { continue };
        let there = There::with(gpu, &gpu.clipper, Placed::at(gpu, &tensor, &[(0, 2)]), &clip, Sgd::new(1.0));
        there.step();
        let what = format!("{element:?} on {}", gpu.name);
        assert_close(there.parameters().remove(0), own, TWICE_ROUNDED, 1e-9, &what);
    }
}

/// What is not clipped moves as if nothing could be; a learning rate of 0 moves nothing, of any size.
#[test]
fn coefficient_one_and_learning_rate_zero() {
    let gpu = gpu();
    for optimizer in optimizers() {
        for kind in [Distribution::Uniform(1.0), Distribution::Bits, Distribution::Subnormal] {
            let (gradients, parameters) = (values(Distribution::Uniform(1.0), 7), values(kind, 8));
            let tensors = tensors(&gradients, &parameters);
            // Of each arm parameters and moments after two steps.
            let run = |clip: &Clip, optimizer: Optimizer| {
                let mut here = Here::new(&tensors, clip, optimizer);
                (0..2).for_each(|_| drop(here.step()));
                let there = gpu.as_ref().map(|gpu| There::new(gpu, &tensors, clip, optimizer));
                let there = there.map(|there| {
                    (0..2).for_each(|_| there.step());
                    (bits(&there.parameters()), bits(&there.moments().concat()))
                });
                let moments = bits(&here.moments.tensors.concat());
                [Some((bits(&here.parameters()), moments)), there]
            };
            let above = run(&Clip::global_norm(norm(&gradients) as f32 * 1.01), optimizer);
            assert!(above == run(&Clip::measure(), optimizer), "{optimizer:?} {kind:?}");
            let overflows = kind == Distribution::Bits && optimizer.weight_decay() > 0.0;
            for (after, _) in run(&Clip::global_norm(1.0), optimizer.with_lr(0.0)).into_iter().flatten() {
                assert!(overflows || after == bits(&parameters), "{optimizer:?} {kind:?}");
            }
        }
    }
}

/// One NaN anywhere: no parameter, no moment, no count. The next step is what it would have been.
#[test]
fn a_skipped_step_never_was() {
    let gpu = gpu();
    let good = values(Distribution::Uniform(1.0), 11);
    let mut bad = good.clone();
    bad[1][39_999] = f32::NAN;
    let tensors = tensors(&good, &values(Distribution::Uniform(1.0), 12));
    for clip in [Clip::global_norm(2.0), Clip::per_tensor_norm(2.0)] {
        for optimizer in [Optimizer::from(Sgd::new(0.1).momentum(0.9).dampening(0.5)), Adam::new(0.1).into()]
        {
            let mut runs = Vec::new();
            for sequence in [&[&good, &good][..], &[&bad, &good, &bad, &good, &bad]] {
                let mut here = Here::new(&tensors, &clip, optimizer);
                let mut there = gpu.as_ref().map(|gpu| There::new(gpu, &tensors, &clip, optimizer));
                let mut skipped = 0;
                for gradients in sequence {
                    here.put(gradients);
                    skipped = here.step().skipped_steps;
                    if let Some(there) = &mut there {
                        there.put(gradients);
                        there.step();
                    }
                }
                assert_eq!((here.history.updates(), skipped), (2, sequence.len() as u64 - 2));
                let there = there.zip(gpu.as_ref()).map(|(there, gpu)| {
                    assert_eq!(gpu.read::<Progress>(there.stepper.pass().progress())[0].updates, 2);
                    (bits(&there.parameters()), there.moments())
                });
                runs.push((bits(&here.parameters()), here.moments, there));
            }
            assert!(runs[0] == runs[1], "{clip:?} {optimizer:?}");
        }
    }
}

/// The other policies leave something to step with.
#[test]
fn non_finite_gradients_under_every_policy() {
    let gpu = gpu();
    let gradients = [vec![3.0f32, f32::INFINITY], vec![4.0f32]];
    let tensors = tensors(&gradients, &[vec![1.0f32, 1.0], vec![1.0f32]]);
    for (policy, want) in [
        (NonFinite::Skip, [1.0f32, 1.0, 1.0]),
        (NonFinite::Zero, [1.0, 1.0, 1.0]),
        (NonFinite::Sanitize, [0.4, 1.0, 0.2]),
        (NonFinite::Nan, [f32::NAN; 3]),
    ] {
        let clip = Clip::global_norm(1.0).on_non_finite(policy);
        let mut here = Here::new(&tensors, &clip, Sgd::new(1.0));
        here.step();
        assert_close(here.parameters().concat(), want, 0.0, TWICE_ROUNDED, &format!("{policy:?}"));
        let Some(gpu) = &gpu else { continue };
        let there = There::new(gpu, &tensors, &clip, Sgd::new(1.0));
        there.step();
        let what = format!("{policy:?} on {}", gpu.name);
        assert_close(there.parameters().concat(), want, 0.0, TWICE_ROUNDED, &what);
    }
}

/// Zeros keep their sign, what is not finite stays what it is: on the CPU path and on the device alike.
#[test]
fn zeros_and_what_is_not_finite_move_alike() {
    let gpu = gpu();
    let gradients = [0.0f32, -0.0, 1.0, -1.0];
    let parameters = [-0.0f32, 0.0, 1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let pairs = gradients.iter().flat_map(|&g| parameters.map(|p| (g, p)));
    let (g, p): (Vec<f32>, Vec<f32>) = pairs.unzip();
    let class = |x: f32| (x.is_nan(), x.is_infinite(), x == 0.0, x.is_sign_negative() && !x.is_nan());
    for optimizer in optimizers() {
        let tensors = tensors(std::slice::from_ref(&g), std::slice::from_ref(&p));
        let mut here = Here::new(&tensors, &Clip::measure(), optimizer);
        here.step();
        let after = here.parameters().concat();
        for ((g, before), after) in g.iter().zip(&p).zip(&after) {
            // Without a decay nothing moves where nothing pulls, but for a factor that one NaN makes NaN.
            if *g == 0.0 && optimizer.weight_decay() == 0.0 && !before.is_nan() && !has_ratio(&optimizer) {
                assert_eq!(after.to_bits(), before.to_bits(), "{optimizer:?}: {before} by {g}");
            }
        }
        let Some(gpu) = &gpu else { continue };
        let there = There::new(gpu, &tensors, &Clip::measure(), optimizer);
        there.step();
        let classes = |values: &[f32]| values.iter().copied().map(class).collect::<Vec<_>>();
        let there = there.parameters().concat();
        assert_eq!(classes(&there), classes(&after), "{optimizer:?}: {there:?} {after:?}");
    }
}
