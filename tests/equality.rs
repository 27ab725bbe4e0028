//! The GPU's records equal the CPU's in every bit: whatever the data, the order of the tensors,
//! their placing, the workgroup size and the number of slots. Run on several drivers, this makes
//! the drivers equal to each other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Gpu, KINDS, Kind, data, gpu};
use gradclip::cpu::{self, GradMut, Trace};
use gradclip::layout::{CHUNK, Outcome, Partial, Sum};
use gradclip::{Clip, ClipperOptions, Grad, NonFinite, NormType, Pass};

const SIZES: [usize; 20] =
    [0, 1, 3, 4, 5, 15, 16, 17, 255, 256, 257, 1023, 1024, 1025, 4097, 16383, 16384, 16385, 49152, 100_003];

fn cpu_trace(tensors: &[Vec<f32>], clip: &Clip) -> (Trace, Vec<Vec<f32>>) {
    let mut tensors = tensors.to_vec();
    let mut grads: Vec<_> =
        tensors.iter_mut().enumerate().map(|(i, t)| GradMut::new(format!("t{i}"), t)).collect();
    let trace = cpu::clip_traced(&mut grads, clip).unwrap();
    (trace, tensors)
}

/// Every record that a pass left, against the CPU's.
fn assert_same_records(gpu: &Gpu, pass: &Pass, trace: &Trace, what: &str) {
    let partials = gpu.read::<Partial>(pass.partials());
    for (i, (ours, theirs)) in trace.partials.iter().zip(&partials).enumerate() {
        assert_eq!(theirs, ours, "{what}: partial of chunk {i} on {}", gpu.name);
    }
    let tensors = gpu.read::<Sum>(pass.tensor_sums());
    assert_eq!(&tensors[..trace.tensor_sums.len()], trace.tensor_sums, "{what}: tensors");
    assert_eq!(gpu.read::<Sum>(pass.segment_sums()), trace.segment_sums, "{what}: segments");
    let outcomes = gpu.read::<Outcome>(pass.outcomes());
    // As bytes: a NaN norm equals itself.
    assert_eq!(
        bytemuck::cast_slice::<_, u32>(&outcomes),
        bytemuck::cast_slice::<_, u32>(&trace.outcomes),
        "{what}: {outcomes:?} on {}, {:?} on the CPU",
        gpu.name,
        trace.outcomes
    );
}

fn check(gpu: &Gpu, grads: &[Grad], clip: &Clip, trace: &Trace, what: &str) {
    let pass = gpu.clipper.prepare(grads, clip).unwrap();
    gpu.run(&pass);
    assert_same_records(gpu, &pass, trace, what);
}

#[test]
fn every_size_and_kind_of_data() {
    let Some(gpu) = gpu() else { return };
    for norm in [NormType::Two, NormType::One, NormType::Inf] {
        for kind in KINDS {
            let tensors: Vec<_> = SIZES.iter().map(|&n| data(kind, n, 1)).collect();
            let clip = Clip::global_norm(0.5).norm_type(norm);
            let (trace, after) = cpu_trace(&tensors, &clip);
            let grads = gpu.separate(&tensors);
            let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
            gpu.run(&pass);
            let what = format!("{kind:?} {norm:?}");
            assert_same_records(&gpu, &pass, &trace, &what);
            let written = common::contents(&gpu, &grads, &tensors);
            assert!(common::bits(&written) == common::bits(&after), "{what}: gradients on {}", gpu.name);
            let Outcome { scale, rescale, .. } = trace.outcomes[0];
            // f64 holds the product exactly; the cast is the one rounding.
            let factor = f64::from(scale) * f64::from(rescale) * f64::from(rescale);
            for (b, a) in tensors.iter().flatten().zip(after.iter().flatten()) {
                assert_eq!(*a, (f64::from(*b) * factor) as f32, "{what}: {b:e} * {factor:e}");
            }
        }
    }
}

