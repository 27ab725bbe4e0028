//! The kernels that hardware runs over units side by side, over short chunks and under norms of any p: the bits of the CPU
//! path, which shares no code with them, wherever tensors begin and however long units are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Gpu, Random, gpu};
use gradclip::cpu::{self, GradMut};
use gradclip::layout::{Partial, Sum};
use gradclip::{Clip, Clipper, ClipperOptions, DType, LossScale, NormType, Units};
use half::{bf16, f16};

/// Software's kernels, and those of hardware.
fn forms(gpu: &Gpu) -> [Clipper; 2] {
    let plain = ClipperOptions::default().workgroup_size(256);
    [plain.vector_loads(false), plain.vector_loads(true)].map(|options| gpu.clipper_with(options))
}

/// Any bits: subnormals, what is not finite and every exponent, or, where `mild`, exponents near each other.
fn elements(len: usize, dtype: DType, mild: bool, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut out = Vec::with_capacity(len * dtype.size() as usize);
    for _ in 0..len {
        let bits = random.bits() as u32;
        match dtype {
            DType::F32 if mild => out.extend((bits & 0x83ff_ffff | 0x3c00_0000).to_le_bytes()),
            DType::F32 => out.extend(bits.to_le_bytes()),
            DType::F16 if mild => out.extend((bits as u16 & 0x9fff).to_le_bytes()),
            DType::Bf16 if mild => out.extend((bits as u16 & 0x83ff | 0x3c00).to_le_bytes()),
            _ => out.extend((bits as u16).to_le_bytes()),
        }
    }
    out
}

/// The CPU path's partials of one tensor.
fn on_cpu(bytes: &[u8], dtype: DType, shape: &[u64], clip: &Clip) -> Vec<Partial> {
    macro_rules! traced {
        ($type:ty, $make:expr) => {{
            let mut values: Vec<$type> = bytemuck::pod_collect_to_vec(bytes);
            cpu::clip_traced(&mut [$make("t0", &mut values).shape(shape)], clip).unwrap().partials
        }};
    }
    match dtype {
        DType::F16 => traced!(f16, GradMut::f16),
        DType::Bf16 => traced!(bf16, GradMut::bf16),
        _ => traced!(f32, GradMut::new),
    }
}

/// A tensor's shape, and what its units are.
type Cut = (Vec<u64>, Units);

fn check(gpu: &Gpu, forms: &[Clipper], (shape, units): &Cut, norm: NormType, unscale: f32, seed: u64) {
    let clip = Clip::per_unit_norm(1.0, *units).norm_type(norm).unscale(unscale).lossy_unscale(true);
    let len = shape.iter().product::<u64>() as usize;
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        let size = dtype.size() as usize;
        // Halves begin in the middle of a word too.
        let lead = [0, 1, 6][seed as usize % 3] * size;
        let bytes = elements(len, dtype, seed.is_multiple_of(2), seed);
        let expected = on_cpu(&bytes, dtype, shape, &clip);
        let total = (lead + bytes.len() + 16).next_multiple_of(4);
        let mut grads = gpu.placed(total, &[(lead, bytes, dtype)]);
        grads[0] = grads[0].clone().shape(shape);
        let before = gpu.read::<u8>(grads[0].buffer());
        for (form, clipper) in forms.iter().enumerate() {
            gpu.queue.write_buffer(grads[0].buffer(), 0, &before);
            let pass = clipper.prepare(&grads, &clip).unwrap();
            gpu.run(&pass);
            let ours = gpu.read::<Partial>(pass.partials());
            let wrong = ours.iter().zip(&expected).position(|(a, b)| a != b);
            assert_eq!(ours.len(), expected.len());
            assert_eq!(
                wrong.map(|i| (i, ours[i], expected[i])),
                None,
                "{shape:?} by {units:?}, {dtype} from byte {lead}, {norm:?}, form {form} on {}",
                gpu.name
            );
        }
    }
}

/// SwiftShader takes ten times as long as others to compile a kernel: one norm has to do there.
fn norms(gpu: &Gpu) -> &'static [NormType] {
    if gpu.compiles_slowly() { &[NormType::Two] } else { &[NormType::Two, NormType::One, NormType::Inf] }
}

/// Lengths about every edge: a team's columns, four and sixteen elements of each invocation, columns, rows, chunks.
#[test]
fn columns_of_every_length() {
    let Some(gpu) = gpu() else { return };
    let forms = forms(&gpu);
    let lengths = [
        1, 3, 15, 16, 17, 63, 64, 65, 255, 256, 257, 1023, 1024, 1025, 2048, 4095, 4096, 4097, 5000, 16_383,
        16_384, 16_385, 33_000,
    ];
    for (seed, len) in (0..).zip(lengths) {
        let units = [5, 16, 17, 40][seed as usize % 4];
        let cut = (vec![len, units], Units::OutputLast);
        for (&norm, unscale) in norms(&gpu).iter().zip([1.0, 3.0, 1.5]) {
            check(&gpu, &forms, &cut, norm, unscale, seed);
        }
    }
}

/// Rows, many columns, and units whose elements lie in runs.
#[test]
fn rows_and_scattered_units() {
    let Some(gpu) = gpu() else { return };
    let forms = forms(&gpu);
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
        for (&norm, unscale) in norms(&gpu).iter().zip([1.0, 3.0, 1.5]) {
            check(&gpu, &forms, cut, norm, unscale, seed);
        }
    }
}

