//! Steps under every scope and rule: from parameters of 0, gradient descent with a rate of 1 goes to
//! exactly minus the clipped gradient. And what a stepper can be told, refuses, and hands on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::files;
use common::stepping::{Here, There};
use common::tolerance::{FUSED, HALF_ULP, NORM_AFTER};
use common::{Distribution, Named, Placing, Tensor, assert_close, data, floats, gpu, norm, shaped, traced};
use gradclip::cpu::{self, Moments, StepMut};
use gradclip::{
    Adam, Clip, ClipError, DType, Grad, History, Lion, Optimizer, OptimizerError, PlanError, PrepareError,
    Rule, Scope, Sgd, StepError, Units, wgpu,
};

/// With parameters; in groups where a scope shares no norm among them, and one that is left out.
fn tensors(scope: Scope, parameter: impl Fn(usize, usize) -> Vec<f32>) -> Vec<Tensor> {
    let shapes: [&[u64]; 5] = [&[40, 3, 5, 5], &[40, 700], &[40], &[40, 1, 33], &[40, 300]];
    // Where all tensors share one norm, groups may have no threshold of their own.
    let a = Some(Named::new("a", 0.5)).filter(|_| !matches!(scope, Scope::Global | Scope::Row));
    let groups = [a, Some(Named::excluded("b")), None, a, None];
    let mut tensors = shaped(&shapes, |i, n| data(Distribution::Uniform(1.0), n, i as u64 + 1));
    for (i, (tensor, group)) in tensors.iter_mut().zip(groups).enumerate() {
        tensor.parameter = Some(parameter(i, tensor.data.len()).into());
        tensor.group = group;
    }
    tensors
}

fn clips() -> Vec<Clip> {
    vec![
        Clip::global_norm(1.0),
        Clip::per_tensor_norm(4.0),
        Clip::per_tensor_norm(4.0).total(5.0),
        Clip::per_group_norm(1.0),
        Clip::per_unit_norm(2.0, Units::OutputFirst),
        Clip::per_unit_norm(2.0, Units::OutputLast),
        Clip::per_unit_norm(1.0, Units::over(&[0])),
        Clip::per_row_norm(9.0),
        Clip::per_row_norm(9.0).total(40.0),
        Clip::value(0.25),
        Clip::block_rms(0.1),
        Clip::sign(0.5),
        Clip::normalize(0.5),
        Clip::global_norm(1.0).unscale(0.125),
    ]
}

#[test]
fn a_step_goes_where_clipping_says() {
    let gpu = gpu();
    for clip in clips() {
        let tensors = tensors(clip.scope, |_, n| vec![0.0; n]);
        let (want, clipped) = traced(&tensors, &clip).unwrap();
        let right = |parameters: &[Vec<f32>], what: &str| {
            for (i, (p, g)) in parameters.iter().zip(floats(&clipped)).enumerate() {
                assert!(p.iter().zip(&g).all(|(p, g)| *p == -g), "t{i}, {clip:?} on {what}");
            }
        };
        let mut here = Here::new(&tensors, &clip, Sgd::new(1.0));
        let mut report = here.step();
        assert_eq!((report.updates, report.lr), (1, Some(1.0)));
        // Else it is that of the clip.
        (report.updates, report.lr) = (want.report.updates, want.report.lr);
        assert_eq!(report, want.report);
        right(&here.parameters(), "CPU");
        let Some(gpu) = &gpu else { continue };
        let there = There::new(gpu, &tensors, &clip, Sgd::new(1.0));
        there.step();
        right(&there.parameters(), &gpu.name);
    }
}

/// The limit follows the parameters that the step then moves.
#[test]
fn adaptive_gradient_clipping_reads_what_the_step_writes() {
    let gpu = gpu();
    let mut tensors = tensors(Scope::Global, |i, n| data(Distribution::Uniform(0.1), n, i as u64 + 21));
    tensors.iter_mut().for_each(|tensor| tensor.group = None);
    for units in [Units::OutputFirst, Units::OutputLast] {
        let clip = Clip::agc(0.05, units);
        let (trace, clipped) = traced(&tensors, &clip).unwrap();
        assert!(trace.report.clipped());
        let mut here = Here::new(&tensors, &clip, Sgd::new(0.5));
        here.step();
        let own = here.parameters().concat();
        let before = common::stepping::parameters(&tensors).concat();
        for ((before, g), p) in before.iter().zip(floats(&clipped).concat()).zip(&own) {
            assert!(*p == before - 0.5 * g, "{units:?}");
        }
        let Some(gpu) = &gpu else { continue };
        let there = There::new(gpu, &tensors, &clip, Sgd::new(0.5));
        there.step();
        // Of parameters of at most a tenth, moved by as much at most.
        let what = format!("{units:?} on {}", gpu.name);
        assert_close(there.parameters().concat(), own, 0.0, FUSED * 0.2, &what);
    }
}

