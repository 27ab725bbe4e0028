//! Steps under every scope and rule: from parameters of 0, gradient descent with a rate of 1 goes to
//! exactly minus the clipped gradient. And what a stepper can be told, refuses, and hands on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Gpu, Kind, data, gpu};
use gradclip::cpu::{self, GradMut, Moments, StepMut};
use gradclip::{
    Adam, Clip, ClipError, DType, Grad, Group, History, Optimizer, OptimizerError, PlanError, PrepareError,
    Rule, Scope, Sgd, StepError, Stepper, Units, wgpu,
};
use safetensors::SafeTensors;

fn record(gpu: &Gpu, stepper: &Stepper) {
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    stepper.record_step(&mut encoder);
    gpu.queue.submit([encoder.finish()]);
}

struct Tensor {
    shape: Vec<u64>,
    values: Vec<f32>,
    /// Compared with by adaptive gradient clipping.
    parameter: Vec<f32>,
    group: Option<Group>,
}

fn tensors() -> Vec<Tensor> {
    let shapes: [&[u64]; 5] = [&[40, 3, 5, 5], &[40, 700], &[40], &[40, 1, 33], &[40, 300]];
    let groups =
        [Some(Group::new("a", 0.5)), Some(Group::excluded("b")), None, Some(Group::new("a", 0.5)), None];
    let all = shapes.iter().zip(groups).zip(1..);
    all.map(|((shape, group), seed)| {
        let n = shape.iter().product::<u64>() as usize;
        Tensor {
            shape: shape.to_vec(),
            values: data(Kind::Uniform(1.0), n, seed),
            parameter: data(Kind::Uniform(0.1), n, seed + 20),
            group,
        }
    })
    .collect()
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
    let tensors = tensors();
    let sgd = Optimizer::from(Sgd::new(1.0));
    for clip in clips() {
        // Where all tensors share one norm, groups may have no threshold of their own.
        let own =
            |t: &&Group| !matches!(clip.scope, Scope::Global | Scope::Row) || **t == Group::excluded("b");
        let mut clipped: Vec<Vec<f32>> = tensors.iter().map(|t| t.values.clone()).collect();
        let mut grads: Vec<GradMut<'_>> = clipped
            .iter_mut()
            .zip(&tensors)
            .map(|(g, t)| {
                let grad = GradMut::new("t", g).shape(&t.shape);
                t.group.iter().filter(own).fold(grad, GradMut::group)
            })
            .collect();
        let want = cpu::clip(&mut grads, &clip).unwrap();
        let right = |parameters: &[Vec<f32>], what: &str| {
            for (i, (p, g)) in parameters.iter().zip(&clipped).enumerate() {
                assert!(p.iter().zip(g).all(|(p, g)| *p == -g), "t{i}, {clip:?} on {what}");
            }
        };
        let mut parameters: Vec<Vec<f32>> = tensors.iter().map(|t| vec![0.0; t.values.len()]).collect();
        let mut steps: Vec<StepMut<'_>> = parameters
            .iter_mut()
            .zip(&tensors)
            .map(|(p, t)| {
                let step = StepMut::new("t", &t.values[..], p).shape(&t.shape);
                t.group.iter().filter(own).fold(step, StepMut::group)
            })
            .collect();
        let mut report =
            cpu::step(&mut steps, &clip, &sgd, &mut History::default(), &mut Moments::default()).unwrap();
        assert_eq!((report.updates, report.lr), (1, Some(1.0)));
        // Else it is that of the clip.
        (report.updates, report.lr) = (want.updates, want.lr);
        assert_eq!(report, want);
        right(&parameters, "CPU");
        let Some(gpu) = &gpu else { continue };
        let zeros: Vec<Vec<f32>> = tensors.iter().map(|t| vec![0.0; t.values.len()]).collect();
        let there = gpu.separate(&zeros);
        let values: Vec<Vec<f32>> = tensors.iter().map(|t| t.values.clone()).collect();
        let grads: Vec<Grad> = gpu
            .separate(&values)
            .into_iter()
            .zip(&tensors)
            .zip(&there)
            .map(|((g, t), p)| {
                let grad = g.shape(&t.shape).parameter(p.buffer(), 0, DType::F32);
                t.group.iter().filter(own).fold(grad, Grad::group)
            })
            .collect();
        record(gpu, &gpu.clipper.prepare_step(&grads, &clip, sgd).unwrap());
        right(&common::contents(gpu, &there, &zeros), &gpu.name);
    }
}

