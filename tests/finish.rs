//! One workgroup that finishes a small set leaves the same records, bit for bit, as a dispatch a stage; and both
//! the same whether they are recorded in one go or in halves. That those of a dispatch a stage are right,
//! the other tests show against the CPU path.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Data, Distribution, Element, Gpu, Placed, Placing, Tensor, data, gpu};
use gradclip::layout::STAGE_TENSORS;
use gradclip::{
    Adam, Adapt, Clip, Clipper, ClipperOptions, DType, Grad, Group, LossScale, NonFinite, NormType, Pass,
    Reaction, Rule, Scope, Units,
};

const STEPS: usize = 3;

/// Everything that steps leave behind.
#[derive(PartialEq)]
struct Left(Vec<(&'static str, Vec<u32>)>);

impl Left {
    fn assert_same(&self, other: &Left, what: &str) {
        for ((name, a), (_, b)) in self.0.iter().zip(&other.0) {
            let at = a.iter().zip(b).position(|(a, b)| a != b);
            assert!(a == b, "{what}: {name} differ at word {at:?}");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Recorded {
    Together,
    Halves,
}

/// Tensors of these shapes in one arena, with parameters; in two groups in turn and an excluded one where
/// the clip knows groups.
fn grads(gpu: &Gpu, shapes: &[[u64; 2]], clip: &Clip) -> Vec<Grad> {
    let tensors: Vec<Vec<f32>> = shapes
        .iter()
        .enumerate()
        .map(|(i, s)| {
            let mut t =
                data(Distribution::Uniform(10f32.powi(i as i32 % 4)), (s[0] * s[1]) as usize, i as u64);
            if clip.non_finite == NonFinite::Sanitize && i == 1 {
                (t[0], t[3]) = (f32::NAN, f32::INFINITY);
            }
            t
        })
        .collect();
    let groups = [Group::new("a", 3.0), Group::new("b", 0.5), Group::excluded("free")];
    let parameters = gpu.arena(&tensors, 0, 0);
    let mut grads = gpu.arena(&tensors, 1, 0);
    for (i, grad) in grads.iter_mut().enumerate() {
        *grad = grad.clone().shape(&shapes[i]);
        if clip.scope == Scope::Group || clip.total.is_some() {
            *grad = grad.clone().group(&groups[i % 3]);
        }
        if matches!(clip.rule, Rule::Agc { .. }) {
            let before: u64 = shapes[..i].iter().map(|s| s[0] * s[1] * 4).sum();
            *grad = grad.clone().parameter(parameters[i].buffer(), before, DType::F32);
        }
    }
    grads
}

fn run(gpu: &Gpu, clipper: &Clipper, shapes: &[[u64; 2]], clip: &Clip, recorded: Recorded) -> Left {
    // SwiftShader takes half a second for thousands of tensors.
    let steps = if shapes.len() > 100 { 1 } else { STEPS };
    let grads = grads(gpu, shapes, clip);
    let pass = clipper.prepare(&grads, clip).unwrap();
    run_pass(gpu, &pass, &grads, steps, recorded)
}

fn run_pass(gpu: &Gpu, pass: &Pass, grads: &[Grad], steps: usize, recorded: Recorded) -> Left {
    for _ in 0..steps {
        gpu.submit(|encoder| match recorded {
            Recorded::Together => pass.record(encoder),
            Recorded::Halves => {
                pass.record_norm(encoder);
                pass.record_apply(encoder);
            }
        });
    }
    let history = gpu.save(pass).to_bytes();
    Left(vec![
        ("partials", gpu.read(pass.partials())),
        ("sums of tensors", gpu.read(pass.tensor_sums())),
        ("sums of segments", gpu.read(pass.segment_sums())),
        ("outcomes", gpu.read(pass.outcomes())),
        ("tally", gpu.read(pass.tally())),
        ("progress", gpu.read(pass.progress())),
        ("histories", history.into_iter().map(u32::from).collect()),
        ("gradients", gpu.read(grads[0].buffer())),
    ])
}

fn clippers(gpu: &Gpu) -> [Clipper; 2] {
    // As on hardware: as many invocations as one workgroup takes segments.
    let options = ClipperOptions::default().workgroup_size(256);
    [true, false].map(|finish| gpu.clipper_with(options.finish(finish)))
}

/// Both kinds of clipper and both ways to record.
fn check(gpu: &Gpu, clippers: &[Clipper; 2], shapes: &[[u64; 2]], clip: &Clip) {
    let what = format!("{} tensors, {clip:?} on {}", shapes.len(), gpu.name);
    // Else nothing is compared here: where the device binds too little, and where a limit is passed on purpose.
    let plan = clippers[0].prepare(&grads(gpu, shapes, clip), clip).unwrap();
    let binds = clippers[0].plan_limits().storage >= if clip.adapt.is_some() { 10 } else { 8 };
    let windows = matches!(clip.adapt, Some(Adapt::Mean { .. } | Adapt::Percentile { .. }));
    let several = plan.plan().limit_count() > 1;
    let beyond = plan.plan().segment_count() > 256 || windows && several;
    assert_eq!(plan.plan().finish.is_some(), binds && !beyond, "{what}");
    let [finished, halves] =
        [Recorded::Together, Recorded::Halves].map(|r| run(gpu, &clippers[0], shapes, clip, r));
    finished.assert_same(&halves, &format!("finished in halves: {what}"));
    let apart = run(gpu, &clippers[1], shapes, clip, Recorded::Halves);
    // Norms of any p are rounded, and not promised to the bit.
    if !matches!(clip.norm, NormType::P(_)) {
        finished.assert_same(&apart, &format!("a dispatch a stage: {what}"));
    }
    let together = run(gpu, &clippers[1], shapes, clip, Recorded::Together);
    apart.assert_same(&together, &format!("a dispatch a stage, in one go: {what}"));
}

/// Chunks enough that some runs are added up by all lanes, some by one.
const SHAPES: [[u64; 2]; 7] = [[8, 3], [8, 80_000], [8, 7000], [8, 1], [8, 300], [8, 2000], [8, 5]];

#[test]
fn every_scope_and_norm() {
    let Some(gpu) = gpu() else { return };
    let clippers = clippers(&gpu);
    let clips = [
        Clip::global_norm(1.0),
        Clip::per_tensor_norm(1.0).norm_type(NormType::One),
        Clip::per_group_norm(1.0).norm_type(NormType::Inf),
        Clip::per_unit_norm(1.0, Units::OutputFirst),
        Clip::per_unit_norm(1.0, Units::OutputLast),
        Clip::per_row_norm(1.0),
        Clip::global_norm(1.0).norm_type(NormType::P(2.5)),
        Clip::per_tensor_norm(1.0).total(2.0),
        Clip::per_unit_norm(5.0, Units::OutputFirst).total(2.0),
        Clip::agc(0.01, Units::OutputFirst),
        Clip::value(0.5),
        Clip::global_norm(1.0).unscale(0.25).on_non_finite(NonFinite::Sanitize),
        Clip::measure(),
    ];
    let pass = clippers[0].prepare(&grads(&gpu, &SHAPES, &clips[0]), &clips[0]).unwrap();
    let finish = pass.plan().finish.clone().unwrap();
    assert!(finish.does(STAGE_TENSORS) && finish.serial > 0 && finish.serial < finish.runs, "{finish:?}");
    for clip in clips {
        // Wide columns of the last two axes would only make the test long.
        let shapes = if clip.scope == Scope::Unit(Units::OutputLast) { &SHAPES[3..5] } else { &SHAPES[..] };
        check(&gpu, &clippers, shapes, &clip);
    }
}

#[test]
fn every_rule_that_adapts() {
    let Some(gpu) = gpu() else { return };
    let clippers = clippers(&gpu);
    let (global, tensor) = (Clip::global_norm(1.0), Clip::per_tensor_norm(1.0));
    let clips = [
        global.adapt(Adapt::Mean { factor: 0.9, window: 2 }),
        Clip::per_group_norm(1.0).adapt(Adapt::Percentile { percentile: 40.0, window: 2 }),
        global.adapt(Adapt::ZScore { decay: 0.9, z: 2.0, warm_up: 2, reaction: Reaction::Mean }),
        tensor.adapt(Adapt::Average { factor: 0.9, decay: 0.5 }),
        Clip::adagc(1.0).adapt(Adapt::AdaGc { factor: 0.9, decay: 0.5, warm_up: 1 }),
        Clip::per_row_norm(1.0).adapt(Adapt::Quantile { quantile: 0.5, rate: 0.2 }),
        // More windows than one workgroup searches.
        tensor.adapt(Adapt::Mean { factor: 0.9, window: 2 }),
        global.loss_scale(LossScale::default().interval(2)),
        tensor.adapt(Adapt::Average { factor: 0.9, decay: 0.5 }).loss_scale(LossScale::default().interval(2)),
    ];
    for clip in clips {
        check(&gpu, &clippers, &[SHAPES[0], SHAPES[2], SHAPES[3], SHAPES[4], SHAPES[6]], &clip);
    }
}

/// One item, and one segment, more than one workgroup takes.
#[test]
fn around_the_limits() {
    let Some(gpu) = gpu() else { return };
    let clippers = clippers(&gpu);
    for (tensors, clip, finishes) in [
        (4096, Clip::global_norm(1.0), true),
        (4097, Clip::global_norm(1.0), true),
        (4097, Clip::per_group_norm(1.0), true),
        (256, Clip::per_tensor_norm(1.0), true),
        (257, Clip::per_tensor_norm(1.0), false),
        (255, Clip::per_tensor_norm(1.0).total(3.0), true),
        (256, Clip::per_tensor_norm(1.0).total(3.0), false),
        (0, Clip::global_norm(1.0), true),
        (0, Clip::per_tensor_norm(1.0), true),
    ] {
        let shapes = vec![[1, 2]; tensors];
        if tensors > 0 {
            let pass = clippers[0].prepare(&grads(&gpu, &shapes, &clip), &clip).unwrap();
            let finish = pass.plan().finish.as_ref();
            assert_eq!(finish.is_some(), finishes, "{tensors}");
            assert_eq!(finish.is_some_and(|f| f.does(STAGE_TENSORS)), finishes && tensors <= 4096);
            check(&gpu, &clippers, &shapes, &clip);
        }
        let clipped = gpu.run(&clippers[0].prepare(&[], &clip).unwrap());
        assert_eq!(clipped.norm(), (clip.scope == Scope::Global).then_some(0.0));
    }
    for units in [256, 257, 4096, 4097] {
        check(&gpu, &clippers, &[[units, 3]], &Clip::per_unit_norm(1.0, Units::OutputFirst));
    }
}

/// A tensor of one chunk of a type, a NaN among its elements where asked.
fn only(n: usize, element: Element, nan: bool) -> Tensor {
    let mut values = data(Distribution::Uniform(3.0), n, 7);
    if nan {
        values[n / 2] = f32::NAN;
    }
    Tensor::new("only", Data::rounded(element, &values)).shape(&[1, n as u64])
}

/// A set of one chunk is reduced and decided by one dispatch: what it leaves is what two leave, and what one a stage leaves,
/// in every form, of every type, wherever it begins.
#[test]
fn one_chunk() {
    let Some(gpu) = gpu() else { return };
    let options = ClipperOptions::default().workgroup_size(256);
    let apart = gpu.clipper_with(options.finish(false));
    let global = Clip::global_norm(1.0);
    let every = [
        global,
        global.norm_type(NormType::One),
        global.norm_type(NormType::Inf),
        global.norm_type(NormType::P(2.5)),
        global.unscale(2.0).on_non_finite(NonFinite::Sanitize),
        global.loss_scale(LossScale::default().interval(2)),
        Clip::per_row_norm(1.0),
        Clip::measure(),
    ];
    let slow = gpu.compiles_slowly();
    let clips = if slow { &every[5..6] } else { &every[..] };
    // Norms and types meet in other tests: here each meets the finish.
    let elements = |clip: &Clip| if *clip == global { &Element::ON_DEVICES[..] } else { &[Element::F32] };
    for form in [false, true] {
        let together = gpu.clipper_with(options.finish(true).vector_loads(form));
        if together.plan_limits().storage < 9 {
            return;
        }
        for (clip, &element) in clips.iter().flat_map(|clip| elements(clip).iter().map(move |e| (clip, e))) {
            for (i, (n, start)) in
                [(1, 0), (900, 3), (1025, 1), (16_384, 0), (16_384, 1)].into_iter().enumerate()
            {
                let what = format!("{n} of {element:?} from {start}, form {form}, {clip:?} on {}", gpu.name);
                let tensor = [only(n, element, i == 2)];
                let run = |clipper: &Clipper, recorded| {
                    let grads = Placed::at(&gpu, &tensor, &[(0, start * element.size())]).grads;
                    let pass = clipper.prepare(&grads, clip).unwrap();
                    let reduces = pass.plan().finish.as_ref().is_some_and(|f| f.reduces);
                    // Units are for kernels of their own, unless they are long.
                    let takes = std::ptr::eq(clipper, &together) && pass.plan().units.is_empty();
                    assert_eq!(reduces, takes, "{what}");
                    run_pass(&gpu, &pass, &grads, STEPS, recorded)
                };
                let one = run(&together, Recorded::Together);
                one.assert_same(&run(&together, Recorded::Halves), &what);
                if !matches!(clip.norm, NormType::P(_)) {
                    one.assert_same(&run(&apart, Recorded::Halves), &what);
                }
            }
        }
    }
}

/// A row that is left out has no sum, and one that comes back has one.
#[test]
fn one_chunk_that_is_left_out() {
    let Some(gpu) = gpu() else { return };
    let options = ClipperOptions::default().workgroup_size(256).finish(true).vector_loads(true);
    let clipper = gpu.clipper_with(options);
    let values = data(Distribution::Uniform(3.0), 9000, 1);
    let grads = [gpu.separate(std::slice::from_ref(&values)).remove(0).shape(&[1, 9000])];
    let pass = clipper.prepare(&grads, &Clip::per_row_norm(1.0)).unwrap();
    let finish = pass.plan().finish.as_ref().unwrap();
    assert_eq!(finish.reduces, clipper.plan_limits().storage >= 9);
    for rows in [0, 1] {
        pass.set_rows(&gpu.queue, rows).unwrap();
        gpu.run(&pass);
        let same = gpu.read::<f32>(grads[0].buffer()) == values;
        let sum = gpu.read::<gradclip::layout::Partial>(pass.partials())[0];
        assert_eq!((same, sum.exponent == 0), (rows == 0, rows == 0));
    }
}

/// What a step of Adam leaves in parameters, moments and counters.
#[test]
fn steps_and_accumulations() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip::global_norm(1.0).loss_scale(LossScale::default().interval(2));
    let sets = [(&[300, 20_000, 7][..], Element::F32), (&[5000], Element::F32), (&[5000], Element::F16)];
    for (sizes, element) in sets {
        check_steps(&gpu, sizes, element, &clip);
    }
    // An element that unscaling takes above the largest f32 does not count as finite.
    check_steps(&gpu, &[5000], Element::F32, &Clip::global_norm(1.0).unscale(2.0));
}

fn check_steps(gpu: &Gpu, sizes: &[usize], element: Element, clip: &Clip) {
    let clippers = clippers(gpu);
    let mut tensors: Vec<_> = sizes.iter().map(|&n| data(Distribution::Uniform(2.0), n, n as u64)).collect();
    if clip.unscale > 1.0 {
        tensors[0][9] = 3e38;
    }
    let step = |clipper: &Clipper, recorded: Recorded| {
        let parameters = gpu.separate(&tensors);
        let gradients = match element {
            Element::F32 => gpu.arena(&tensors, 0, 0),
            _ => gpu.place(&[only(sizes[0], element, false)], Placing::PACKED).grads,
        };
        let pairs = gradients.into_iter().zip(&parameters);
        let grads: Vec<Grad> = pairs.map(|(g, p)| g.parameter(p.buffer(), 0, DType::F32)).collect();
        let stepper = clipper.prepare_step(&grads, clip, Adam::adamw(1e-2)).unwrap();
        for _ in 0..STEPS {
            gpu.submit(|encoder| match recorded {
                Recorded::Together => stepper.record_step(encoder),
                Recorded::Halves => {
                    stepper.record_norm(encoder);
                    stepper.record_update(encoder);
                }
            });
        }
        let mut left = vec![
            ("progress", gpu.read(stepper.pass().progress())),
            ("tally", gpu.read(stepper.pass().tally())),
            ("outcomes", gpu.read(stepper.pass().outcomes())),
        ];
        left.extend(parameters.iter().map(|p| ("parameters", gpu.read(p.buffer()))));
        left.extend(stepper.moments().iter().flatten().map(|m| ("moments", gpu.read(&m.buffer))));
        Left(left)
    };
    let first = step(&clippers[0], Recorded::Together);
    step(&clippers[0], Recorded::Halves).assert_same(&first, "steps finished in halves");
    step(&clippers[1], Recorded::Together).assert_same(&first, "steps, a dispatch a stage");
    step(&clippers[1], Recorded::Halves).assert_same(&first, "steps, a dispatch a stage, in halves");

    let accumulate = |clipper: &Clipper| {
        let sums = gpu.separate(&tensors);
        let pairs = gpu.arena(&tensors, 0, 0).into_iter().zip(&sums);
        let grads: Vec<Grad> = pairs.map(|(g, s)| g.accumulator(s.buffer(), 0)).collect();
        let accumulator = clipper.prepare_clipped_accumulation(&grads, clip).unwrap();
        gpu.submit(|encoder| {
            accumulator.record_first(encoder);
            accumulator.record_next(encoder);
        });
        let pass = accumulator.pass();
        let mut left = vec![("progress", gpu.read(pass.progress())), ("tally", gpu.read(pass.tally()))];
        left.extend(sums.iter().map(|s| ("sums", gpu.read(s.buffer()))));
        Left(left)
    };
    accumulate(&clippers[1]).assert_same(&accumulate(&clippers[0]), "accumulations");
}
