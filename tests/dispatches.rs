//! How many dispatches each scope takes: the tables of ARCHITECTURE.md and of `Pass::dispatch_count` are what is
//! counted here. That a count is what reaches wgpu, tests/telemetry.rs reads from a trace.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Distribution, Gpu, data, gpu};
use gradclip::layout::Outcome;
use gradclip::plan::{FINISH_ITEMS, FINISH_SEGMENTS, FINISH_WINDOWS};
use gradclip::{Adam, Adapt, Clip, Clipper, ClipperOptions, DType, Grad, Group, LossScale, Skip, Units};

const ARCHITECTURE: &str = include_str!("../ARCHITECTURE.md");
const PASS: &str = include_str!("../src/gpu/pass.rs");

/// Tensors of these shapes in one arena, in two groups in turn where a clip knows groups.
fn arena(gpu: &Gpu, shapes: &[[u64; 2]], clip: &Clip) -> Vec<Grad> {
    let tensors: Vec<Vec<f32>> = shapes.iter().map(|s| vec![1.0; (s[0] * s[1]) as usize]).collect();
    let groups = ["a", "b"].map(|name| Group::new(name, 1.0));
    let shaped = gpu.arena(&tensors, 0, 0).into_iter().zip(shapes).map(|(g, s)| g.shape(s));
    let grouped = clip.scope == gradclip::Scope::Group;
    shaped.enumerate().map(|(i, g)| if grouped { g.group(&groups[i % 2]) } else { g }).collect()
}

/// `record`, and the two halves.
fn counts(clipper: &Clipper, grads: &[Grad], clip: &Clip) -> String {
    let pass = clipper.prepare(grads, clip).unwrap();
    let [norm, apply] = pass.half_dispatch_counts();
    format!("{} ({norm} + {apply})", pass.dispatch_count())
}

/// The rows of the table: what is clipped, shapes, clip.
fn cases() -> Vec<(String, Vec<[u64; 2]>, Clip)> {
    // Units short enough, and chunks long enough, that one kernel reduces all.
    let few = vec![[8, 30], [8, 1], [8, 200], [8, 7], [8, 100]];
    let items = u64::from(FINISH_ITEMS);
    let segments = u64::from(FINISH_SEGMENTS);
    let mut many = vec![[1, 1025]; 4095];
    many.push([1, 17_000]);
    let window = Adapt::Percentile { percentile: 10.0, window: 5 };
    let skip = Skip::z_score(6.0).with_loss();
    let average = Adapt::Average { factor: 1.5, decay: 0.9 };
    let units = Clip::per_unit_norm(1.0, Units::OutputFirst);
    let (global, tensor) = (Clip::global_norm(1.0), Clip::per_tensor_norm(1.0));
    assert!(few.len() > FINISH_WINDOWS && many.len() as u64 == items);
    assert!(segments < 300);
    let case = |what: &str, shapes: &[[u64; 2]], clip| (what.to_owned(), shapes.to_vec(), clip);
    vec![
        case("global", &few, global),
        case("one tensor of one chunk", &few[..1], global),
        case("groups", &few, Clip::per_group_norm(1.0)),
        case("tensor", &few, tensor),
        case("units", &few, units),
        case("rows", &few, Clip::per_row_norm(1.0)),
        case("`Clip::measure`", &few, Clip::measure()),
        case("tensor, with a total", &few, tensor.total(2.0)),
        case("global, adapting by a window", &few, global.adapt(window)),
        case("tensor, adapting by an average", &few, tensor.adapt(average)),
        case("tensor, adapting by a window", &few, tensor.adapt(window)),
        case("global, loss scale", &few, global.loss_scale(LossScale::default())),
        case("tensor, average and loss scale", &few, tensor.adapt(average).loss_scale(LossScale::default())),
        case("global, a rule that leaves out steps", &few, global.skip(skip)),
        case("tensor, a rule that leaves out steps", &few, tensor.skip(skip)),
        case("global, a norm that is handed in", &few, global.use_norm(true)),
        case("global, more than 4,096 chunks", &many, global),
        case(
            "global, that and adapting and loss scale",
            &many,
            global.adapt(window).loss_scale(LossScale::default()),
        ),
        case("groups, more than 4,096 chunks", &many, Clip::per_group_norm(1.0)),
        case("tensor, more than 256", &vec![[1, 3]; 300], tensor),
        case("tensor, more than 256, with a total", &vec![[1, 3]; 300], tensor.total(2.0)),
        case(
            "tensor, more than 256, average and loss scale",
            &vec![[1, 3]; 300],
            tensor.adapt(average).loss_scale(LossScale::default()),
        ),
        case("units, more than 256", &[[300, 5], [300, 7]], units),
        case("units, more than 4,096", &[[5000, 3], [10, 7]], units),
        case("rows, more than 256", &[[300, 5], [300, 7]], Clip::per_row_norm(1.0)),
        case("rows, more than 4,096", &[[5000, 3], [5000, 1]], Clip::per_row_norm(1.0)),
    ]
}

