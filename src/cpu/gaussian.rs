//! A standard normal number of 128 random bits, by integer arithmetic alone: the twin of `shaders/shared/gaussian.wgsl`.
//!
//! Box and Muller 1958: z = ±sqrt(-2 ln u) cos(π/2 f), u the first 64 bits with the last one set, over 2^64; the sign the top bit of
//! the other 64, and f the 63 bits below, over 2^63. So |z| is at most sqrt(128 ln 2) = 9.42.
//!
//! What is computed differs from that z by less than 2^-47:
//!
//! - Factors 1 + 2^-k, k from 1 to 7, bring the mantissa of u to within 2^-7 below 1, which truncates less than 2^-61. The series of the
//!   logarithm ends below 2^-65, each of its products truncates 2^-64, and logarithms of the factors are rounded to 2^-59. Where there is none
//!   of these, u is within 2^-7 of 1, and -ln u off by less than its own square and 2^-63; else it is above 2^-7.02 and off by
//!   less than 2^-55. The root of twice that, above 2^-15.5 or 2^-3, is off by less than 2^-47.5 and 2^-52.
//! - The root has 56 binary digits, of numbers below 2^4: 2^-52. The cosine's series ends below 2^-63, and its products are off by less than
//!   2^-60 together, times 9.42.
//!
//! Constants are reciprocals, logarithms and (π/2)^2k / (2k)!, each rounded to its last bit.

/// |z| = mantissa * 2^-(31 + halves).
#[derive(Clone, Copy, Debug)]
pub(super) struct Normal {
    pub(super) mantissa: u64,
    pub(super) halves: u32,
    pub(super) negative: bool,
}

/// In units of 2^-58.
const LN_2: u64 = 0x02c5_c85f_df47_3de7;
/// ln(1 + 2^-k), k from 1 on, likewise.
const LN_OF_FACTORS: [u64; 7] = [
    0x019f_323e_cbf9_84bf,
    0x00e4_7fbe_3cd4_d10d,
    0x0078_9c1d_b8ab_cb98,
    0x003e_1461_8022_c54d,
    0x001f_829b_0e78_3300,
    0x000f_e054_587e_01f2,
    0x0007_f80a_9ac4_19e2,
];
/// 1 / j, j from 2 on, in units of 2^-64.
const RECIPROCALS: [u64; 7] = [
    0x8000_0000_0000_0000,
    0x5555_5555_5555_5555,
    0x4000_0000_0000_0000,
    0x3333_3333_3333_3333,
    0x2aaa_aaaa_aaaa_aaab,
    0x2492_4924_9249_2492,
    0x2000_0000_0000_0000,
];
/// (π/2)^2k / (2k)!, in units of 2^-63.
const COSINE: [u64; 12] = [
    0x8000_0000_0000_0000,
    0x9de9_e64d_f22e_f2d2,
    0x2078_3e10_36b5_8767,
    0x02ab_a78f_c797_ff40,
    0x001e_1f50_6891_babb,
    0x0000_d368_f951_0254,
    0x0000_03f3_a714_6ec8,
    0x0000_000d_b712_7a26,
    0x0000_0000_2418_c586,
    0x0000_0000_004a_8316,
    0x0000_0000_0000_7bdc,
    0x0000_0000_0000_00a9,
];

