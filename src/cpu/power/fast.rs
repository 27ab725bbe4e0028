//! Sums of powers by lanes: close to those of the definition, and how close.

use crate::cpu::lanes::{Bits, ByLanes, LANES, Lanes};

/// The elements of a chunk, all finite.
pub(super) struct Powers<'a, E> {
    pub(super) chunk: &'a [E],
    /// The largest magnitude, above 0.
    pub(super) largest: f32,
    pub(super) p: f64,
}

/// What is seen of a chunk before its powers are summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The largest magnitude up to `most`, and the largest of all.
    pub(super) largest: u32,
    pub(super) top: u32,
    /// Magnitudes above `most`.
    pub(super) beyond: u32,
}

pub(super) struct Look<'a, E> {
    pub(super) chunk: &'a [E],
    pub(super) most: u32,
}

impl<E: Bits> ByLanes for Look<'_, E> {
    type Output = Seen;

    #[inline(always)]
    fn run<L: Lanes>(self) -> Seen {
        let (lines, rest) = self.chunk.as_chunks::<LANES>();
        let mut top = E::magnitudes::<L>(&E::padded(rest));
        for line in lines {
            top = top.max(E::magnitudes(line));
        }
        let top = top.largest();
        if top <= self.most {
            return Seen { largest: top, top, beyond: 0 };
        }
        let mut seen = Seen { top, ..Seen::default() };
        for bits in self.chunk.iter().map(|element| element.magnitude()) {
            let beyond = bits > self.most;
            seen.beyond += u32::from(beyond);
            seen.largest = seen.largest.max(if beyond { 0 } else { bits });
        }
        seen
    }
}

/// How far a sum of `n` powers may be from that of the definition, which adds them one after the other, as a share of itself.
///
/// Either sum rounds an addition by 2^-53 of at most itself. A power 2^y is off by what its y is, times ln 2: by p times 2^-45
/// where the series of a logarithm ends, and by |y| 2^-52 by roundings; by 2^-47 where its own series ends; those below 2^-64 do
/// not count next to the largest element's, 1. The constants are at least twice as large as what follows.
pub(super) fn bound(n: usize, p: f64) -> f64 {
    (n as f64 + 64.0) * 2f64.powi(-52) + (p + 1.0) * 2f64.powi(-44)
}

impl<E: Bits> ByLanes for Powers<'_, E> {
    type Output = f64;

    #[inline(always)]
    fn run<L: Lanes>(self) -> f64 {
        let p = self.p;
        // Products where twice p is a small integer that people ask for.
        match 2.0 * p {
            1.0 => self.sum::<L>(by_products::<1>),
            3.0 => self.sum::<L>(by_products::<3>),
            5.0 => self.sum::<L>(by_products::<5>),
            6.0 => self.sum::<L>(by_products::<6>),
            8.0 => self.sum::<L>(by_products::<8>),
            _ => self.sum::<L>(
                #[inline(always)]
                |x| exp2::<L>((p * log2::<L>(x)).max(-1000.0)),
            ),
        }
    }
}

impl<E: Bits> Powers<'_, E> {
    #[inline(always)]
    fn sum<L: Lanes>(self, power: impl Fn(f64) -> f64 + Copy) -> f64 {
        let Powers { chunk, largest, .. } = self;
        let inverse = 1.0 / f64::from(largest);
        let mut sums = [0.0; LANES];
        let (lines, rest) = chunk.as_chunks::<LANES>();
        for line in lines {
            add::<L, E>(line, inverse, &mut sums, power);
        }
        if !rest.is_empty() {
            add::<L, E>(&E::padded(rest), inverse, &mut sums, power);
        }
        sums.iter().sum()
    }
}

#[inline(always)]
fn add<L: Lanes, E: Bits>(
    line: &[E; LANES],
    inverse: f64,
    sums: &mut [f64; LANES],
    power: impl Fn(f64) -> f64,
) {
    let mut bits = [0; LANES];
    E::magnitudes::<L>(line).store(&mut bits);
    for (sum, bits) in sums.iter_mut().zip(bits) {
        // Zero has no logarithm, and what comes of it is thrown away.
        let power = power(f64::from(f32::from_bits(bits)) * inverse);
        *sum += if bits != 0 { power } else { 0.0 };
    }
}

