use super::*;
#[cfg(target_arch = "x86_64")]
use crate::cpu::lanes::avx2;
use crate::cpu::lanes::{Bf16Bits, F16Bits, Portable};
use crate::cpu::random::words;

const MAGNITUDE: u32 = 0x7fff_ffff;

/// The L2 sum of a chunk, word by word from its definition in [`crate::numbers`].
fn by_definition(chunk: &[u32]) -> Partial {
    let parts = |&bits: &u32| {
        let (field, fraction) = ((bits & MAGNITUDE) >> 23, bits & 0x7f_ffff);
        if field == 0 { (1, fraction) } else { (field, fraction | 0x80_0000) }
    };
    let finite = |bits: &&u32| **bits & MAGNITUDE < INFINITY_BITS;
    let column = |c: usize| chunk.iter().skip(c).step_by(1024).filter(finite).map(parts);
    let top = |c: usize| column(c).map(|(e, _)| e).max().unwrap_or(1);
    let exponent = (0..chunk.len().min(1024)).map(top).max().unwrap_or(1);
    let mut total = 0u128;
    for c in 0..chunk.len().min(1024) {
        let q = |(e, m): (u32, u32)| (u128::from(m) << 4) >> (top(c) - e).min(127);
        let sum: u128 = column(c).map(q).map(|q| q * q).sum();
        total += sum >> 8 >> (2 * (exponent - top(c))).min(127);
    }
    let non_finite = chunk.iter().filter(|bits| !finite(bits)).count() as u32;
    let nan = chunk.iter().any(|bits| bits & MAGNITUDE > INFINITY_BITS);
    let non_finite = non_finite | u32::from(nan) << 31;
    Partial { lo: total as u32, hi: (total >> 32) as u32, exponent, non_finite }
}

/// Exponents on both sides of what converts, columns of zeros, and what is not finite.
#[test]
fn sums_are_those_of_the_definition() {
    let mut next = words(11);
    let mut scratch = Scratch::new();
    for (least, exponents) in [(0, 3), (20, 16), (26, 4), (27, 1), (28, 1), (100, 30), (0, 255), (0, 256)] {
        for len in [1, 17, 1024, 1025, 5000, 16_383, 16_384] {
            for zeros in [0, 3] {
                let mut element = |i: usize| {
                    let bits = next() & 0x807f_ffff | ((least + next() % exponents) << 23);
                    if zeros > 0 && (i % 1024).is_multiple_of(zeros) { 0 } else { bits }
                };
                let chunk: Vec<u32> = (0..len).map(&mut element).collect();
                let given = reduce_bits(&chunk, &[], Summation::Two, &mut scratch);
                assert_eq!(given, by_definition(&chunk), "{len} elements, exponents from {least}, {zeros}");
            }
        }
    }
}

/// Every register width gives the same records, at every raggedness and for any bits.
#[test]
fn all_lane_types_agree() {
    let mut next = words(7);
    let mut scratch = Scratch::new();
    for len in [1, 15, 16, 17, 1000, 1024, 1030, 2047, 9000, 16_383, 16_384] {
        for mask in [u32::MAX, 0x3fff_ffff, 0x007f_ffff] {
            let words: Vec<u32> = (0..len).map(|_| next() & mask).collect();
            let halves: Vec<u16> = words.iter().map(|&word| (word >> 16 ^ word << 3) as u16).collect();
            for summation in [Summation::One, Summation::Two, Summation::Inf] {
                agree(&words, summation, &mut scratch);
                agree::<F16Bits>(bytemuck::cast_slice(&halves), summation, &mut scratch);
                agree::<Bf16Bits>(bytemuck::cast_slice(&halves), summation, &mut scratch);
            }
        }
    }
}

/// All registers, and `f32` of the same values.
fn agree<E: Bits>(chunk: &[E], summation: Summation, scratch: &mut Scratch) {
    let widened: Vec<u32> = chunk.iter().map(|e| e.f32_bits()).collect();
    let portable = Chunk { chunk: &widened, next: &[], summation, scratch }.run::<Portable>();
    let what = (chunk.len(), size_of::<E>(), summation);
    assert_eq!(Chunk { chunk, next: &[], summation, scratch }.run::<Portable>(), portable, "{what:?}");
    assert_eq!(reduce_bits(chunk, &[], summation, scratch), portable, "{what:?}");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
        // SAFETY: just detected.
        let avx2 = unsafe { avx2::run(Chunk { chunk, next: &[], summation, scratch }) };
        assert_eq!(avx2, portable, "{what:?}");
    }
}

/// A unit a lane gives the records of each unit by itself.
#[test]
fn units_side_by_side_are_units() {
    let mut next = words(5);
    let mut scratch = Scratch::new();
    for len in [1, 2, 25, 1023, 1024, 1025, 3000, 16_384] {
        for mask in [0x7f7f_ffff, 0x3fff_ffff, 0x007f_ffff] {
            let lines: Vec<[u32; LANES]> = (0..len).map(|_| std::array::from_fn(|_| next() & mask)).collect();
            for summation in [Summation::One, Summation::Two, Summation::Inf] {
                let chunks = || side_by_side::Chunks { lines: &lines, summation, largest: INFINITY_BITS - 1 };
                let all = side_by_side(&lines, summation, INFINITY_BITS - 1);
                assert_eq!(all, chunks().run::<Portable>(), "{len} {summation:?}");
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
                    // SAFETY: just detected.
                    assert_eq!(all, unsafe { avx2::run(chunks()) }, "{len} {summation:?}");
                }
                let unit = |k: usize| lines.iter().map(|line| line[k]).collect::<Vec<u32>>();
                let each = std::array::from_fn(|k| reduce_bits(&unit(k), &[], summation, &mut scratch));
                assert_eq!(all, Some(each), "{len} {summation:?}");
            }
        }
    }
    let mut lines = vec![[0u32; LANES]; 30];
    lines[7][3] = INFINITY_BITS;
    assert_eq!(side_by_side(&lines, Summation::Two, INFINITY_BITS - 1), None);
}
