//! f16 and bf16, mixed with f32 in one set and one buffer: the same records as on the CPU, the
//! same bits of every clipped element, and not one bit of a neighbour touched.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Random, gpu};
use gradclip::cpu::{self, GradMut};
use gradclip::layout::{Outcome, Partial, Sum};
use gradclip::{Clip, DType, NonFinite, NormType};
use half::{bf16, f16};

/// Finite bit patterns of a 16-bit float with `exponent` exponent bits, scaled down by dropping
/// the top of the exponent in some.
fn halves(len: usize, dtype: DType, seed: u64) -> Vec<u16> {
    let mut random = Random(seed);
    let mask = if dtype == DType::F16 { 0x7c00 } else { 0x7f80 };
    let mut one = || loop {
        let bits = random.bits() as u16 & if seed.is_multiple_of(2) { 0xffff } else { 0x8fff };
        if bits & mask != mask {
            break bits;
        }
    };
    (0..len).map(|_| one()).collect()
}

fn bytes(len: usize, dtype: DType, seed: u64) -> Vec<u8> {
    match dtype {
        DType::F32 => bytemuck::cast_slice(&common::data(common::Kind::Uniform(1e-3), len, seed)).to_vec(),
        _ => bytemuck::cast_slice(&halves(len, dtype, seed)).to_vec(),
    }
}

/// Lengths odd and even, starts at every even byte, neighbours of the same and of another type
/// sharing a word, chunks whose edges fall inside words.
fn placed() -> Vec<(usize, Vec<u8>, DType)> {
    let plan = [
        (DType::F16, 5, 2),
        (DType::F16, 4, 0),
        (DType::Bf16, 7, 0),
        (DType::F16, 1, 0),
        (DType::Bf16, 1, 0),
        (DType::F32, 9, 4),
        (DType::F16, 40_001, 2),
        (DType::Bf16, 16_385, 0),
        (DType::Bf16, 50_000, 0),
        (DType::F16, 0, 0),
        (DType::F32, 20_000, 0),
        (DType::F16, 2, 6),
        (DType::F16, 3, 0),
    ];
    let mut at = 0usize;
    let mut out = Vec::new();
    for (i, (dtype, len, gap)) in plan.into_iter().enumerate() {
        at = (at + gap).next_multiple_of(dtype.size() as usize);
        let of_tensor = bytes(len, dtype, i as u64);
        let next = at + of_tensor.len();
        out.push((at, of_tensor, dtype));
        at = next;
    }
    out
}

fn size_of_placed(tensors: &[(usize, Vec<u8>, DType)]) -> usize {
    let last = tensors.last().unwrap();
    (last.0 + last.1.len()).next_multiple_of(4) + 64
}

/// The CPU path on the same tensors, and their bytes afterwards.
fn on_cpu(tensors: &[(usize, Vec<u8>, DType)], clip: &Clip) -> (cpu::Trace, Vec<Vec<u8>>) {
    enum Owned {
        F32(Vec<f32>),
        F16(Vec<f16>),
        Bf16(Vec<bf16>),
    }
    let mut owned: Vec<Owned> = tensors
        .iter()
        .map(|(_, bytes, dtype)| match dtype {
            DType::F32 => Owned::F32(bytemuck::pod_collect_to_vec(bytes)),
            DType::F16 => Owned::F16(bytemuck::pod_collect_to_vec(bytes)),
            _ => Owned::Bf16(bytemuck::pod_collect_to_vec(bytes)),
        })
        .collect();
    let mut grads: Vec<_> = owned
        .iter_mut()
        .enumerate()
        .map(|(i, t)| match t {
            Owned::F32(t) => GradMut::new(format!("t{i}"), t),
            Owned::F16(t) => GradMut::f16(format!("t{i}"), t),
            Owned::Bf16(t) => GradMut::bf16(format!("t{i}"), t),
        })
        .collect();
    let trace = cpu::clip_traced(&mut grads, clip).unwrap();
    let after = owned
        .iter()
        .map(|t| match t {
            Owned::F32(t) => bytemuck::cast_slice(t).to_vec(),
            Owned::F16(t) => bytemuck::cast_slice(t).to_vec(),
            Owned::Bf16(t) => bytemuck::cast_slice(t).to_vec(),
        })
        .collect();
    (trace, after)
}