#[test]
fn every_workgroup_size_and_number_of_slots() {
    let Some(gpu) = gpu() else { return };
    let tensors: Vec<_> = (0..23).map(|i| data(Kind::Bits, 1 + i * 1777, i as u64)).collect();
    let clip = Clip::global_norm(1.0);
    let (trace, _) = cpu_trace(&tensors, &clip);
    for (workgroup_size, max_slots) in [(32, 3), (64, 1), (64, 2), (128, 5), (256, 30)] {
        let options = ClipperOptions::default().workgroup_size(workgroup_size).max_slots(max_slots);
        let pass = gpu.clipper_with(options).prepare(&gpu.separate(&tensors), &clip).unwrap();
        gpu.run(&pass);
        assert_same_records(&gpu, &pass, &trace, &format!("workgroup {workgroup_size}, {max_slots} slots"));
    }
}

/// Several short chunks in a workgroup: any length, beside long ones, a last workgroup that is not full.
#[test]
fn short_chunks_that_share_workgroups() {
    let Some(gpu) = gpu() else { return };
    // As many as fill 1,024 workgroups of 256, which hardware has at least.
    let len = |i: usize| if i.is_multiple_of(16) { 1 + i * 37 % 1024 } else { 1 + i % 40 };
    let mut tensors: Vec<_> = (0..16_500).map(|i| data(KINDS[i % 12], len(i), i as u64)).collect();
    tensors.insert(500, data(Kind::Bits, 20_000, 7));
    (tensors[17][0], tensors[18][0], tensors[18][1]) = (f32::NAN, f32::INFINITY, f32::NAN);
    for norm in [NormType::Two, NormType::One, NormType::Inf] {
        let clip = Clip::global_norm(0.5).norm_type(norm).on_non_finite(NonFinite::Zero);
        let (trace, _) = cpu_trace(&tensors, &clip);
        for workgroup_size in [32, 64, 256] {
            let options = ClipperOptions::default().workgroup_size(workgroup_size);
            let grads = gpu.arena(&tensors, 3, 1);
            let pass = gpu.clipper_with(options).prepare(&grads, &clip).unwrap();
            let short: usize = pass.plan().dispatches.iter().map(|d| d.short.len()).sum();
            assert!(short > 0, "none on {}", gpu.name);
            gpu.run(&pass);
            assert_same_records(&gpu, &pass, &trace, &format!("{norm:?}, workgroup {workgroup_size}"));
        }
    }
}

#[test]
fn every_placing() {
    let Some(gpu) = gpu() else { return };
    let mut tensors: Vec<_> = (0..40).map(|i| data(Kind::Bits, (i * i * 37) % 20_000, i as u64)).collect();
    tensors.push(data(Kind::Alternating, 3 * CHUNK as usize + 7, 99));
    let clip = Clip::global_norm(1.0);
    let (trace, _) = cpu_trace(&tensors, &clip);
    check(&gpu, &gpu.separate(&tensors), &clip, &trace, "separate buffers");
    for (lead, gap) in [(0, 0), (1, 0), (0, 1), (3, 5), (63, 1), (64, 64), (65, 63)] {
        check(&gpu, &gpu.arena(&tensors, lead, gap), &clip, &trace, &format!("arena {lead} {gap}"));
    }
    // Some in arenas, some alone, interleaved.
    let (alone, arena) = (gpu.separate(&tensors), gpu.arena(&tensors, 7, 2));
    let mixed: Vec<_> =
        (0..tensors.len()).map(|i| if i % 3 == 0 { &alone } else { &arena }[i].clone()).collect();
    check(&gpu, &mixed, &clip, &trace, "mixed");
}