/// Rows that are left out keep their parameters and moments.
#[test]
fn rows_that_are_left_out_do_not_move() {
    let Some(gpu) = gpu() else { return };
    let mut tensors = shaped(&[[100, 3], [100, 1]], |i, n| data(Distribution::Uniform(1.0), n, i as u64 + 1));
    tensors.iter_mut().for_each(|t| t.parameter = Some(vec![1.0f32; t.data.len()].into()));
    let adam = Adam::adamw(0.1).weight_decay(0.5);
    let there = There::new(&gpu, &tensors, &Clip::per_row_norm(0.5), adam);
    there.stepper.set_rows(&gpu.queue, 60).unwrap();
    there.step();
    let moved = |values: &[f32], from: f32| {
        let used = values.len() * 6 / 10;
        values[..used].iter().all(|x| *x != from) && values[used..].iter().all(|x| *x == from)
    };
    assert!(there.parameters().iter().all(|values| moved(values, 1.0)));
    assert!(there.moments().iter().flatten().all(|moment| moved(moment, 0.0)));
}

/// Every gradient a finite f32, the norm 3.5e32: PyTorch finds an infinite norm and makes a step of zero.
#[test]
fn the_step_that_pytorch_loses() {
    let folder = files::folder("cases/torch_lstm_overflow_p2_clip");
    let read = |file: &str| floats(&files::tensors(&folder.join(file)).unwrap());
    let (gradients, exact) = (read("input.safetensors"), read("exact.safetensors"));
    assert!(read("expected.safetensors").iter().flatten().all(|g| *g == 0.0));
    let right = |parameters: &[Vec<f32>], what: &str| {
        assert_close([norm(parameters)], [1.0], NORM_AFTER, 0.0, what);
        let moved = parameters.iter().flatten().map(|p| -p);
        // Norm, quotient and product, half an ulp each; a subnormal may be flushed.
        assert_close(moved, exact.concat(), 3.0 * HALF_ULP, f32::MIN_POSITIVE.into(), what);
    };
    let tensors = gradients.iter().map(|g| Tensor::new("t", g).parameter(vec![0.0f32; g.len()]));
    let tensors: Vec<Tensor> = tensors.collect();
    let mut here = Here::new(&tensors, &Clip::global_norm(1.0), Sgd::new(1.0));
    here.step();
    right(&here.parameters(), "CPU");
    let Some(gpu) = gpu() else { return };
    let there = There::new(&gpu, &tensors, &Clip::global_norm(1.0), Sgd::new(1.0));
    there.step();
    right(&there.parameters(), &gpu.name);
}

/// So many elements of 1, of a parameter of 1.
fn ones(elements: usize) -> Tensor {
    Tensor::new("t", vec![1.0f32; elements]).parameter(vec![1.0f32; elements])
}

#[test]
fn rates_of_tensors_and_of_steps() {
    let Some(gpu) = gpu() else { return };
    let tensors =
        [ones(4), Tensor { lr_scale: 0.5, ..ones(4) }, Tensor { weight_decay: Some(0.0), ..ones(4) }];
    let mut there = There::new(&gpu, &tensors, &Clip::measure(), Sgd::new(0.25).weight_decay(1.0));
    let expect = |there: &There<'_>, want: [f32; 3]| {
        there.step();
        assert_eq!(there.parameters(), want.map(|p| vec![p; 4]));
    };
    // p ← p − lr · scale · (1 + decay · p), all of them exact.
    expect(&there, [0.5, 0.75, 0.75]);
    there.stepper.set_lr(&gpu.queue, 0.0).unwrap();
    expect(&there, [0.5, 0.75, 0.75]);
    there.stepper.set_lr(&gpu.queue, 0.5).unwrap();
    expect(&there, [-0.25, 0.3125, 0.25]);
    there.stepper.set_optimizer(&gpu.queue, Sgd::new(1.0)).unwrap();
    expect(&there, [-1.25, -0.1875, -0.75]);
    let stepper = &mut there.stepper;
    assert!(matches!(stepper.set_lr(&gpu.queue, f64::NAN), Err(OptimizerError::Constant { .. })));
    assert!(matches!(
        stepper.set_optimizer(&gpu.queue, Sgd::new(1.0).momentum(0.5)),
        Err(OptimizerError::Combination { .. })
    ));
    assert!(stepper.set_optimizer(&gpu.queue, Adam::new(1.0)).is_err());
    assert_eq!(stepper.optimizer().lr(), 1.0);
}

