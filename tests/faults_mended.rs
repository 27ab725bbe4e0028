//! What users lost a run or an afternoon to, one test each: halves unscaled in place, half a buffer
//! covered, histories that stay at their first step, results of nothing, and words that mislead.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::gpu;
use gradclip::cpu::{self, GradMut, SumMut};
use gradclip::plan::{Placement, Plan, PlanLimits};
use gradclip::{
    Adam, Adapt, Clip, ClipError, Clipper, ClipperOptions, DType, Grad, History, LossScale, PlanError,
    PrepareError, ReadBackError, Session, Sgd, StepError, Target, Telemetry, Units,
};
use gradclip::{adapters, is_software};
use half::f16;

/// 64 halves of 0.001 and a loss scale of 65,536: in place, nothing would be left of them.
#[test]
fn halves_are_not_unscaled_in_place_unless_asked() {
    let mut halves = [f16::from_f32(0.001); 64];
    let before = halves;
    let clip = Clip::global_norm(1.0).unscale(1.0 / 65_536.0);
    let error = cpu::clip(&mut [GradMut::f16("h", &mut halves)], &clip).unwrap_err();
    assert!(matches!(&error, ClipError::LossyUnscale { tensor, scaled: false, .. } if tensor == "h"));
    let words = error.to_string();
    assert!(words.contains("lossy_unscale") && words.contains("a step"), "{words}");
    let scaled = Clip::global_norm(1.0).loss_scale(LossScale::default());
    let grads = &mut [GradMut::f16("h", &mut halves)];
    let error = cpu::clip_with(grads, &scaled, &mut History::default()).unwrap_err();
    assert!(matches!(error, ClipError::LossyUnscale { scaled: true, .. }));
    assert_eq!(halves, before);
    let report = cpu::clip(&mut [GradMut::f16("h", &mut halves)], &clip.lossy_unscale(true)).unwrap();
    assert!(report.norm().unwrap() > 0.0 && halves == [f16::ZERO; 64]);

    let Some(gpu) = gpu() else { return };
    let buffer = gpu.upload(bytemuck::cast_slice(&before));
    let p = gpu.upload(&[0; 256]);
    let grads = [Grad::new("h", &buffer).dtype(DType::F16).parameter(&p, 0, DType::F32)];
    for clip in [clip, scaled] {
        let refused = gpu.clipper.prepare(&grads, &clip).unwrap_err();
        assert!(matches!(refused, PrepareError::Clip(ClipError::LossyUnscale { .. })), "{refused}");
        assert!(gpu.clipper.prepare(&grads, &clip.lossy_unscale(true)).is_ok());
    }
    let pass = gpu.clipper.prepare(&grads, &Clip::global_norm(1.0)).unwrap();
    assert!(matches!(pass.set_unscale(&gpu.queue, 0.5), Err(ClipError::LossyUnscale { .. })));
    assert!(pass.set_unscale(&gpu.queue, 1.0).is_ok());
    // A step reads them as f32 and loses nothing; its clip by itself writes no gradient.
    let stepper = gpu.clipper.prepare_step(&grads, &clip, Sgd::new(1.0)).unwrap();
    gpu.submit(|encoder| {
        stepper.pass().record(encoder);
        stepper.record_step(encoder);
    });
    assert_eq!(gpu.read::<f16>(&buffer), before);
    let moved = f32::from(before[0]) / 65_536.0;
    assert!(gpu.read::<f32>(&p).iter().all(|&x| x == -moved), "{moved:e}");
}

#[test]
fn a_gradient_is_its_whole_buffer_whatever_its_type() {
    let Some(gpu) = gpu() else { return };
    let halves = [f16::from_f32(10.0); 8];
    let buffer = gpu.upload(bytemuck::cast_slice(&halves));
    let grad = Grad::new("h", &buffer).dtype(DType::F16);
    assert_eq!(grad.elements(), 8);
    let report = gpu.run(&gpu.clipper.prepare(&[grad], &Clip::global_norm(1.0)).unwrap());
    assert_eq!(report.norm(), Some(f64::from(800f32.sqrt())));
    assert!(gpu.read::<f16>(&buffer).iter().all(|x| x.to_f32() < 0.4));
    // A number that was given stays, whatever comes first.
    assert_eq!(Grad::range("h", &buffer, 4, 3).dtype(DType::F16).elements(), 3);
    assert_eq!(Grad::new("w", &buffer).elements(), 4);
    let double = gpu.clipper.prepare(&[Grad::new("d", &buffer).dtype(DType::F64)], &Clip::measure());
    let refused = double.unwrap_err();
    assert!(matches!(refused, PrepareError::Plan(PlanError::DType { given: DType::F64, .. })), "{refused}");
}

