//! f16 and bf16, mixed with f32 in one set and one buffer: the same records as on the CPU, the
//! same bits of every clipped element, and not one bit of a neighbour touched.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Data, Distribution, Element, NORMS, Placed, Placing, Random, Tensor, gpu, named, traced};
use gradclip::{Clip, DType, NonFinite};

/// Finite bit patterns of a 16-bit float with `exponent` exponent bits, scaled down by dropping
/// the top of the exponent in some.
fn halves(len: usize, element: Element, seed: u64) -> Vec<u16> {
    let mut random = Random(seed);
    let mask = if element == Element::F16 { 0x7c00 } else { 0x7f80 };
    let mut one = || loop {
        let bits = random.bits() as u16 & if seed.is_multiple_of(2) { 0xffff } else { 0x8fff };
        if bits & mask != mask {
            break bits;
        }
    };
    (0..len).map(|_| one()).collect()
}

fn elements(len: usize, element: Element, seed: u64) -> Data {
    match element {
        Element::F32 => common::data(Distribution::Uniform(1e-3), len, seed).into(),
        _ => Data::from_bytes(element, bytemuck::cast_slice(&halves(len, element, seed))),
    }
}

/// Lengths odd and even, starts at every even byte, neighbours of the same and of another type
/// sharing a word, chunks whose edges fall inside words. With the first byte of each.
fn tensors() -> (Vec<Tensor>, Vec<(usize, usize)>) {
    use Element::{Bf16, F16, F32};
    let plan = [
        (F16, 5, 2),
        (F16, 4, 0),
        (Bf16, 7, 0),
        (F16, 1, 0),
        (Bf16, 1, 0),
        (F32, 9, 4),
        (F16, 40_001, 2),
        (Bf16, 16_385, 0),
        (Bf16, 50_000, 0),
        (F16, 0, 0),
        (F32, 20_000, 0),
        (F16, 2, 6),
        (F16, 3, 0),
    ];
    let data: Vec<Data> = (0..).zip(plan).map(|(i, (element, len, _))| elements(len, element, i)).collect();
    let mut end = 0usize;
    let place = |(data, (.., gap)): (&Data, (Element, usize, usize))| {
        let at = (end + gap).next_multiple_of(data.dtype().size() as usize);
        end = at + data.bytes().len();
        (0, at)
    };
    let places = data.iter().zip(plan).map(place).collect();
    (named(data), places)
}

#[test]
fn mixed_types_in_one_buffer() {
    let Some(gpu) = gpu() else { return };
    let (tensors, places) = tensors();
    let placed = Placed::at(&gpu, &tensors, &places);
    for norm in NORMS {
        for clip in [Clip::global_norm(0.25), Clip::per_tensor_norm(0.25), Clip::measure()] {
            let clip = clip.norm_type(norm);
            gpu.assert_does(&gpu.clipper, &placed, &clip, &traced(&tensors, &clip).unwrap());
        }
    }
}

/// Every f16 there is, through the integer code both ways: the norm of each alone is its
/// magnitude, and multiplication by a power of two rounds as `half` does.
#[test]
fn every_f16_and_every_bf16() {
    let Some(gpu) = gpu() else { return };
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    // Non-finite patterns too: sanitised to zero.
    let clip = Clip::measure().unscale(0.75).lossy_unscale(true).on_non_finite(NonFinite::Sanitize);
    for element in [Element::F16, Element::Bf16] {
        let tensors = named([Data::from_bytes(element, &all)]);
        let placed = gpu.place(&tensors, Placing::PACKED);
        gpu.run(&gpu.clipper.prepare(&placed.grads, &clip).unwrap());
        let got = &placed.read(&gpu).unwrap()[0];
        let finite = |x: f32| if x.is_finite() { x * 0.75 } else { 0.0 };
        let want: Vec<f32> = tensors[0].data.floats().into_iter().map(finite).collect();
        let want = Data::rounded(element, &want);
        for i in 0..want.len() {
            assert_eq!(got.bits(i), want.bits(i), "{element:?} {i:04x}");
        }
    }
}

#[test]
fn a_half_may_not_start_at_an_odd_byte_nor_end_past_the_last_whole_word() {
    let Some(gpu) = gpu() else { return };
    let buffer = gpu.upload(&[0; 64]);
    let grad = |offset, n| [gradclip::Grad::range("h", &buffer, offset, n).dtype(DType::F16)];
    let refused =
        |offset, n| gpu.clipper.prepare(&grad(offset, n), &Clip::measure()).unwrap_err().to_string();
    assert_eq!(refused(3, 1), "tensor `h`: required an offset that is a multiple of 2 (f16), given 3");
    assert_eq!(refused(2, 32), "tensor `h`: required a buffer of at least 68 bytes, given one of 64");
    gpu.clipper.prepare(&grad(2, 31), &Clip::measure()).unwrap();
}
