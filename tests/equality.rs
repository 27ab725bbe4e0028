//! The GPU's records equal the CPU's in every bit: whatever the data, the order of the tensors,
//! their placing, the workgroup size and the number of slots. Run on several drivers, this makes
//! the drivers equal to each other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{DISTRIBUTIONS, Distribution, NORMS, Placing, Random, data, gpu, named};
use gradclip::layout::{CHUNK, Outcome};
use gradclip::{Clip, ClipperOptions, NonFinite};

const SIZES: [usize; 20] =
    [0, 1, 3, 4, 5, 15, 16, 17, 255, 256, 257, 1023, 1024, 1025, 4097, 16383, 16384, 16385, 49152, 100_003];

#[test]
fn every_size_and_kind_of_data() {
    let Some(gpu) = gpu() else { return };
    for norm in NORMS {
        for kind in DISTRIBUTIONS {
            let tensors = named(SIZES.map(|n| data(kind, n, 1)));
            let (trace, after) = gpu.same(&tensors, &Clip::global_norm(0.5).norm_type(norm));
            let Outcome { scale, rescale, .. } = trace.outcomes[0];
            // f64 holds the product exactly; the cast is the one rounding.
            let factor = f64::from(scale) * f64::from(rescale) * f64::from(rescale);
            for (b, a) in tensors.iter().zip(&after).flat_map(|(b, a)| b.data.values().zip(a.data.values())) {
                assert_eq!(a, f64::from((b * factor) as f32), "{kind:?} {norm:?}: {b:e} * {factor:e}");
            }
        }
    }
}

#[test]
fn every_workgroup_size_and_number_of_slots() {
    let Some(gpu) = gpu() else { return };
    let tensors = named((0..23).map(|i| data(Distribution::Bits, 1 + i * 1777, i as u64)));
    for (workgroup_size, max_slots) in [(32, 3), (64, 1), (64, 2), (128, 5), (256, 30)] {
        let options = ClipperOptions::default().workgroup_size(workgroup_size).max_slots(max_slots);
        gpu.same_in(&gpu.clipper_with(options), &tensors, Placing::APART, &Clip::global_norm(1.0));
    }
}

/// Several short chunks in a workgroup: any length, beside long ones, a last workgroup that is not full.
#[test]
fn short_chunks_that_share_workgroups() {
    let Some(gpu) = gpu() else { return };
    // As many as fill 1,024 workgroups of 256, which hardware has at least.
    let len = |i: usize| if i.is_multiple_of(16) { 1 + i * 37 % 1024 } else { 1 + i % 40 };
    let mut tensors: Vec<_> = (0..16_500).map(|i| data(DISTRIBUTIONS[i % 12], len(i), i as u64)).collect();
    tensors.insert(500, data(Distribution::Bits, 20_000, 7));
    (tensors[17][0], tensors[18][0], tensors[18][1]) = (f32::NAN, f32::INFINITY, f32::NAN);
    let tensors = named(tensors);
    let placing = Placing::arena(12, 4);
    let placed = gpu.place(&tensors, placing);
    for norm in NORMS {
        let clip = Clip::global_norm(0.5).norm_type(norm).on_non_finite(NonFinite::Zero);
        for workgroup_size in [32, 64, 256] {
            let clipper = gpu.clipper_with(ClipperOptions::default().workgroup_size(workgroup_size));
            let pass = clipper.prepare(&placed.grads, &clip).unwrap();
            let short: usize = pass.plan().dispatches.iter().map(|d| d.short.len()).sum();
            assert!(short > 0, "none on {}", gpu.name);
            gpu.same_in(&clipper, &tensors, placing, &clip);
        }
    }
}