/// Norms 1, 1, 1, 100 under the mean of earlier ones: without a history 100 used to come back unchanged.
#[test]
fn thresholds_that_remember_need_a_history() {
    let clip = Clip::global_norm(f32::INFINITY).adapt(Adapt::Mean { factor: 1.5, window: 10 });
    for clip in [clip, Clip::global_norm(1.0).loss_scale(LossScale::default())] {
        let mut g = [100.0f32];
        let error = cpu::clip(&mut [GradMut::new("g", &mut g)], &clip).unwrap_err();
        assert!(error.to_string().contains("clip_with"), "{error}");
        assert!(cpu::clip_traced(&mut [GradMut::new("g", &mut g)], &clip).is_err());
    }
    for target in [Target::Cpu, Target::Gpu] {
        let Ok(session) = Session::open(&target) else { continue };
        for _ in 0..2 {
            for (norm, left) in [(1.0f32, 1.0f32), (1.0, 1.0), (1.0, 1.0), (100.0, 1.5)] {
                let mut g = [norm];
                session.clip(&mut [GradMut::new("g", &mut g)], &clip).unwrap();
                assert_eq!(g, [left], "{target:?}");
                // Clips that remember nothing do not disturb those that do.
                let plain = session.clip(&mut [GradMut::new("g", &mut [1.0])], &Clip::measure()).unwrap();
                assert_eq!(plain.step, 1);
            }
            session.forget();
        }
    }
}

#[test]
fn results_of_nothing_are_no_results() {
    let Some(gpu) = gpu() else { return };
    let grads = gpu.separate(&[vec![3.0, 4.0]]);
    let pass = gpu.clipper.prepare(&grads, &Clip::global_norm(1.0)).unwrap();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    assert!(matches!(pass.read_back(&mut encoder), Err(ReadBackError::Undecided)));
    pass.record_norm(&mut encoder);
    assert!(matches!(pass.read_back(&mut encoder), Err(ReadBackError::Undecided)));
    gpu.queue.submit([encoder.finish()]);
    // Recorded, but never run.
    let mut dropped = gpu.device.create_command_encoder(&Default::default());
    pass.record_apply(&mut dropped);
    drop(dropped);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let early = pass.read_back(&mut encoder).unwrap();
    gpu.queue.submit([encoder.finish()]);
    assert_eq!(early.wait(), Err(ReadBackError::Undecided));
    assert_eq!(gpu.run(&pass).norm(), Some(5.0));
}

/// Infinity used to become null, which is no number.
#[cfg(feature = "serde")]
#[test]
fn clips_come_back_from_json() {
    use gradclip::{NonFinite, NormType, Rule, Scope};
    for clip in [
        Clip::measure(),
        Clip::adagc(1.0),
        Clip::adagc(f32::INFINITY),
        Clip::global_norm(0.1),
        Clip::pytorch(1.0).norm_type(NormType::P(f64::INFINITY)),
        Clip::per_tensor_norm(f32::INFINITY).total(f32::INFINITY).never_above(true),
        Clip::agc(0.01, Units::over(&[1, 2])).on_non_finite(NonFinite::Zero),
        Clip::block_rms(1.0).scope(Scope::Row).rule(Rule::Average).loss_scale(LossScale::default()),
    ] {
        let text = serde_json::to_string(&clip).unwrap();
        assert!(!text.contains("null,\"rule") && !text.contains("threshold\":null"), "{text}");
        assert_eq!(serde_json::from_str::<Clip>(&text).unwrap(), clip, "{text}");
    }
    // What an earlier version wrote has no field for what came since.
    let text = serde_json::to_string(&Clip::global_norm(1.0)).unwrap();
    let older = text.replace(",\"never_above\":null", "").replace("\"lossy_unscale\":false,", "");
    assert_eq!(serde_json::from_str::<Clip>(&older).unwrap(), Clip::global_norm(1.0));
    for wrong in ["\"infinite\"", "true", "null"] {
        let text = text.replacen("1.0", wrong, 1);
        assert!(serde_json::from_str::<Clip>(&text).is_err(), "{text}");
    }
    let mut g = [f32::NAN, 1.0];
    let report = cpu::clip(&mut [GradMut::new("g", &mut g)], &Clip::measure()).unwrap();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        (&json["segments"][0]["norm"], &json["segments"][0]["threshold"]),
        (&"nan".into(), &"inf".into())
    );
}