#[test]
fn mixed_types_in_one_buffer() {
    let Some(gpu) = gpu() else { return };
    let tensors = placed();
    let size = size_of_placed(&tensors);
    for norm in [NormType::Two, NormType::One, NormType::Inf] {
        for clip in [Clip::global_norm(0.25), Clip::per_tensor_norm(0.25), Clip::measure()] {
            let clip = clip.norm_type(norm);
            let (trace, after) = on_cpu(&tensors, &clip);
            let grads = gpu.placed(size, &tensors);
            let pass = gpu.clipper.prepare(&grads, &clip).unwrap();
            let report = gpu.run(&pass);
            assert_eq!(report, trace.report);
            let partials = gpu.read::<Partial>(pass.partials());
            for (i, (got, want)) in partials.iter().zip(&trace.partials).enumerate() {
                assert_eq!(got, want, "chunk {i}, {norm:?}, on {}", gpu.name);
            }
            assert_eq!(gpu.read::<Sum>(pass.tensor_sums()), trace.tensor_sums);
            assert_eq!(gpu.read::<Outcome>(pass.outcomes()), trace.outcomes);

            let written = gpu.read::<u8>(grads[0].buffer());
            let mut expected = vec![0xa5; size];
            for ((offset, _, _), bytes) in tensors.iter().zip(&after) {
                expected[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            for (i, (offset, bytes, dtype)) in tensors.iter().enumerate() {
                let range = *offset..offset + bytes.len();
                let same = written[range.clone()] == expected[range];
                assert!(same, "t{i} ({dtype}), {norm:?}, on {}", gpu.name);
            }
            assert_eq!(written, expected, "something beside the gradients changed");
        }
    }
}

/// Every f16 there is, through the integer code both ways: the norm of each alone is its
/// magnitude, and multiplication by a power of two rounds as `half` does.
#[test]
fn every_f16_and_every_bf16() {
    let Some(gpu) = gpu() else { return };
    for dtype in [DType::F16, DType::Bf16] {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        // Non-finite patterns too: sanitised to zero.
        let tensors = [(0, all, dtype)];
        let clip = Clip::measure().unscale(0.75).lossy_unscale(true).on_non_finite(NonFinite::Sanitize);
        let grads = gpu.placed(tensors[0].1.len(), &tensors);
        gpu.run(&gpu.clipper.prepare(&grads, &clip).unwrap());
        let got = gpu.read::<u16>(grads[0].buffer());
        for bits in 0..=u16::MAX {
            let (value, want) = match dtype {
                DType::F16 => (
                    f16::from_bits(bits).to_f32(),
                    f16::from_f32(f16::from_bits(bits).to_f32() * 0.75).to_bits(),
                ),
                _ => (
                    bf16::from_bits(bits).to_f32(),
                    bf16::from_f32(bf16::from_bits(bits).to_f32() * 0.75).to_bits(),
                ),
            };
            let want = if value.is_finite() { want } else { 0 };
            let got = got[usize::from(bits)];
            assert_eq!(got, want, "{dtype} {bits:04x}");
        }
    }
}

#[test]
fn a_half_may_not_start_at_an_odd_byte_nor_end_past_the_last_whole_word() {
    let Some(gpu) = gpu() else { return };
    let buffer = gpu.buffer(&[0; 64]);
    let grad = |offset, n| [gradclip::Grad::range("h", &buffer, offset, n).dtype(DType::F16)];
    let refused =
        |offset, n| gpu.clipper.prepare(&grad(offset, n), &Clip::measure()).unwrap_err().to_string();
    assert_eq!(refused(3, 1), "tensor `h`: required an offset that is a multiple of 2 (f16), given 3");
    assert_eq!(refused(2, 32), "tensor `h`: required a buffer of at least 68 bytes, given one of 64");
    gpu.clipper.prepare(&grad(2, 31), &Clip::measure()).unwrap();
}