fn assert_stated(line: &str) {
    assert!(ARCHITECTURE.lines().any(|l| l == line), "ARCHITECTURE.md does not say\n{line}");
    assert!(PASS.lines().any(|l| l.trim() == format!("/// {line}")), "src/gpu/pass.rs does not say\n{line}");
}

/// Storage buffers of a finishing kernel where thresholds adapt, and where it reduces the only chunk.
const ADAPTING: u32 = 10;
const REDUCING: u32 = 9;

fn binds(gpu: &Gpu, buffers: u32) -> bool {
    gpu.device.limits().max_storage_buffers_per_shader_stage >= buffers
}

#[test]
fn the_numbers_are_those_of_the_table() {
    let Some(gpu) = gpu() else { return };
    // As on hardware: short tensors and units share workgroups.
    let options = ClipperOptions::default().workgroup_size(256);
    let finishing = gpu.clipper_with(options.finish(true));
    let apart = gpu.clipper_with(options.finish(false));
    for (what, shapes, clip) in cases() {
        let needed = if clip.adapt.is_some() { ADAPTING } else { REDUCING };
        if (clip.adapt.is_some() || shapes.len() == 1) && !binds(&gpu, needed) {
            continue;
        }
        let grads = arena(&gpu, &shapes, &clip);
        let [finished, staged] = [&finishing, &apart].map(|clipper| counts(clipper, &grads, &clip));
        assert_stated(&format!("| {what} | {finished} | {staged} |"));
    }
    let clip = Clip::global_norm(1.0);
    let grads = arena(&gpu, &[[8, 30], [8, 7]], &clip);
    let other = gpu.upload(&[0; 4 * 300]);
    let parameter = |g: &Grad, i: usize| g.clone().parameter(&other, i as u64 * 960, DType::F32);
    let stepped: Vec<Grad> = grads.iter().enumerate().map(|(i, g)| parameter(g, i)).collect();
    let accumulated: Vec<Grad> =
        grads.iter().enumerate().map(|(i, g)| g.clone().accumulator(&other, i as u64 * 960)).collect();
    let step =
        |clipper: &Clipper, adam: Adam| clipper.prepare_step(&stepped, &clip, adam).unwrap().dispatch_count();
    let accumulate = |clipper: &Clipper| {
        clipper.prepare_clipped_accumulation(&accumulated, &clip).unwrap().dispatch_count()
    };
    for (what, adam) in [("", Adam::adamw(1e-3)), (" that limits updates", Adam::lamb(1e-3))] {
        let [finished, staged] = [&finishing, &apart].map(|clipper| step(clipper, adam));
        assert_stated(&format!("| global, an optimiser's step{what} | {finished} | {staged} |"));
    }
    let [finished, staged] = [&finishing, &apart].map(accumulate);
    assert_stated(&format!("| global, clipped accumulation | {finished} | {staged} |"));
}