/// State used to be allocated before anybody looked whether the ranges made sense.
#[test]
fn absurd_counts_are_refused_before_anything_is_allocated() {
    let Some(gpu) = gpu() else { return };
    let (g, p) = (gpu.upload(&[0; 64]), gpu.upload(&[0; 64]));
    for elements in [17, 1 << 40, 1 << 62, u64::MAX / 4, u64::MAX] {
        let grad = Grad::range("w", &g, 0, elements).parameter(&p, 0, DType::F32);
        let refused = gpu
            .clipper
            .prepare_step(std::slice::from_ref(&grad), &Clip::measure(), Adam::new(0.1))
            .unwrap_err();
        assert!(matches!(refused, PrepareError::Plan(_)), "{elements}: {refused}");
        assert!(gpu.clipper.prepare(&[grad], &Clip::measure()).is_err());
    }
    let short = gpu.upload(&[0; 32]);
    let grad = Grad::new("w", &g).parameter(&short, 0, DType::F32);
    let refused = gpu.clipper.prepare_step(&[grad], &Clip::measure(), Adam::new(0.1)).unwrap_err();
    assert!(matches!(refused, PrepareError::Plan(PlanError::OutOfRange { .. })), "{refused}");
}

#[test]
fn histories_count_as_memory_and_against_limits() {
    let limits = PlanLimits::new(&wgpu::Limits::default(), 256).unwrap();
    let tensor = |i| Placement {
        name: format!("t{i}"),
        buffer: i,
        buffer_size: 64,
        elements: 16,
        ..Placement::default()
    };
    let tensors: Vec<Placement> = (0..1024).map(tensor).collect();
    let plain = Plan::new(&tensors, &Clip::per_tensor_norm(1.0), &limits).unwrap().scratch_bytes();
    let adapt = |window| Clip::per_tensor_norm(1.0).adapt(Adapt::Percentile { percentile: 10.0, window });
    let with = Plan::new(&tensors, &adapt(10_000), &limits).unwrap().scratch_bytes();
    // A norm a step, and a state of 36 bytes, for each of 1,024 tensors.
    assert_eq!(with - plain, 1024 * (10_000 * 4 + 36));
    // 268 MB of norms, where a binding holds 134.
    let refused = Plan::new(&tensors, &adapt(65_536), &limits).unwrap_err();
    let PrepareError::Plan(PlanError::TooLarge { what, required, given }) = refused else {
        panic!("{refused}")
    };
    assert_eq!((what, required, given), ("norms that adaptive thresholds remember", 1 << 25, 1 << 26));
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let Some(gpu) = gpu() else { return };
    let options = ClipperOptions::default();
    for (options, words) in [
        (options.workgroup_size(512), "workgroup_size: required a power of two from 32 to 256, given 512"),
        (options.workgroup_size(48), "workgroup_size: required a power of two from 32 to 256, given 48"),
        (options.max_slots(0), "max_slots: required 1 to 30, given 0"),
        (options.max_slots(31), "max_slots: required 1 to 30, given 31"),
        (options.read_backs(0), "read_backs: required 1 or more, given 0"),
    ] {
        let refused = Clipper::with_options(&gpu.device, options).unwrap_err();
        assert!(matches!(refused, PlanError::Option { .. }));
        assert_eq!(refused.to_string(), words);
    }
}