/// The upper half of a product.
fn high(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

/// -ln(first / 2^64) as size * 2^-exponent, the top bit of the size set.
fn logarithm(first: u64) -> (u64, u32) {
    let odd = first | 1;
    let zeros = odd.leading_zeros();
    let (mut w, mut whole) = (odd << zeros, u64::from(zeros) * LN_2);
    for (k, ln) in (1..).zip(LN_OF_FACTORS) {
        if let Some(more) = w.checked_add(w >> k) {
            (w, whole) = (more, whole + ln);
        }
    }
    let v = w.wrapping_neg();
    let series = RECIPROCALS.iter().rev().copied().reduce(|sum, next| next + high(v, sum));
    let series = v + high(high(v, v), series.unwrap_or(0));
    let (size, exponent) = if whole == 0 { (series, 64) } else { (whole + (series >> 6), 58) };
    (size << size.leading_zeros(), exponent + size.leading_zeros())
}

/// cos(π/2 f), f in units of 2^-64, in units of 2^-63.
fn cosine(f: u64) -> u64 {
    let y = high(f, f);
    let [one, rest @ ..] = COSINE;
    let sum = rest.into_iter().rev().reduce(|sum, next| next - high(y, sum));
    one.saturating_sub(high(y, sum.unwrap_or(0)))
}

/// The root of value * 2^48, rounded down, of a value from 2^62 on.
fn root(value: u64) -> u64 {
    (u128::from(value) << 48).isqrt() as u64
}

/// The number of these bits.
pub(super) fn normal([first, second]: [u64; 2]) -> Normal {
    let (mut size, mut exponent) = logarithm(first);
    // Of twice that, an even one.
    exponent -= 1;
    if exponent % 2 == 1 {
        (size, exponent) = (size >> 1, exponent - 1);
    }
    let mantissa = high(root(size) << 8, cosine(second << 1));
    Normal { mantissa, halves: exponent / 2, negative: second >> 63 == 1 }
}

impl Normal {
    /// z * scale * 2^-(drop - 31), rounded to an integer, a half away from zero.
    pub(super) fn on_grid(self, scale: u64, drop: i32) -> i64 {
        let down = (drop + self.halves as i32 - 1) as u32;
        let twice = high(self.mantissa, scale).checked_shr(down).unwrap_or(0);
        let size = ((twice + 1) >> 1) as i64;
        if self.negative { -size } else { size }
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::FRAC_PI_2;

    use super::*;

    /// The same number by an `f64` program, off by less than 2^-48.
    fn in_f64([first, second]: [u64; 2]) -> f64 {
        let odd = first | 1;
        // Near 1 by the distance from it, which is exact.
        let away = odd.wrapping_neg() as f64 / 2f64.powi(64);
        let ln = if away < 0.5 { (-away).ln_1p() } else { (odd as f64 / 2f64.powi(64)).ln() };
        let size = (-2.0 * ln).sqrt() * (FRAC_PI_2 * ((second << 1) as f64 / 2f64.powi(64))).cos();
        if second >> 63 == 1 { -size } else { size }
    }

    fn check(bits: [u64; 2]) {
        let Normal { mantissa, halves, negative } = normal(bits);
        assert!((28..=63).contains(&halves));
        let size = mantissa as f64 * 2f64.powi(-31 - halves as i32);
        let (got, want) = (if negative { -size } else { size }, in_f64(bits));
        assert!((got - want).abs() < 2f64.powi(-46), "{bits:x?}: {got} {want}");
    }

    #[test]
    fn numbers_are_box_and_mullers() {
        let mut word = crate::cpu::words(31);
        let mut wide = || u64::from(word()) << 32 | u64::from(word());
        for _ in 0..200_000 {
            check([wide(), wide()]);
        }
        // Where mantissas are just below and above what factors of the logarithm decide by; and both ends.
        let factors = (1..8).map(|k| (u64::MAX as f64 / (1.0 + 2f64.powi(-k))) as u64);
        let powers = (0..64).flat_map(|k| [1 << k, (1 << k) - 1, u64::MAX - (1 << k), u64::MAX << k]);
        let firsts: Vec<u64> = factors.flat_map(|w| [w - 4096, w, w + 4096]).chain(powers).collect();
        for &first in &firsts {
            for second in [0, 1, u64::MAX, u64::MAX >> 1, (u64::MAX >> 1) - 1, 1 << 62, 1 << 63, wide()] {
                check([first, second]);
            }
            check([u64::MAX - (wide() >> (first % 60 + 3)), wide()]);
        }
        let end = normal([0, 0]);
        let end = end.mantissa as f64 * 2f64.powi(-31 - end.halves as i32);
        assert!((end - (128.0 * 2f64.ln()).sqrt()).abs() < 1e-13, "{end}");
    }

    /// Rounded to the nearest integer of the grid, and 0 where noise is far below it.
    #[test]
    fn numbers_are_rounded_to_the_grid() {
        let mut word = crate::cpu::words(37);
        let mut wide = || u64::from(word()) << 32 | u64::from(word());
        for drop in [-21, 0, 11, 30, 60, 200] {
            let scale = wide() | 1 << 63;
            for _ in 0..1000 {
                let bits = [wide(), wide()];
                let want = in_f64(bits) * scale as f64 * 2f64.powi(-33 - drop);
                let got = normal(bits).on_grid(scale, drop) as f64;
                assert!((got - want).abs() < 0.51 + 2f64.powi(-15 - drop), "{bits:x?}: {got} {want}");
            }
        }
    }
}