/// Losses are scaled: the largest finite magnitude follows from the scale on the device. Here both forms alone are compared;
/// that software's agrees with the CPU path, `scaling.rs` shows.
#[test]
fn scaled_losses() {
    let Some(gpu) = gpu() else { return };
    let forms = forms(&gpu);
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        let bytes = elements(4100 * 20, dtype, false, 7);
        let mut grads = gpu.placed(bytes.len() + 16, &[(4, bytes, dtype)]);
        grads[0] = grads[0].clone().shape(&[4100, 20]);
        let clip = Clip::per_unit_norm(1.0, Units::OutputLast).loss_scale(LossScale::default().initial(0.25));
        let clip = clip.lossy_unscale(true);
        let before = gpu.read::<u8>(grads[0].buffer());
        let [plain, teams] = [0, 1].map(|form| {
            gpu.queue.write_buffer(grads[0].buffer(), 0, &before);
            let pass = forms[form].prepare(&grads, &clip).unwrap();
            gpu.run(&pass);
            gpu.read::<Partial>(pass.partials())
        });
        assert_eq!(plain, teams, "{dtype}");
        assert!(plain.iter().any(|p| p.non_finite != 0), "{dtype}");
    }
}

/// Short tensors that share workgroups: as many as it takes for hardware to do so.
#[test]
fn short_tensors() {
    let Some(gpu) = gpu() else { return };
    let forms = forms(&gpu);
    let lengths = [1, 3, 15, 16, 17, 63, 64, 65, 255, 256, 257, 300, 768, 1000, 1023, 1024];
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        let size = dtype.size() as usize;
        let (mut tensors, mut at) = (Vec::new(), 0);
        for i in 0..20_000 {
            // Most are tiny, so that the test is quick.
            let len = if i % 40 == 0 { lengths[i / 40 % lengths.len()] } else { i % 7 + 1 };
            tensors.push((at, elements(len, dtype, i % 2 == 0, i as u64), dtype));
            at += (len + i % 3) * size;
        }
        let grads = gpu.placed((at + 16).next_multiple_of(4), &tensors);
        for &norm in norms(&gpu) {
            let clip = Clip::measure().norm_type(norm);
            let expected: Vec<Partial> = tensors
                .iter()
                .flat_map(|(_, bytes, _)| on_cpu(bytes, dtype, &[bytes.len() as u64 / dtype.size()], &clip))
                .collect();
            for (form, clipper) in forms.iter().enumerate() {
                let pass = clipper.prepare(&grads, &clip).unwrap();
                assert!(pass.plan().dispatches.iter().any(|d| d.short.len() >= 16_384));
                gpu.run(&pass);
                let ours = gpu.read::<Partial>(pass.partials());
                let wrong = ours.iter().zip(&expected).position(|(a, b)| a != b);
                assert_eq!(wrong, None, "{dtype}, {norm:?}, form {form} on {}", gpu.name);
            }
        }
    }
}

/// Norms of any p are not promised to the bit, but on one device sixteen elements at a time are added up in the order of one
/// by one; what a compiler does to exponentials and logarithms is within its tolerance of a few ulp.
#[test]
fn norms_of_any_p() {
    let Some(gpu) = gpu() else { return };
    let forms = forms(&gpu);
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        let bytes = elements(40_001, dtype, false, 11);
        let grads = gpu.placed((bytes.len() + 20).next_multiple_of(4), &[(4, bytes, dtype)]);
        let clip = Clip::measure().norm_type(NormType::P(2.5));
        let [plain, quads] = [0, 1].map(|form| {
            let pass = forms[form].prepare(&grads, &clip).unwrap();
            gpu.run(&pass);
            gpu.read::<Partial>(pass.partials())
        });
        for (a, b) in plain.iter().zip(&quads) {
            assert_eq!((a.exponent, a.non_finite), (b.exponent, b.non_finite), "{dtype}");
            let [own, other] = [a.lo, b.lo].map(f32::from_bits);
            assert!((own - other).abs() <= 1e-5 * own, "{dtype}: {own} and {other} on {}", gpu.name);
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
    let mut long: Vec<f32> = common::data(common::Kind::Uniform(1.0), 200 * chunk + 77, 5);
    for (i, values) in long.chunks_mut(chunk).enumerate() {
        // Sums of neighbours that only together reach the last bit of the largest one's, which lies between them.
        let scale = if i == 100 { 1.0 } else { [2e-9, 3e-8, 1e-20, 5e-9][(i * i + i / 7) % 4] };
        values.iter_mut().for_each(|x| *x *= scale);
    }
    long[150 * chunk] = f32::NAN;
    let tensors = [long, vec![2.0; 10], vec![0.5; 7 * chunk]];
    for &norm in norms(&gpu) {
        let clip = Clip::measure().norm_type(norm);
        let mut values = tensors.clone();
        let mut own: Vec<GradMut<'_>> =
            values.iter_mut().enumerate().map(|(i, v)| GradMut::new(format!("t{i}"), v)).collect();
        let expected = cpu::clip_traced(&mut own, &clip).unwrap();
        let grads = gpu.arena(&tensors, 1, 3);
        for (i, clipper) in clippers.iter().enumerate() {
            let pass = clipper.prepare(&grads, &clip).unwrap();
            assert_eq!(pass.plan().blocks.is_some(), i > 0);
            gpu.run(&pass);
            assert_eq!(gpu.read::<Sum>(pass.tensor_sums()), expected.tensor_sums, "{norm:?}, clipper {i}");
            assert_eq!(gpu.read::<Sum>(pass.segment_sums()), expected.segment_sums, "{norm:?}, clipper {i}");
        }
    }
}