/// Names come from files; an error is one line whatever they hold.
#[test]
fn names_are_escaped_in_errors() {
    let mut g = [f32::NAN];
    let grads = &mut [GradMut::new("a\nb\u{202e}c\u{1b}[31m", &mut g)];
    let words = cpu::clip(grads, &Clip::agc(0.1, Units::OutputFirst)).unwrap_err().to_string();
    assert!(words.contains("a\\nb\\u{202e}c\\u{1b}[31m") && !words.contains('\n'), "{words}");
}

/// One encoder that was neither submitted nor dropped used to stop all later reports.
#[test]
fn a_forgotten_encoder_holds_up_no_report() {
    let Some(gpu) = gpu() else { return };
    let grads = gpu.separate(&[vec![3.0, 4.0]]);
    let pass = gpu.clipper.prepare(&grads, &Clip::measure()).unwrap();
    let mut telemetry = Telemetry::default();
    let mut forgotten = gpu.device.create_command_encoder(&Default::default());
    pass.record(&mut forgotten);
    telemetry.record(&pass, &mut forgotten);
    let mut steps = Vec::new();
    for _ in 0..5 {
        gpu.submit(|encoder| {
            pass.record(encoder);
            telemetry.record(&pass, encoder);
        });
        gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        while let Some(report) = telemetry.poll() {
            steps.push(report.unwrap().step);
        }
    }
    assert_eq!((steps, telemetry.dropped(), telemetry.len()), (vec![1, 2, 3, 4, 5], 0, 1));
    // It comes late, but it comes.
    gpu.queue.submit([forgotten.finish()]);
    gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    assert_eq!(telemetry.poll().unwrap().unwrap().step, 6);
}

/// Clipped accumulation relative to parameters, on both paths; and the thresholds of an accumulator.
#[test]
fn accumulation_under_agc_and_other_thresholds() {
    let (g, p) = ([3.0f32, 4.0, 0.0, 0.1], [0.6f32, 0.8, 1.0, 1.0]);
    let clip = Clip::agc(0.5, Units::OutputFirst);
    let mut sum = [f32::NAN; 4];
    let missing = &mut [SumMut::new("w", &g[..], &mut sum).shape(&[2, 2])];
    assert!(cpu::accumulate_clipped(missing, true, &clip, &mut History::default()).is_err());
    let sums = &mut [SumMut::new("w", &g[..], &mut sum).shape(&[2, 2]).parameter(&p[..])];
    cpu::accumulate_clipped(sums, true, &clip, &mut History::default()).unwrap();
    assert_eq!(sum, [0.3, 0.4, 0.0, 0.1]);
    let Some(gpu) = gpu() else { return };
    let [grad, parameter] = [g, p].map(|v| gpu.upload(bytemuck::cast_slice(&v)));
    let to = gpu.upload(&[0; 16]);
    let grads =
        [Grad::new("w", &grad).shape(&[2, 2]).parameter(&parameter, 0, DType::F32).accumulator(&to, 0)];
    let accumulator = gpu.clipper.prepare_clipped_accumulation(&grads, &clip).unwrap();
    for threshold in [0.5f32, 1.0] {
        accumulator.set_threshold(&gpu.queue, threshold).unwrap();
        gpu.submit(|encoder| accumulator.record_first(encoder));
        let want = if threshold == 0.5 { sum } else { [0.6, 0.8, 0.0, 0.1] };
        assert_eq!(gpu.read::<f32>(&to), want);
    }
}

