//! Every kind of lanes does what lanes of any processor do.

use half::f16;

use super::*;
use crate::cpu::random::words;

/// Words of all kinds: small ones, powers of two and their neighbours, any bits.
fn some(next: &mut impl FnMut() -> u32) -> [u32; LANES] {
    std::array::from_fn(|_| {
        let (bits, how) = (next(), next());
        match how >> 30 {
            0 => bits >> (how & 31),
            1 => 1u32.rotate_left(how & 31).wrapping_sub(bits & 1),
            _ => bits,
        }
    })
}

fn stored<L: Lanes>(lanes: L) -> [u32; LANES] {
    let mut to = [0; LANES];
    lanes.store(&mut to);
    to
}

/// `f32` that are no NaN, and whose products are none: which one a NaN becomes is left open.
fn not_nan<L: Lanes>(lanes: L) -> L {
    let finite = |bits: u32| if bits >> 23 & 0xff == 0xff { bits ^ 1 << 23 } else { bits };
    L::load(&stored(lanes).map(finite))
}

/// All results of the operations on lanes of these words.
fn results<L: Lanes>([a, b, c, d]: [&[u32; LANES]; 4]) -> (Vec<[u32; LANES]>, Vec<u64>) {
    let [x, y] = [a, b].map(L::load);
    // Amounts from 0 to beyond all bits; sums below 2^60.
    let amounts = L::load(&c.map(|n| n % 300));
    let small = L::load(&d.map(|n| n >> 4));
    // What products are: below 2^31.
    let float = |bits: u32| f32::from_bits(bits % 0x4b00_0000).to_bits() | (bits & 0x8000_0000);
    let product = L::load(&a.map(float)).product(L::splat(16f32.to_bits()));
    let lanes = [
        x.and(y),
        x.sub(y),
        x.max(y),
        x.shl::<1>(),
        x.shl::<23>(),
        x.shr::<23>(),
        x.shr_by(amounts),
        product,
        L::splat(a[0]),
        not_nan(x).times_toward_zero(not_nan(y)),
    ];
    let squares = small.add_square_to(product.add_square_to(L::zeros()));
    let sums = [
        L::sum(x.add_to(y.add_to(L::zeros()))),
        L::sum(squares),
        L::sum(small.add_product_to(small, amounts, small.add_to(L::zeros()))),
        L::sum(L::add_shifted(small.add_to(L::zeros()), 16, amounts, y.add_to(L::zeros()))),
        L::sum(L::add_shifted(squares, 0, amounts, L::zeros())),
        u64::from(x.largest()),
        u64::from(x.all_at_least(b[0])),
        u64::from(x.all_at_least(*a.iter().min().unwrap_or(&0))),
    ];
    let each = L::each(x.add_to(squares));
    (lanes.map(stored).to_vec(), [&sums[..], &each].concat())
}

/// Every half and back, and words rounded to halves. Which NaN one becomes is left open.
fn halves<L: Lanes>(next: &mut impl FnMut() -> u32) -> Vec<[u32; LANES]> {
    let some_nan = |bits: u32| if bits & 0x7fff_ffff > 0x7f80_0000 { u32::MAX } else { bits };
    let widen_f16 = |half: u16| some_nan(f16::from_bits(half).to_f32().to_bits());
    let mut all = Vec::new();
    for first in (0..1u32 << 16).step_by(LANES) {
        let given = std::array::from_fn(|i| (first + i as u32) as u16);
        let [f16s, bf16s] = [L::load_f16(&given), L::load_bf16(&given)];
        let mut back = [[0; LANES]; 3];
        bf16s.times(L::splat(0.7f32.to_bits())).store_bf16(&mut back[0]);
        f16s.times(L::splat(0.7f32.to_bits())).store_f16(&mut back[1]);
        L::load(&some(next)).store_bf16(&mut back[2]);
        all.extend([stored(f16s).map(some_nan), stored(bf16s).map(some_nan)]);
        all.push(back[0].map(|half| some_nan(u32::from(half) << 16)));
        all.push(back[1].map(widen_f16));
        all.push(back[2].map(|half| some_nan(u32::from(half) << 16)));
        L::load(&some(next)).store_f16(&mut back[1]);
        all.push(back[1].map(widen_f16));
    }
    all
}

fn equal_those_of_any_processor<L: Lanes>() {
    let mut next = words(7);
    for _ in 0..20_000 {
        let given: [_; 4] = std::array::from_fn(|_| some(&mut next));
        assert_eq!(results::<L>(given.each_ref()), results::<Portable>(given.each_ref()), "{given:?}");
    }
    assert_eq!(halves::<L>(&mut words(3)), halves::<Portable>(&mut words(3)));
}

#[test]
#[cfg(target_arch = "aarch64")]
fn neon() {
    equal_those_of_any_processor::<neon::Neon>();
}

/// As [`narrows_as_half_does`].
#[test]
#[cfg(target_arch = "aarch64")]
fn neon_narrows_as_half_does() {
    narrows_as_half_does::<neon::Neon>();
}

/// Every half, what lies between it and the next one, and both neighbours of each; NaNs of all kinds, whose bits are those of
/// `half` as well.
#[cfg(any(target_arch = "aarch64", all(target_arch = "wasm32", target_feature = "simd128")))]
fn narrows_as_half_does<L: Lanes>() {
    let mut next = words(11);
    for half in 0..=u16::MAX {
        let [bits, above] = [half, half.wrapping_add(1)].map(|h| f16::from_bits(h).to_f32_const().to_bits());
        let tie = bits / 2 + above / 2 + (bits & above & 1);
        let near = [bits, above, tie].map(|b| [b.wrapping_sub(1), b, b.wrapping_add(1)]);
        let nan =
            [0x7f80_0001, 0x7fbf_ffff, 0x7fc0_2000].map(|nan| nan | u32::from(half) << 16 & 0x8000_0000);
        let mut given = [0; LANES];
        given[..9].copy_from_slice(near.as_flattened());
        given[9..12].copy_from_slice(&nan);
        given[12..].fill_with(&mut next);
        let mut stored = [0; LANES];
        L::load(&given).store_f16(&mut stored);
        let expected = given.map(|bits| f16::from_f32_const(f32::from_bits(bits)).to_bits());
        assert_eq!(stored, expected, "{given:x?}");
    }
}

#[test]
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
fn simd128() {
    equal_those_of_any_processor::<simd128::Simd128>();
}

/// As [`narrows_as_half_does`].
#[test]
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
fn simd128_narrows_as_half_does() {
    narrows_as_half_does::<simd128::Simd128>();
}

#[test]
#[cfg(target_arch = "x86_64")]
fn avx2() {
    if avx2::is_detected() {
        equal_those_of_any_processor::<avx2::Avx2>();
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn avx512() {
    if is_x86_feature_detected!("avx512f") {
        equal_those_of_any_processor::<avx512::Avx512>();
    }
}