/// The limit follows the parameters that the step then moves.
#[test]
fn adaptive_gradient_clipping_reads_what_the_step_writes() {
    let gpu = gpu();
    let tensors = tensors();
    let sgd = Optimizer::from(Sgd::new(0.5));
    for units in [Units::OutputFirst, Units::OutputLast] {
        let clip = Clip::agc(0.05, units);
        let mut clipped: Vec<Vec<f32>> = tensors.iter().map(|t| t.values.clone()).collect();
        let mut grads: Vec<GradMut<'_>> = clipped
            .iter_mut()
            .zip(&tensors)
            .map(|(g, t)| GradMut::new("t", g).shape(&t.shape).parameter(&t.parameter[..]))
            .collect();
        assert!(cpu::clip(&mut grads, &clip).unwrap().clipped());
        let mut on_host: Vec<Vec<f32>> = tensors.iter().map(|t| t.parameter.clone()).collect();
        let mut steps: Vec<StepMut<'_>> = on_host
            .iter_mut()
            .zip(&tensors)
            .map(|(p, t)| StepMut::new("t", &t.values[..], p).shape(&t.shape))
            .collect();
        cpu::step(&mut steps, &clip, &sgd, &mut History::default(), &mut Moments::default()).unwrap();
        for (t, (g, p)) in tensors.iter().zip(clipped.iter().zip(&on_host)) {
            let right = |((before, g), p): ((&f32, &f32), &f32)| *p == before - 0.5 * g;
            assert!(t.parameter.iter().zip(g).zip(p).all(right), "{units:?}");
        }
        let Some(gpu) = &gpu else { continue };
        let parameters: Vec<Vec<f32>> = tensors.iter().map(|t| t.parameter.clone()).collect();
        let values: Vec<Vec<f32>> = tensors.iter().map(|t| t.values.clone()).collect();
        let there = gpu.separate(&parameters);
        let grads: Vec<Grad> = gpu
            .separate(&values)
            .into_iter()
            .zip(&tensors)
            .zip(&there)
            .map(|((g, t), p)| g.shape(&t.shape).parameter(p.buffer(), 0, DType::F32))
            .collect();
        record(gpu, &gpu.clipper.prepare_step(&grads, &clip, sgd).unwrap());
        for (got, want) in
            common::contents(gpu, &there, &parameters).iter().flatten().zip(on_host.iter().flatten())
        {
            // A driver may fuse the product into the difference.
            assert!((got - want).abs() <= f32::EPSILON * 0.2, "{units:?} on {}: {got} {want}", gpu.name);
        }
    }
}

/// Rows that are left out keep their parameters and moments.
#[test]
fn rows_that_are_left_out_do_not_move() {
    let Some(gpu) = gpu() else { return };
    let gradients = vec![data(Kind::Uniform(1.0), 300, 1), data(Kind::Uniform(1.0), 100, 2)];
    let parameters = vec![vec![1.0f32; 300], vec![1.0f32; 100]];
    let there = gpu.separate(&parameters);
    let grads: Vec<Grad> = gpu
        .separate(&gradients)
        .into_iter()
        .zip(&there)
        .zip([3, 1])
        .map(|((g, p), width)| g.shape(&[100, width]).parameter(p.buffer(), 0, DType::F32))
        .collect();
    let adam = Adam::adamw(0.1).weight_decay(0.5);
    let stepper = gpu.clipper.prepare_step(&grads, &Clip::per_row_norm(0.5), adam).unwrap();
    stepper.set_rows(&gpu.queue, 60).unwrap();
    record(&gpu, &stepper);
    let after = common::contents(&gpu, &there, &parameters);
    for (values, width) in after.iter().zip([3, 1]) {
        let moved = |range: &[f32]| range.iter().filter(|p| **p != 1.0).count();
        assert_eq!((moved(&values[..60 * width]), moved(&values[60 * width..])), (60 * width, 0));
    }
    for moment in stepper.moments().iter().flatten() {
        let all = gpu.read::<f32>(&moment.buffer);
        let own = &all[moment.offset as usize / 4..][..moment.elements as usize];
        assert!(own[..own.len() * 6 / 10].iter().all(|m| *m != 0.0));
        assert!(own[own.len() * 6 / 10..].iter().all(|m| *m == 0.0));
    }
}