/// Where thresholds adapt and the device has too few storage buffers, the stages go apart.
#[test]
fn a_device_that_binds_too_little_takes_more_dispatches() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip::global_norm(1.0).adapt(Adapt::Average { factor: 1.5, decay: 0.9 });
    let grads = arena(&gpu, &[[8, 30], [8, 7]], &clip);
    let finishing = gpu.clipper_with(ClipperOptions::default().finish(true));
    let dispatches = finishing.prepare(&grads, &clip).unwrap().dispatch_count();
    assert_eq!(dispatches, if binds(&gpu, ADAPTING) { 3 } else { 6 });
}

/// What only measures records no dispatch over gradients; what was recorded so stays so, and what is recorded
/// after a threshold was set clips.
#[test]
fn a_measuring_pass_becomes_a_clip_when_it_is_set_to_one() {
    let Some(gpu) = gpu() else { return };
    for finish in [false, true] {
        let clipper = gpu.clipper_with(ClipperOptions::default().finish(finish));
        let before = data(Distribution::Uniform(3.0), 1000, 1);
        let grads = gpu.separate(std::slice::from_ref(&before));
        let pass = clipper.prepare(&grads, &Clip::measure()).unwrap();
        let measuring = pass.dispatch_count();
        let norm = gpu.run(&pass).norm().unwrap();
        // Recorded while it measures, submitted when it no longer does.
        gpu.submit(|encoder| {
            pass.record(encoder);
            pass.record_norm(encoder);
            pass.record_apply(encoder);
            pass.set_threshold(&gpu.queue, norm as f32 / 2.0).unwrap();
            pass.set_unscale(&gpu.queue, 0.5).unwrap();
        });
        assert_eq!(gpu.read::<f32>(grads[0].buffer()), before);
        let outcome = gpu.read::<Outcome>(pass.outcomes())[0];
        assert_eq!((outcome.threshold, outcome.coefficient, outcome.scale), (f32::INFINITY, 1.0, 1.0));
        assert_eq!((outcome.norm, outcome.unscale, outcome.flags), (norm as f32, 1.0, 0));
        // Half of each element, whose norm is the threshold by then.
        assert_eq!(pass.dispatch_count(), measuring + 1);
        let report = gpu.run(&pass);
        assert_eq!((report.norm(), report.clipped(), report.step), (Some(norm / 2.0), false, 4));
        let halves: Vec<f32> = before.iter().map(|x| x / 2.0).collect();
        assert_eq!(gpu.read::<f32>(grads[0].buffer()), halves);
        pass.set_unscale(&gpu.queue, 1.0).unwrap();
        pass.set_threshold(&gpu.queue, f32::INFINITY).unwrap();
        assert_eq!(pass.dispatch_count(), measuring);
    }
}

/// Policies and rules that write gradients without a limit being exceeded keep their dispatch.
#[test]
fn what_may_write_is_no_measurement() {
    let Some(gpu) = gpu() else { return };
    use gradclip::NonFinite::{Nan, Sanitize, Skip, Zero};
    let clip = Clip::measure();
    let counts = |clip: &Clip| {
        let grads = arena(&gpu, &[[2, 3]], clip);
        let pass = gpu.clipper.prepare(&grads, clip).unwrap();
        (pass.dispatch_count(), pass.half_dispatch_counts())
    };
    let least = counts(&clip);
    let writes = [
        clip.on_non_finite(Zero),
        clip.on_non_finite(Sanitize),
        clip.on_non_finite(Nan),
        clip.unscale(0.5),
        Clip::normalize(1.0),
    ];
    for clip in writes {
        assert!(counts(&clip).0 > least.0, "{clip:?}");
    }
    assert_eq!(clip.on_non_finite(Skip), clip);
    // Infinities are kept where values are clamped to infinity.
    let values = [Clip::value(1.0), Clip::value(f32::INFINITY)].map(|clip| counts(&clip).0);
    assert_eq!(values[0], values[1] + 1);
}
