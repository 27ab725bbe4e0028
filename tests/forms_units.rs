//! The kernels that hardware runs over units side by side, over short chunks and under norms of any p: the bits of the CPU
//! path, which shares no code with them, wherever tensors begin and however long units are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{
    Data, Distribution, Element, Gpu, Placed, Placing, Random, Tensor, gpu, named, tolerance, traced,
};
use gradclip::layout::Partial;
use gradclip::{Clip, Clipper, ClipperOptions, LossScale, NormType, Units};

/// Any bits: subnormals, what is not finite and every exponent, or, where `mild`, exponents near each other.
fn elements(len: usize, element: Element, mild: bool, seed: u64) -> Data {
    let mut random = Random(seed);
    let mut one = || {
        let bits = random.bits() as u32;
        match element {
            Element::F32 if mild => bits & 0x83ff_ffff | 0x3c00_0000,
            Element::F16 if mild => bits & 0x9fff,
            Element::Bf16 if mild => bits & 0x83ff | 0x3c00,
            _ => bits,
        }
    };
    let bytes: Vec<u8> =
        (0..len).flat_map(|_| one().to_le_bytes().into_iter().take(element.size())).collect();
    Data::from_bytes(element, &bytes)
}

/// Partials that a clip of what is placed leaves.
fn partials(gpu: &Gpu, clipper: &Clipper, placed: &Placed, clip: &Clip) -> Vec<Partial> {
    placed.restore(gpu);
    let pass = clipper.prepare(&placed.grads, clip).unwrap();
    gpu.run(&pass);
    gpu.read(pass.partials())
}

/// Every partial is the CPU path's.
fn assert_partials(ours: &[Partial], expected: &[Partial], what: &str) {
    assert_eq!(ours.len(), expected.len(), "{what}");
    let wrong = ours.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(wrong.map(|i| (i, ours[i], expected[i])), None, "{what}");
}

/// A tensor's shape, and what its units are.
type Cut = (Vec<u64>, Units);

fn check(gpu: &Gpu, forms: &[Clipper], (shape, units): &Cut, norm: NormType, unscale: f32, seed: u64) {
    let clip = Clip::per_unit_norm(1.0, *units).norm_type(norm).unscale(unscale).lossy_unscale(true);
    let len = shape.iter().product::<u64>() as usize;
    for element in Element::ON_DEVICES {
        // Halves begin in the middle of a word too.
        let lead = [0, 1, 6][seed as usize % 3] * element.size();
        let data = elements(len, element, seed.is_multiple_of(2), seed);
        let tensor = [Tensor::new("t0", data).shape(shape)];
        let expected = traced(&tensor, &clip).unwrap().0.partials;
        let placed = Placed::at(gpu, &tensor, &[(0, lead)]);
        for (form, clipper) in forms.iter().enumerate() {
            let what = format!("{shape:?} by {units:?}, {element:?} from byte {lead}, {norm:?}, form {form}");
            assert_partials(&partials(gpu, clipper, &placed, &clip), &expected, &what);
        }
    }
}

/// Lengths about every edge: a team's columns, four and sixteen elements of each invocation, columns, rows, chunks.
#[test]
fn columns_of_every_length() {
    let Some(gpu) = gpu() else { return };
    let forms = gpu.forms();
    let lengths = [
        1, 3, 15, 16, 17, 63, 64, 65, 255, 256, 257, 1023, 1024, 1025, 2048, 4095, 4096, 4097, 5000, 16_383,
        16_384, 16_385, 33_000,
    ];
    for (seed, len) in (0..).zip(lengths) {
        let units = [5, 16, 17, 40][seed as usize % 4];
        let cut = (vec![len, units], Units::OutputLast);
        for (&norm, unscale) in gpu.norms().iter().zip([1.0, 3.0, 1.5]) {
            check(&gpu, &forms, &cut, norm, unscale, seed);
        }
    }
}

/// Rows, many columns, and units whose elements lie in runs.
#[test]
fn rows_and_scattered_units() {
    let Some(gpu) = gpu() else { return };
    let forms = gpu.forms();
    let cuts = [
        (vec![33, 16], Units::OutputFirst),
        (vec![300, 17], Units::OutputFirst),
        (vec![70, 100], Units::OutputFirst),
        (vec![1000, 255], Units::OutputFirst),
        (vec![300, 3], Units::OutputFirst),
        (vec![700, 300], Units::OutputLast),
        (vec![7, 11, 13], Units::over(&[0, 2])),
        (vec![40, 11, 60], Units::over(&[0, 2])),
        (vec![9, 21, 8], Units::over(&[1])),
        (vec![3, 3, 50, 20], Units::OutputLast),
        (vec![130, 5, 40, 2], Units::over(&[0, 2])),
    ];
    for (seed, cut) in (0..).zip(&cuts) {
        for (&norm, unscale) in gpu.norms().iter().zip([1.0, 3.0, 1.5]) {
            check(&gpu, &forms, cut, norm, unscale, seed);
        }
    }
}