/// Every gradient a finite f32, the norm 3.5e32: PyTorch finds an infinite norm and makes a step of zero.
#[test]
fn the_step_that_pytorch_loses() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases/torch_lstm_overflow_p2_clip");
    let read = |file: &str| -> Vec<(String, Vec<f32>)> {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        let values =
            |data: &[u8]| data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let mut all: Vec<_> = parsed.iter().map(|(n, v)| (n.to_owned(), values(v.data()))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    let (gradients, exact) = (read("input.safetensors"), read("exact.safetensors"));
    assert!(read("expected.safetensors").iter().flat_map(|t| &t.1).all(|g| *g == 0.0));
    let right = |parameters: &[Vec<f32>], what: &str| {
        let moved = parameters.iter().flatten().map(|p| f64::from(*p).powi(2)).sum::<f64>().sqrt();
        assert!((moved - 1.0).abs() < 1e-6, "a step of {moved} on {what}");
        for (p, (name, want)) in parameters.iter().zip(&exact) {
            for (p, w) in p.iter().zip(want) {
                // Norm, quotient and product, half an ulp each; a subnormal may be flushed.
                let bound = w.abs() * 1.5 * f32::EPSILON + f32::MIN_POSITIVE;
                assert!((-p - w).abs() <= bound, "{name} on {what}: {p} {w}");
            }
        }
    };
    let clip = Clip::global_norm(1.0);
    let zeros: Vec<Vec<f32>> = gradients.iter().map(|g| vec![0.0; g.1.len()]).collect();
    let mut on_host = zeros.clone();
    let mut steps: Vec<StepMut<'_>> =
        on_host.iter_mut().zip(&gradients).map(|(p, (name, g))| StepMut::new(&**name, &g[..], p)).collect();
    let sgd = Optimizer::from(Sgd::new(1.0));
    cpu::step(&mut steps, &clip, &sgd, &mut History::default(), &mut Moments::default()).unwrap();
    right(&on_host, "CPU");
    let Some(gpu) = gpu() else { return };
    let there = gpu.separate(&zeros);
    let values: Vec<Vec<f32>> = gradients.iter().map(|g| g.1.clone()).collect();
    let grads: Vec<Grad> = gpu
        .separate(&values)
        .into_iter()
        .zip(&there)
        .map(|(g, p)| g.parameter(p.buffer(), 0, DType::F32))
        .collect();
    record(&gpu, &gpu.clipper.prepare_step(&grads, &clip, sgd).unwrap());
    right(&common::contents(&gpu, &there, &zeros), &gpu.name);
}

/// One tensor of ten elements on the device, with its parameter.
fn one(gpu: &Gpu) -> (Grad, Grad) {
    let there = gpu.separate(&[vec![1.0f32; 10]]).remove(0);
    let grad = gpu.separate(&[vec![1.0f32; 10]]).remove(0);
    (grad.parameter(there.buffer(), 0, DType::F32), there)
}

#[test]
fn rates_of_tensors_and_of_steps() {
    let Some(gpu) = gpu() else { return };
    let there = gpu.separate(&[vec![1.0f32; 4], vec![1.0f32; 4], vec![1.0f32; 4]]);
    let grads: Vec<Grad> = gpu
        .separate(&[vec![1.0f32; 4], vec![1.0f32; 4], vec![1.0f32; 4]])
        .into_iter()
        .zip(&there)
        .map(|(g, p)| g.parameter(p.buffer(), 0, DType::F32))
        .collect();
    let [a, b, c]: [Grad; 3] = grads.try_into().unwrap();
    let grads = [a, b.lr_scale(0.5), c.weight_decay(0.0)];
    let sgd = Sgd::new(0.25).weight_decay(1.0);
    let stepper = gpu.clipper.prepare_step(&grads, &Clip::measure(), sgd).unwrap();
    let expect = |stepper: &Stepper, want: [f32; 3]| {
        record(&gpu, stepper);
        let got = there.iter().map(|p| gpu.read::<f32>(p.buffer())[0]);
        assert_eq!(got.collect::<Vec<_>>(), want);
    };
    // p ← p − lr · scale · (1 + decay · p), all of them exact.
    expect(&stepper, [0.5, 0.75, 0.75]);
    stepper.set_lr(&gpu.queue, 0.0).unwrap();
    expect(&stepper, [0.5, 0.75, 0.75]);
    stepper.set_lr(&gpu.queue, 0.5).unwrap();
    expect(&stepper, [-0.25, 0.3125, 0.25]);
    stepper.set_optimizer(&gpu.queue, Sgd::new(1.0)).unwrap();
    expect(&stepper, [-1.25, -0.1875, -0.75]);
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
    let adam = Adam::new(0.1);
    let (grad, there) = one(&gpu);
    let stepper = gpu.clipper.prepare_step(&[grad], &Clip::measure(), adam).unwrap();
    (0..3).for_each(|_| record(&gpu, &stepper));
    let want = gpu.read::<f32>(there.buffer());

    let (first, there) = one(&gpu);
    let first = gpu.clipper.prepare_step(&[first], &Clip::measure(), adam).unwrap();
    (0..2).for_each(|_| record(&gpu, &first));
    let (other, _) = one(&gpu);
    let moved = [other.parameter(there.buffer(), 0, DType::F32)];
    let second = gpu.clipper.prepare_step_after(&first, &moved, &Clip::measure(), adam).unwrap();
    record(&gpu, &second);
    assert_eq!(gpu.read::<f32>(there.buffer()), want);

    let longer = gpu.separate(&[vec![0.0f32; 11], vec![0.0f32; 11]]);
    let longer = [longer[0].clone().parameter(longer[1].buffer(), 0, DType::F32)];
    let refused = gpu.clipper.prepare_step_after(&first, &longer, &Clip::measure(), adam).unwrap_err();
    assert!(matches!(refused, PrepareError::Clip(ClipError::State { .. })), "{refused}");
    assert!(gpu.clipper.prepare_step_after(&first, &moved, &Clip::measure(), Sgd::new(0.1)).is_err());
}

#[test]
fn what_a_step_needs_is_asked_for_by_name() {
    let Some(gpu) = gpu() else { return };
    let (grad, there) = one(&gpu);
    let prepare = |grad: Grad, optimizer: Optimizer| {
        gpu.clipper.prepare_step(&[grad], &Clip::global_norm(1.0), optimizer).unwrap_err()
    };
    let sgd = Optimizer::from(Sgd::new(0.1));
    let plain = Grad::new("w", grad.buffer());
    let message = prepare(plain.clone(), sgd).to_string();
    assert_eq!(message, "tensor `w`: required its parameter, for a step, given none");
    let half = plain.clone().parameter(there.buffer(), 0, DType::F16);
    assert_eq!(
        prepare(half, sgd).to_string(),
        "tensor `w`: required a parameter of f32, for a step, given f16"
    );
    let itself = plain.clone().parameter(plain.buffer(), 0, DType::F32);
    assert!(matches!(prepare(itself, sgd), PrepareError::Plan(PlanError::Overlap { .. })));
    let outside = plain.clone().parameter(there.buffer(), 4, DType::F32);
    assert!(matches!(prepare(outside, sgd), PrepareError::Plan(PlanError::OutOfRange { .. })));
    let adam = Optimizer::from(Adam::new(0.1));
    let some = grad.clone().moment(there.buffer(), 0);
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
    let refused = cpu::step(&mut steps, &Clip::measure(), &sgd, &mut history, &mut moments).unwrap_err();
    let wanted = "tensor `w`: required a parameter of 3 elements, as its gradient has, given 2";
    assert_eq!(refused.to_string(), wanted);
    assert!(matches!(refused, StepError::Clip(ClipError::Tensor { .. })));
    let agc = Clip::per_tensor_norm(1.0).rule(Rule::Agc { eps: 1e-3 });
    let mut p = [1.0f32; 3];
    let mut steps = [StepMut::new("w", &g[..], &mut p)];
    cpu::step(&mut steps, &agc, &adam, &mut history, &mut moments).unwrap();
    let refused = cpu::step(&mut steps, &agc, &sgd, &mut history, &mut moments).unwrap_err();
    assert!(matches!(refused, StepError::Clip(ClipError::State { .. })), "{refused}");
}