/// x to the power of `HALVES / 2`, each product off by 2^-53.
#[inline(always)]
fn by_products<const HALVES: u32>(x: f64) -> f64 {
    let mut power = if HALVES % 2 == 1 { x.sqrt() } else { 1.0 };
    let (mut square, mut left) = (x, HALVES / 2);
    while left > 0 {
        if left % 2 == 1 {
            power *= square;
        }
        square *= square;
        left /= 2;
    }
    power
}

/// `a * b + c`.
#[inline(always)]
fn fused<L: Lanes>(a: f64, b: f64, c: f64) -> f64 {
    if L::FUSES { a.mul_add(b, c) } else { a * b + c }
}

/// Of a normal number above 0; of 0 some number.
#[inline(always)]
fn log2<L: Lanes>(x: f64) -> f64 {
    const ONE: u64 = 1f64.to_bits();
    const ROOT_OF_HALF: u64 = std::f64::consts::FRAC_1_SQRT_2.to_bits();
    const MANTISSA: u64 = (1 << 52) - 1;
    /// 2^52, whose last bit is 1.
    const WHOLE: f64 = 4_503_599_627_370_496.0;
    // x = 2^exponent * m, m from the root of 1/2 to that of 2.
    let bits = x.to_bits() + (ONE - ROOT_OF_HALF);
    let m = f64::from_bits((bits & MANTISSA) + ROOT_OF_HALF);
    let exponent = f64::from_bits(bits >> 52 | WHOLE.to_bits()) - (WHOLE + 1023.0);
    // ln m = 2 artanh s, |s| below 0.172: the next term is below 2^-46.
    let s = (m - 1.0) / (m + 1.0);
    const ODD: [f64; 8] =
        [1.0, 1.0 / 3.0, 1.0 / 5.0, 1.0 / 7.0, 1.0 / 9.0, 1.0 / 11.0, 1.0 / 13.0, 1.0 / 15.0];
    let t = s * s;
    let t2 = t * t;
    fused::<L>(2.0 * std::f64::consts::LOG2_E * s, eight::<L>(&ODD, t, t2, t2 * t2), exponent)
}

/// The sum of `c[i] * x^i`, by halves, so that no product waits for many others.
#[inline(always)]
fn eight<L: Lanes>(c: &[f64; 8], x: f64, x2: f64, x4: f64) -> f64 {
    let two = |i: usize| fused::<L>(c[i + 1], x, c[i]);
    let four = |i: usize| fused::<L>(two(i + 2), x2, two(i));
    fused::<L>(four(4), x4, four(0))
}

/// Of a number from -1000 to 0.
#[inline(always)]
fn exp2<L: Lanes>(y: f64) -> f64 {
    /// Beside 1.5 * 2^52 a number is rounded to an integer, which is in the last bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let rounded = y + ROUND;
    // 2^f = e^(f ln 2), |f| at most 1/2: the next term is below 2^-47.
    let f = (y - (rounded - ROUND)) * std::f64::consts::LN_2;
    const LOW: [f64; 8] =
        [1.0, 1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5_040.0];
    const HIGH: [f64; 4] = [1.0 / 40_320.0, 1.0 / 362_880.0, 1.0 / 3_628_800.0, 1.0 / 39_916_800.0];
    let f2 = f * f;
    let f4 = f2 * f2;
    let two = |i: usize| fused::<L>(HIGH[i + 1], f, HIGH[i]);
    let high = fused::<L>(two(2), f2, two(0));
    let series = fused::<L>(high, f4 * f4, eight::<L>(&LOW, f, f2, f4));
    f64::from_bits(series.to_bits().wrapping_add(rounded.to_bits() << 52))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::lanes::{Portable, by_lanes};

    /// Ratios of every size, on their own: within the bound of a library's power.
    #[test]
    fn powers_of_every_ratio() {
        for p in [0.01f64, 0.5, 1.5, 2.0, 2.5, 3.0, 7.25, 100.0, 5000.0] {
            for step in 0..40_000u32 {
                let x = f32::from_bits(1 + step * 26_649);
                if x > 1.0 {
                    break;
                }
                let two = [1.0f32.to_bits(), x.to_bits()];
                let powers = || Powers { chunk: &two[..], largest: 1.0, p };
                let right = 1.0 + f64::from(x).powf(p);
                for ours in [by_lanes(powers()), powers().run::<Portable>()] {
                    assert!((ours - right).abs() <= right * bound(2, p) / 2.0, "{x:e}^{p}: {ours} {right}");
                }
            }
        }
    }
}