/// A second stepper for other buffers goes on with the state of the first.
#[test]
fn state_goes_on_for_other_buffers() {
    let Some(gpu) = gpu() else { return };
    let (adam, clip) = (Adam::new(0.1), Clip::measure());
    let start = || There::new(&gpu, &[ones(10)], &clip, adam);
    let whole = start();
    (0..3).for_each(|_| whole.step());

    let first = start();
    (0..2).for_each(|_| first.step());
    let mut moved = gpu.place(&[ones(10)], Placing::APART);
    moved.set_parameters(first.placed.parameters.clone().unwrap());
    let second = gpu.clipper.prepare_step_after(&first.stepper, &moved.grads, &clip, adam).unwrap();
    gpu.submit(|encoder| second.record_step(encoder));
    assert_eq!(first.parameters(), whole.parameters());

    let longer = gpu.place(&[ones(11)], Placing::APART).grads;
    let refused = gpu.clipper.prepare_step_after(&first.stepper, &longer, &clip, adam).unwrap_err();
    assert!(matches!(refused, PrepareError::Clip(ClipError::State { .. })), "{refused}");
    // Nor the state of another optimiser, though it has as many moments.
    for other in [Optimizer::from(Sgd::new(0.1)), Adam::new(0.1).amsgrad(true).into()] {
        assert!(gpu.clipper.prepare_step_after(&first.stepper, &moved.grads, &clip, other).is_err());
    }
    let momentum = gpu.clipper.prepare_step(&moved.grads, &clip, Sgd::new(0.1).momentum(0.9)).unwrap();
    let refused = gpu.clipper.prepare_step_after(&momentum, &moved.grads, &clip, Lion::new(0.1)).unwrap_err();
    assert!(matches!(refused, PrepareError::Clip(ClipError::State { .. })), "{refused}");
}

#[test]
fn what_a_step_needs_is_asked_for_by_name() {
    let Some(gpu) = gpu() else { return };
    let placed = gpu.place(&[ones(10)], Placing::APART);
    let grad = placed.grads[0].clone();
    let there = gpu.upload(bytemuck::cast_slice(&[1.0f32; 10]));
    let prepare = |grad: Grad, optimizer: Optimizer| {
        gpu.clipper.prepare_step(&[grad], &Clip::global_norm(1.0), optimizer).unwrap_err()
    };
    let sgd = Optimizer::from(Sgd::new(0.1));
    let plain = Grad::new("w", grad.buffer());
    let message = prepare(plain.clone(), sgd).to_string();
    assert_eq!(message, "tensor `w`: required its parameter, for a step, given none");
    let double = plain.clone().parameter(&there, 0, DType::F64);
    assert_eq!(
        prepare(double, sgd).to_string(),
        "tensor `w`: required a parameter of f32, f16 or bf16, for a step, given f64"
    );
    let itself = plain.clone().parameter(plain.buffer(), 0, DType::F32);
    assert!(matches!(prepare(itself, sgd), PrepareError::Plan(PlanError::Overlap { .. })));
    let outside = plain.clone().parameter(&there, 4, DType::F32);
    assert!(matches!(prepare(outside, sgd), PrepareError::Plan(PlanError::OutOfRange { .. })));
    let adam = Optimizer::from(Adam::new(0.1));
    let some = grad.clone().moment(&there, 0);
    assert!(prepare(some, adam).to_string().contains("required 2 moments"));
    let usage = wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: None, size: 40, usage, mapped_at_creation: false };
    let unbound = gpu.device.create_buffer(&descriptor);
    let unusable = plain.clone().parameter(&unbound, 0, DType::F32);
    assert!(matches!(prepare(unusable, sgd), PrepareError::Usage { .. }));
    for wrong in [
        Sgd::new(-0.1).into(),
        Sgd::new(f64::INFINITY).into(),
        Sgd::new(0.1).momentum(-1.0).into(),
        Sgd::new(0.1).nesterov(true).into(),
        Sgd::new(0.1).momentum(0.9).dampening(0.1).nesterov(true).into(),
        Sgd::new(0.1).weight_decay(f64::NAN).into(),
        Adam::new(0.1).betas(1.0, 0.9).into(),
        Adam::new(0.1).betas(0.9, -0.1).into(),
        Adam::new(0.1).betas(0.9, 1.0 - 1e-12).into(),
        Adam::new(0.1).eps(-1.0).into(),
    ] {
        assert!(matches!(prepare(grad.clone(), wrong), PrepareError::Optimizer(_)), "{wrong:?}");
    }
    assert!(matches!(prepare(grad.clone().lr_scale(-1.0), sgd), PrepareError::Optimizer(_)));

    let (g, mut p) = ([1.0f32; 3], [1.0f32; 2]);
    let mut steps = [StepMut::new("w", &g[..], &mut p)];
    let (mut history, mut moments) = (History::default(), Moments::default());
    let refused = cpu::step(&mut steps, &Clip::measure(), sgd, &mut history, &mut moments).unwrap_err();
    let wanted = "tensor `w`: required a parameter of 3 elements, as its gradient has, given 2";
    assert_eq!(refused.to_string(), wanted);
    assert!(matches!(refused, StepError::Clip(ClipError::Tensor { .. })));
    let agc = Clip::per_tensor_norm(1.0).rule(Rule::Agc { eps: 1e-3 });
    let mut p = [1.0f32; 3];
    let mut steps = [StepMut::new("w", &g[..], &mut p)];
    cpu::step(&mut steps, &agc, adam, &mut history, &mut moments).unwrap();
    let refused = cpu::step(&mut steps, &agc, sgd, &mut history, &mut moments).unwrap_err();
    assert!(matches!(refused, StepError::Clip(ClipError::State { .. })), "{refused}");
}