/// Losses are scaled: the largest finite magnitude follows from the scale on the device. Here both forms alone are compared;
/// that software's agrees with the CPU path, `scaling.rs` shows.
#[test]
fn scaled_losses() {
    let Some(gpu) = gpu() else { return };
    let forms = gpu.forms();
    for element in Element::ON_DEVICES {
        let tensor = [Tensor::new("t0", elements(4100 * 20, element, false, 7)).shape(&[4100, 20])];
        let placed = Placed::at(&gpu, &tensor, &[(0, 4)]);
        let clip = Clip::per_unit_norm(1.0, Units::OutputLast).loss_scale(LossScale::default().initial(0.25));
        let clip = clip.lossy_unscale(true);
        let [plain, teams] = [0, 1].map(|form| partials(&gpu, &forms[form], &placed, &clip));
        assert_eq!(plain, teams, "{element:?}");
        assert!(plain.iter().any(|p| p.non_finite != 0), "{element:?}");
    }
}

/// Short tensors that share workgroups: as many as it takes for hardware to do so.
#[test]
fn short_tensors() {
    let Some(gpu) = gpu() else { return };
    let forms = gpu.forms();
    let lengths = [1, 3, 15, 16, 17, 63, 64, 65, 255, 256, 257, 300, 768, 1000, 1023, 1024];
    for element in Element::ON_DEVICES {
        // Most are tiny, so that the test is quick.
        let len = |i: usize| if i.is_multiple_of(40) { lengths[i / 40 % lengths.len()] } else { i % 7 + 1 };
        let tensors = named((0..20_000).map(|i| elements(len(i), element, i % 2 == 0, i as u64)));
        let mut end = 0;
        let mut place = |(i, tensor): (usize, &Tensor)| {
            end += tensor.data.bytes().len() + i % 3 * element.size();
            (0, end - tensor.data.bytes().len() - i % 3 * element.size())
        };
        let places: Vec<_> = tensors.iter().enumerate().map(&mut place).collect();
        let placed = Placed::at(&gpu, &tensors, &places);
        for &norm in gpu.norms() {
            let clip = Clip::measure().norm_type(norm);
            let expected = traced(&tensors, &clip).unwrap().0.partials;
            for (form, clipper) in forms.iter().enumerate() {
                let pass = clipper.prepare(&placed.grads, &clip).unwrap();
                assert!(pass.plan().dispatches.iter().any(|d| d.short.len() >= 16_384));
                let ours = partials(&gpu, clipper, &placed, &clip);
                assert_partials(
                    &ours,
                    &expected,
                    &format!("{element:?}, {norm:?}, form {form} on {}", gpu.name),
                );
            }
        }
    }
}

/// Norms of any p are not promised to the bit, but on one device sixteen elements at a time are added up in the order of one
/// by one; what a compiler does to exponentials and logarithms is within its tolerance of a few ulp.
#[test]
fn norms_of_any_p() {
    let Some(gpu) = gpu() else { return };
    let forms = gpu.forms();
    for element in Element::ON_DEVICES {
        let tensor = named([elements(40_001, element, false, 11)]);
        let placed = Placed::at(&gpu, &tensor, &[(0, 4)]);
        let clip = Clip::measure().norm_type(NormType::P(2.5));
        let [plain, quads] = [0, 1].map(|form| partials(&gpu, &forms[form], &placed, &clip));
        for (a, b) in plain.iter().zip(&quads) {
            assert_eq!((a.exponent, a.non_finite), (b.exponent, b.non_finite), "{element:?}");
            let [own, other] = [a.lo, b.lo].map(f32::from_bits);
            let most = tolerance::POWER_FORMS as f32 * own;
            assert!((own - other).abs() <= most, "{element:?}: {own} and {other} on {}", gpu.name);
        }
    }
}

/// A long tensor in blocks has the bits of one that a single workgroup adds up, which are those of the CPU path: chunks of
/// very different exponents lose their low bits once, not once more a block.
#[test]
fn blocks_of_a_whole_tensor() {
    let Some(gpu) = gpu() else { return };
    let options = ClipperOptions::default();
    let clippers = [None, Some(2), Some(40)].map(|block| match block {
        Some(block) => gpu.clipper_with(options.block_partials(block)),
        None => gpu.clipper_with(options),
    });
    let chunk = 16_384;
    let mut long: Vec<f32> = common::data(Distribution::Uniform(1.0), 200 * chunk + 77, 5);
    for (i, values) in long.chunks_mut(chunk).enumerate() {
        // Sums of neighbours that only together reach the last bit of the largest one's, which lies between them.
        let scale = if i == 100 { 1.0 } else { [2e-9, 3e-8, 1e-20, 5e-9][(i * i + i / 7) % 4] };
        values.iter_mut().for_each(|x| *x *= scale);
    }
    long[150 * chunk] = f32::NAN;
    let tensors = named([long, vec![2.0; 10], vec![0.5; 7 * chunk]]);
    for &norm in gpu.norms() {
        let clip = Clip::measure().norm_type(norm);
        for (i, clipper) in clippers.iter().enumerate() {
            let placing = Placing::arena(4, 12);
            let pass = clipper.prepare(&gpu.place(&tensors, placing).grads, &clip).unwrap();
            assert_eq!(pass.plan().blocks.is_some(), i > 0);
            gpu.same_in(clipper, &tensors, placing, &clip);
        }
    }
}