/// A loss scale of 0 or NaN, from a disk, would make every later gradient NaN.
#[test]
fn histories_that_no_step_leaves_are_refused() {
    let clip = Clip::global_norm(1.0).loss_scale(LossScale::default()).adapt(Adapt::zclip());
    let mut history = History::default();
    let mut g = [1.0f32];
    cpu::clip_with(&mut [GradMut::new("g", &mut g)], &clip, &mut history).unwrap();
    let bytes = history.to_bytes();
    assert_eq!(History::from_bytes(&bytes).unwrap(), history);
    let scale = bytes.windows(4).position(|w| w == 65_536f32.to_le_bytes()).unwrap();
    let norm = bytes.windows(4).rposition(|w| w == (1.0f32 / 65_536.0).to_le_bytes()).unwrap();
    for (at, values) in
        [(scale, vec![0.0, f32::NAN, f32::INFINITY, -1.0]), (norm, vec![f32::NAN, -1.0, f32::INFINITY])]
    {
        for value in values {
            let mut spoilt = bytes.clone();
            spoilt[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let refused = History::from_bytes(&spoilt).unwrap_err();
            assert!(matches!(refused, ClipError::State { .. }), "{value}: {refused}");
        }
    }
}

/// A software adapter is many times slower than the CPU path on the same cores: it has to be named.
#[test]
fn auto_takes_no_software_adapter_and_falls_back() {
    let session = Session::open(&Target::Auto).unwrap();
    assert!(session.adapter().is_none_or(|info| !is_software(info)));
    let adapters = adapters();
    if !adapters.is_empty() && adapters.iter().all(|a| is_software(&a.get_info())) {
        assert!(session.adapter().is_none() && Session::open(&Target::Gpu).unwrap().adapter().is_some());
    }
    for adapter in adapters {
        assert!(PlanLimits::new(&Clipper::recommended_limits(&adapter), 128).is_ok());
    }
    // What no adapter takes goes to the CPU path.
    let mut double = [3.0f64, 4.0];
    let report = session.clip(&mut [GradMut::f64("d", &mut double)], &Clip::global_norm(1.0)).unwrap();
    assert_eq!(report.norm(), Some(5.0));
    assert_eq!(session.fallback().is_some(), session.adapter().is_some());
    if let Ok(gpu) = Session::open(&Target::Gpu) {
        let refused = gpu.clip(&mut [GradMut::f64("d", &mut double)], &Clip::measure()).unwrap_err();
        assert!(refused.to_string().contains("`d`") && refused.to_string().contains("f64"), "{refused}");
    }
}

/// Tensors of both widths and odd lengths lie side by side on the device; each is clipped and comes back as itself.
#[test]
fn many_tensors_come_back_to_their_own() {
    let Ok(session) = Session::open(&Target::Gpu) else { return };
    let lengths = (0..3000).map(|i| 1 + i % 5);
    let mut words: Vec<Vec<f32>> = lengths.clone().map(|n| vec![n as f32; n]).collect();
    let mut halves: Vec<Vec<f16>> = lengths.map(|n| vec![f16::from_f32(n as f32); n]).collect();
    let both = words.iter_mut().zip(&mut halves);
    let mut grads: Vec<GradMut<'_>> =
        both.flat_map(|(w, h)| [GradMut::new("word", w), GradMut::f16("half", h)]).collect();
    // The norm of n elements of n is n√n: 1, 2.8, 5.2, 8 and 11.2. The first two kinds do not come back.
    session.clip(&mut grads, &Clip::per_tensor_norm(5.0)).unwrap();
    for (word, half) in words.iter().zip(&halves) {
        let n = word.len() as f64;
        let right = n * (5.0 / (n * n.sqrt())).min(1.0);
        // Of f32 a rounding of the coefficient and one of the product, of f16 its own on top.
        assert!(word.iter().all(|&x| (f64::from(x) / right - 1.0).abs() < 2.0 * 2f64.powi(-23)), "{word:?}");
        assert!(half.iter().all(|&x| (f64::from(x) / right - 1.0).abs() < 2f64.powi(-10)), "{half:?}");
    }
}

#[test]
fn f64_gradients_are_refused_in_steps_by_name() {
    let (g, mut p) = ([1.0f64], [0.0f32]);
    let steps = &mut [cpu::StepMut::new("w", &g[..], &mut p)];
    let refused = cpu::step(
        steps,
        &Clip::measure(),
        Sgd::new(1.0),
        &mut History::default(),
        &mut cpu::Moments::default(),
    );
    assert!(matches!(refused, Err(StepError::Clip(ClipError::Tensor { ref given, .. })) if given == "f64"));
}