#[test]
fn every_order_gives_the_same_norm_and_coefficient() {
    let Some(gpu) = gpu() else { return };
    let mut tensors: Vec<_> = (0..30).map(|i| data(KINDS[i % 12], i * 997, i as u64)).collect();
    let clip = Clip::global_norm(1e10);
    let (first, _) = cpu_trace(&tensors, &clip);
    let mut random = common::Random(5);
    for _ in 0..5 {
        for i in (1..tensors.len()).rev() {
            tensors.swap(i, random.bits() as usize % (i + 1));
        }
        let (trace, _) = cpu_trace(&tensors, &clip);
        assert_eq!(trace.segment_sums, first.segment_sums);
        assert_eq!(trace.outcomes, first.outcomes);
        check(&gpu, &gpu.separate(&tensors), &clip, &trace, "shuffled");
    }
}

#[test]
fn numbers_of_tensors_around_the_edges() {
    let Some(gpu) = gpu() else { return };
    for count in [1, 2, 7, 8, 9, 148, 1000] {
        let tensors: Vec<_> = (0..count).map(|i| data(Kind::Uniform(1.0), 1 + i % 61, i as u64)).collect();
        for clip in [Clip::global_norm(1.0), Clip::per_tensor_norm(1.0)] {
            let (trace, _) = cpu_trace(&tensors, &clip);
            check(&gpu, &gpu.separate(&tensors), &clip, &trace, &format!("{count} separate"));
            check(&gpu, &gpu.arena(&tensors, 0, 0), &clip, &trace, &format!("{count} in an arena"));
        }
    }
}

#[test]
fn non_finite_elements_under_every_policy() {
    let Some(gpu) = gpu() else { return };
    let mut tensors: Vec<_> = [5, 40_000, 300].iter().map(|&n| data(Kind::Uniform(2.0), n, 3)).collect();
    tensors[1][17_000] = f32::INFINITY;
    tensors[1][20_000] = f32::NEG_INFINITY;
    for nan in [false, true] {
        if nan {
            tensors[2][299] = f32::from_bits(0xffc0_1234);
        }
        for policy in [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan] {
            for clip in [Clip::global_norm(1.0), Clip::per_tensor_norm(1.0)] {
                let clip = clip.on_non_finite(policy);
                let (trace, after) = cpu_trace(&tensors, &clip);
                assert_eq!(trace.report.non_finite(), if nan { 3 } else { 2 });
                assert_eq!(trace.report.first_non_finite(), Some("t1"));
                let grads = gpu.separate(&tensors);
                let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
                let report = gpu.run(&pass);
                assert_same_records(&gpu, &pass, &trace, &format!("{policy:?}"));
                assert_eq!(format!("{report:?}"), format!("{:?}", trace.report));
                let written = common::contents(&gpu, &grads, &tensors);
                // NaN is NaN, whatever its payload.
                let plain = |t: &[Vec<f32>]| -> Vec<Vec<u32>> {
                    let one = |x: &f32| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
                    t.iter().map(|t| t.iter().map(one).collect()).collect()
                };
                assert_eq!(plain(&written), plain(&after), "{policy:?} on {}", gpu.name);
            }
        }
    }
}

#[test]
fn unscale_and_eps() {
    let Some(gpu) = gpu() else { return };
    let tensors: Vec<_> = (0..5).map(|i| data(Kind::Uniform(1e3), 5000, i)).collect();
    for unscale in [1.0, 1.0 / 1024.0, 0.001, 1e-30, 1e30, f32::from_bits(1)] {
        for eps in [0.0, 1e-6, 1.0, 1e30] {
            for threshold in [0.0, 1e-40, 1e-3, 10.0, f32::INFINITY] {
                let clip = Clip::global_norm(threshold).unscale(unscale).eps(eps);
                let (trace, _) = cpu_trace(&tensors, &clip);
                let what = format!("unscale {unscale:e}, eps {eps:e}, threshold {threshold:e}");
                check(&gpu, &gpu.arena(&tensors, 0, 0), &clip, &trace, &what);
            }
        }
    }
}
