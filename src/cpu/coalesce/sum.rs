//! The sum of duplicates: the twin of `shaders/shared/duplicates.wgsl`.

use crate::cpu::element::Element;
use crate::cpu::lanes::INFINITY_BITS;
use crate::real::{F32_MIN_EXPONENT, Real};

/// Elements that are added at once: their sums stay in the first cache.
const BLOCK: usize = 256;
/// Bits below the last place of the largest magnitude.
const UNITS: u32 = 32;
const SIGN: u32 = 1 << 31;
const QUIET_NAN: u32 = INFINITY_BITS | 1 << 22;

/// What is known of the duplicates of one element.
#[derive(Clone, Copy)]
struct Seen {
    /// The largest magnitudes of those that are not negative, and of those that are.
    top: [u32; 2],
    /// The bits that all have.
    in_all: u32,
}

const NOTHING: Seen = Seen { top: [0; 2], in_all: u32::MAX };

/// The sums of rows, element by element; one row alone keeps its bits. All are as long as `to`.
pub(super) fn sum<'r, T: Element + 'r>(rows: impl Iterator<Item = &'r [T]> + Clone, to: &mut [f32]) {
    let mut alone = rows.clone();
    if let (Some(row), None) = (alone.next(), alone.next()) {
        return to.iter_mut().zip(row).for_each(|(to, value)| *to = f32::from_bits(value.f32_bits()));
    }
    for (to, first) in to.chunks_mut(BLOCK).zip((0..).step_by(BLOCK)) {
        let rows = rows.clone().map(|row| &row[first..first + to.len()]);
        let (mut seen, mut sums) = ([NOTHING; BLOCK], [0i128; BLOCK]);
        for row in rows.clone() {
            seen.iter_mut().zip(row).for_each(|(seen, value)| seen.see(value.f32_bits()));
        }
        let fields: [u32; BLOCK] = seen.map(|seen| field_of(seen.largest()));
        for row in rows {
            let each = sums.iter_mut().zip(row).zip(&fields);
            each.for_each(|((sum, value), field)| *sum += term(value.f32_bits(), *field));
        }
        for (((to, seen), sum), field) in to.iter_mut().zip(&seen).zip(sums).zip(fields) {
            *to = f32::from_bits(seen.rounded(sum, field));
        }
    }
}

fn field_of(magnitude: u32) -> u32 {
    (magnitude >> 23).max(1)
}

/// A value in units of 2^-[`UNITS`] of the last place that belongs to `field`, cut towards 0.
fn term(bits: u32, field: u32) -> i128 {
    let magnitude = bits & !SIGN;
    let own = field_of(magnitude);
    let mantissa = u64::from(magnitude - ((own - 1) << 23));
    // Above it only where something is not finite, and the sum is not asked for.
    let units = (mantissa << UNITS).checked_shr(field.saturating_sub(own)).unwrap_or(0);
    if bits & SIGN == 0 { units.into() } else { -i128::from(units) }
}

impl Seen {
    fn see(&mut self, bits: u32) {
        let top = &mut self.top[(bits >> 31) as usize];
        *top = (*top).max(bits & !SIGN);
        self.in_all &= bits;
    }

    fn largest(&self) -> u32 {
        self.top[0].max(self.top[1])
    }

    /// The bits of the sum.
    fn rounded(&self, sum: i128, field: u32) -> u32 {
        let [up, down] = self.top;
        if self.largest() >= INFINITY_BITS {
            let nan = self.largest() > INFINITY_BITS || up == down;
            let infinity = if down == INFINITY_BITS { SIGN | INFINITY_BITS } else { INFINITY_BITS };
            return if nan { QUIET_NAN } else { infinity };
        }
        if sum == 0 {
            // Zeros add up to -0 where all of them are that.
            return self.in_all & SIGN;
        }
        let size = Real::new(sum.unsigned_abs(), field as i32 - 150 - UNITS as i32, false);
        let sign = if sum < 0 { SIGN } else { 0 };
        size.round(F32_MIN_EXPONENT).to_f32().to_bits() | sign
    }
}
