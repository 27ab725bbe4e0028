//! Histories that are saved and restored, and the loss scale that they hold. Nothing here is named by another
//! crate than this one and Burn: what its interface needs it re-exports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use gradclip_burn::{
    Adapt, Axes, Clip, ClipError, Clipper, ClipperOptions, DType, Error, Group, History, LossScale,
    NonFinite, NormType, PlanError, Reaction, ReadBack, ReadBackError, Report, Rule, Scope, SegmentReport,
    TensorReport, Units,
};

use common::{
    Gpu, Pair, assert_same_bits, gpu, mlp, no_group, norm, read, read_parameters, same_as_cpu, tensor,
};

fn zclip() -> Clip {
    let reaction = Reaction::Reciprocal;
    Clip::global_norm(1.0).adapt(Adapt::ZScore { decay: 0.97, z: 2.5, warm_up: 5, reaction })
}

fn saved(clipper: &Clipper) -> History {
    let saved: ReadBack<History> = clipper.save_history().unwrap();
    saved.wait().unwrap()
}

#[test]
fn a_history_goes_on_in_another_clipper() {
    let Some(gpu) = gpu() else { return };
    let first = same_as_cpu(gpu, zclip(), 6, no_group);
    let history = saved(&first);
    assert_eq!(history.steps(), 6);
    let model = mlp(gpu);
    let second = Clipper::new(&gpu.device, &gpu.setup, zclip()).unwrap();
    second.restore_history(History::from_bytes(&history.to_bytes()).unwrap());
    for step in 7..10 {
        let [mut there, mut here] = [0, 1].map(|_| model.grads(step, 1e4, &gpu.device));
        first.clip(&model, &mut there).unwrap();
        second.clip(&model, &mut here).unwrap();
        assert_same_bits("both", &read(&model, &here), &read(&model, &there));
        assert_eq!(second.report().unwrap(), first.report().unwrap());
        assert_eq!(second.report().unwrap().step, step);
    }
    second.restore_history(History::default());
    second.clip(&model, &mut model.grads(0, 1.0, &gpu.device)).unwrap();
    assert_eq!(second.report().unwrap().step, 1, "an empty one begins anew");
}

#[test]
fn a_restored_history_outlives_clips_that_fail() {
    let Some(gpu) = gpu() else { return };
    let first = same_as_cpu(gpu, zclip(), 6, no_group);
    let model = mlp(gpu);
    let refused = Arc::new(AtomicBool::new(false));
    let asked = refused.clone();
    let second = Clipper::new(&gpu.device, &gpu.setup, zclip()).unwrap().groups(move |_| {
        // Under a global norm a group's threshold is an error.
        asked.load(Ordering::Relaxed).then(|| Group::new("all", 1.0))
    });
    second.restore_history(saved(&first));
    let fails = |clipper: &Clipper| {
        let mut grads = model.grads(0, 1e3, &gpu.device);
        let before = read(&model, &grads);
        let error = clipper.clip(&model, &mut grads).unwrap_err();
        assert_same_bits("after an error", &read(&model, &grads), &before);
        error
    };
    // The clip is another one than the history's, and stays so until somebody does something.
    second.set_clip(Clip::global_norm(1e-3)).unwrap();
    for _ in 0..2 {
        let error = fails(&second);
        assert!(matches!(error, Error::Clip(ClipError::State { .. })), "{error}");
        assert!(matches!(second.report(), Err(Error::NothingClipped { .. })));
    }
    second.set_clip(zclip()).unwrap();
    // A clip that cannot be prepared.
    refused.store(true, Ordering::Relaxed);
    assert!(matches!(fails(&second), Error::Prepare(_)));
    refused.store(false, Ordering::Relaxed);
    let [mut there, mut here] = [0, 1].map(|_| model.grads(7, 1e4, &gpu.device));
    first.clip(&model, &mut there).unwrap();
    second.clip(&model, &mut here).unwrap();
    assert_same_bits("both", &read(&model, &here), &read(&model, &there));
    assert_eq!(second.report().unwrap(), first.report().unwrap());
    assert_eq!(second.report().unwrap().step, 7);
    // Once it was used it is not used again.
    second.clip(&model, &mut model.grads(8, 1.0, &gpu.device)).unwrap();
    assert_eq!(second.report().unwrap().step, 8);
}

#[test]
fn a_history_that_is_refused_changes_nothing_of_what_there_is() {
    let Some(gpu) = gpu() else { return };
    let clipper = same_as_cpu(gpu, zclip(), 6, no_group);
    let (model, own) = (mlp(gpu), saved(&clipper));
    let other = same_as_cpu(gpu, Clip::global_norm(1.0).adapt(Adapt::zclip()), 2, no_group);
    let before = clipper.report().unwrap();
    clipper.restore_history(saved(&other));
    let refused = clipper.clip(&model, &mut model.grads(0, 1.0, &gpu.device));
    assert!(matches!(refused, Err(Error::Clip(ClipError::State { .. }))), "{refused:?}");
    assert_eq!(clipper.report().unwrap(), before, "the latest clip's");
    assert_eq!(saved(&clipper), own);
}