#[test]
fn every_placing() {
    let Some(gpu) = gpu() else { return };
    let mut tensors: Vec<_> =
        (0..40).map(|i| data(Distribution::Bits, (i * i * 37) % 20_000, i as u64)).collect();
    tensors.push(data(Distribution::Alternating, 3 * CHUNK as usize + 7, 99));
    let clip = Clip::global_norm(1.0);
    let tensors = named(tensors);
    let (trace, _) = gpu.same(&tensors, &clip);
    for (lead, gap) in [(0, 0), (1, 0), (0, 1), (3, 5), (63, 1), (64, 64), (65, 63)] {
        gpu.same_in(&gpu.clipper, &tensors, Placing::arena(4 * lead, 4 * gap), &clip);
    }
    // Some in arenas, some alone, interleaved.
    let [alone, arena] = [Placing::APART, Placing::arena(28, 8)].map(|placing| gpu.place(&tensors, placing));
    let pick = |i: usize| if i.is_multiple_of(3) { &alone } else { &arena }.grads[i].clone();
    let mixed: Vec<_> = (0..tensors.len()).map(pick).collect();
    let pass = gpu.clipper.prepare(&mixed, &clip).unwrap();
    gpu.run(&pass);
    gpu.assert_records(&pass, &trace, &format!("mixed on {}", gpu.name));
}

#[test]
fn every_order_gives_the_same_norm_and_coefficient() {
    let Some(gpu) = gpu() else { return };
    let mut tensors: Vec<_> = (0..30).map(|i| data(DISTRIBUTIONS[i % 12], i * 997, i as u64)).collect();
    let clip = Clip::global_norm(1e10);
    let (first, _) = common::traced(&named(&tensors), &clip).unwrap();
    let mut random = Random(5);
    for _ in 0..5 {
        random.shuffle(&mut tensors);
        let (trace, _) = gpu.same(&named(&tensors), &clip);
        assert_eq!(trace.segment_sums, first.segment_sums);
        assert_eq!(trace.outcomes, first.outcomes);
    }
}

#[test]
fn numbers_of_tensors_around_the_edges() {
    let Some(gpu) = gpu() else { return };
    for count in [1, 2, 7, 8, 9, 148, 1000] {
        let tensors = named((0..count).map(|i| data(Distribution::Uniform(1.0), 1 + i % 61, i as u64)));
        for clip in [Clip::global_norm(1.0), Clip::per_tensor_norm(1.0)] {
            gpu.same(&tensors, &clip);
            gpu.same_in(&gpu.clipper, &tensors, Placing::PACKED, &clip);
        }
    }
}

#[test]
fn non_finite_elements_under_every_policy() {
    let Some(gpu) = gpu() else { return };
    let mut tensors = [5, 40_000, 300].map(|n| data(Distribution::Uniform(2.0), n, 3));
    (tensors[1][17_000], tensors[1][20_000]) = (f32::INFINITY, f32::NEG_INFINITY);
    for count in [2, 3] {
        if count == 3 {
            tensors[2][299] = f32::from_bits(0xffc0_1234);
        }
        for policy in [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan] {
            for clip in [Clip::global_norm(1.0), Clip::per_tensor_norm(1.0)] {
                let (trace, _) = gpu.same(&named(&tensors), &clip.on_non_finite(policy));
                assert_eq!(trace.report.non_finite(), count);
                assert_eq!(trace.report.first_non_finite(), Some("t1"));
            }
        }
    }
}

#[test]
fn unscale_and_eps() {
    let Some(gpu) = gpu() else { return };
    let tensors = named((0..5).map(|i| data(Distribution::Uniform(1e3), 5000, i)));
    for unscale in [1.0, 1.0 / 1024.0, 0.001, 1e-30, 1e30, f32::from_bits(1)] {
        for eps in [0.0, 1e-6, 1.0, 1e30] {
            for threshold in [0.0, 1e-40, 1e-3, 10.0, f32::INFINITY] {
                let clip = Clip::global_norm(threshold).unscale(unscale).eps(eps);
                gpu.same_in(&gpu.clipper, &tensors, Placing::PACKED, &clip);
            }
        }
    }
}