#[test]
fn adaptive_thresholds_begin_anew_with_other_parameters_where_asked() {
    let Some(gpu) = gpu() else { return };
    let model = Pair::new(&gpu.device);
    let device = gpu.device.clone().inner();
    let clipper = Clipper::new(&gpu.device, &gpu.setup, Clip::adagc(1.0)).unwrap();
    let mut grads = GradientsParams::new();
    grads.register(model.vector.id, tensor::<1>(1, [7], 1.0, &device));
    clipper.clip(&model, &mut grads).unwrap();
    // Two tensors have two thresholds, and there is the history of one.
    grads.register(model.matrix.id, tensor::<2>(2, [6, 5], 1.0, &device));
    let refused = clipper.clip(&model, &mut grads);
    assert!(matches!(refused, Err(Error::Prepare(_))), "{refused:?}");
    clipper.restore_history(History::default());
    for step in 1..3 {
        clipper.clip(&model, &mut grads).unwrap();
        assert_eq!(clipper.report().unwrap().step, step);
    }
}

fn scale(clipper: &Clipper) -> f32 {
    clipper.loss_scale().unwrap().into_data().try_to_vec::<f32>().unwrap()[0]
}

/// The gradient of a loss, scaled as the clipper says: the norm that it reports is that of the plain loss.
#[track_caller]
fn scaled_step(gpu: &Gpu, model: &Pair, clipper: &Clipper) {
    let loss = model.vector.val().powi_scalar(2).sum() * clipper.loss_scale().unwrap();
    let mut grads = GradientsParams::from_grads(loss.backward(), model);
    clipper.clip(model, &mut grads).unwrap();
    let exact = 2.0 * norm(&read_parameters(model)[1..]);
    let given = clipper.report().unwrap().norm().unwrap();
    assert!((given / exact - 1.0).abs() < 1e-6, "{given} {exact} on {}", gpu.setup.adapter.get_info().name);
}

fn infinite(gpu: &Gpu, model: &Pair) -> GradientsParams {
    let device = gpu.device.clone().inner();
    let mut grads = GradientsParams::new();
    grads.register(model.vector.id, Tensor::<1>::from_floats([f32::INFINITY; 7], &device));
    grads
}

#[test]
fn a_loss_scale_follows_the_gradients() {
    let Some(gpu) = gpu() else { return };
    let model = Pair::new(&gpu.device);
    let clip = Clip::global_norm(1.0).loss_scale(LossScale::default().initial(1024.0));
    let clipper = Clipper::new(&gpu.device, &gpu.setup, clip).unwrap();
    assert_eq!(scale(&clipper), 1024.0);
    clipper.clip(&model, &mut infinite(gpu, &model)).unwrap();
    assert_eq!(scale(&clipper), 512.0);
    // It takes part in a backward pass.
    scaled_step(gpu, &model, &clipper);
}

#[test]
fn a_loss_scale_is_the_one_that_the_next_clip_divides_by() {
    let Some(gpu) = gpu() else { return };
    let model = Pair::new(&gpu.device);
    let scaled = Clip::global_norm(1.0).loss_scale(LossScale::default().initial(1024.0));
    let new = || Clipper::new(&gpu.device, &gpu.setup, scaled).unwrap();
    let first = new();
    first.clip(&model, &mut infinite(gpu, &model)).unwrap();
    // Before the first clip of another clipper, too.
    let second = new();
    second.restore_history(saved(&first));
    assert_eq!(scale(&second), 512.0);
    scaled_step(gpu, &model, &second);
    // Over a clip that adapts otherwise, where all begins anew, and back.
    for (clip, required) in [(scaled.adapt(Adapt::zclip()), 1024.0), (Clip::global_norm(1.0), 1.0)] {
        first.set_clip(clip).unwrap();
        assert_eq!(scale(&first), required);
        first.set_clip(scaled).unwrap();
        assert_eq!(scale(&first), 512.0, "nothing was clipped in between");
        first.set_clip(clip).unwrap();
        scaled_step(gpu, &model, &first);
        first.set_clip(scaled).unwrap();
        assert_eq!(scale(&first), 1024.0, "it begins anew");
        first.clip(&model, &mut infinite(gpu, &model)).unwrap();
    }
    // Over one that only limits otherwise it goes on.
    first.set_clip(scaled.scope(Scope::Tensor)).unwrap();
    assert_eq!(scale(&first), 512.0);
    scaled_step(gpu, &model, &first);
}

#[test]
fn what_the_interface_needs_is_exported() {
    let Some(gpu) = gpu() else { return };
    let model = Pair::new(&gpu.device);
    let clip = Clip::global_norm(1.0)
        .norm_type(NormType::Two)
        .rule(Rule::Norm)
        .scope(Scope::Tensor)
        .on_non_finite(NonFinite::Skip)
        .adapt(Adapt::zclip())
        .loss_scale(LossScale::default());
    let options = ClipperOptions::default().read_backs(2).workgroup_size(64);
    let clipper = Clipper::with_options(&gpu.device, &gpu.setup, clip, options).unwrap();
    let mut grads = GradientsParams::new();
    grads.register(model.vector.id, tensor::<1>(1, [7], 1.0, &gpu.device.clone().inner()));
    clipper.clip(&model, &mut grads).unwrap();
    let report: Report = clipper.report().unwrap();
    let (segment, tensor): (&SegmentReport, &TensorReport) = (&report.segments[0], &report.tensors[0]);
    assert_eq!((segment.norm, tensor.dtype), (tensor.norm, DType::F32));
    let polled: Option<Result<Report, ReadBackError>> = clipper.poll();
    assert!(polled.is_none_or(|p| p.is_ok()));
    assert_ne!(Units::Over(Axes::default()), Units::over(&[0]));
    // An option out of its range is refused and not changed.
    let none = ClipperOptions::default().read_backs(0);
    let error = Clipper::with_options(&gpu.device, &gpu.setup, Clip::global_norm(1.0), none).unwrap_err();
    assert!(matches!(error, Error::Plan(PlanError::Option { option: "read_backs", .. })), "{error}");
}
