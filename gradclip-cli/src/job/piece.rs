//! Some elements of a gradient, in memory on their way from file to file.

use gradclip::cpu::{Decision, Slice};
use half::{bf16, f16};

use crate::input::Float;

#[derive(Debug)]
pub(crate) enum Piece {
    F64(Vec<f64>),
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Piece {
    /// Copies little-endian bytes, which need not be aligned.
    pub(crate) fn read(float: Float, bytes: &[u8]) -> Piece {
        match float {
            Float::F64 => Piece::F64(bytemuck::pod_collect_to_vec(bytes)),
            Float::F32 => Piece::F32(bytemuck::pod_collect_to_vec(bytes)),
            Float::F16 => Piece::F16(bytemuck::pod_collect_to_vec(bytes)),
            Float::Bf16 => Piece::Bf16(bytemuck::pod_collect_to_vec(bytes)),
        }
    }

    /// Halves as `f32`, which has them all.
    pub(crate) fn widened(self) -> Piece {
        match self {
            Piece::F16(e) => Piece::F32(e.into_iter().map(f32::from).collect()),
            Piece::Bf16(e) => Piece::F32(e.into_iter().map(f32::from).collect()),
            other => other,
        }
    }

    /// Doubles as `f32`: the nearest, or where `never_above` the nearest that is not larger in magnitude. A finite
    /// number stays finite.
    pub(crate) fn narrowed(self, never_above: bool) -> Piece {
        match self {
            Piece::F64(e) => Piece::F32(e.into_iter().map(|value| narrow(value, never_above)).collect()),
            other => other,
        }
    }

    /// Does what was decided of a gradient, whose element `first` is the first of these.
    pub(crate) fn apply(&mut self, decision: &Decision, gradient: usize, first: u64) {
        match self {
            Piece::F64(e) => decision.apply(gradient, first, &mut e[..]),
            Piece::F32(e) => decision.apply(gradient, first, &mut e[..]),
            Piece::F16(e) => decision.apply(gradient, first, &mut e[..]),
            Piece::Bf16(e) => decision.apply(gradient, first, &mut e[..]),
        }
    }

    pub(crate) fn slice(&self) -> Slice<'_> {
        match self {
            Piece::F64(e) => (&e[..]).into(),
            Piece::F32(e) => (&e[..]).into(),
            Piece::F16(e) => (&e[..]).into(),
            Piece::Bf16(e) => (&e[..]).into(),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Piece::F64(e) => bytemuck::cast_slice(e),
            Piece::F32(e) => bytemuck::cast_slice(e),
            Piece::F16(e) => bytemuck::cast_slice(e),
            Piece::Bf16(e) => bytemuck::cast_slice(e),
        }
    }
}

fn narrow(value: f64, never_above: bool) -> f32 {
    let nearest = value as f32;
    if nearest.is_infinite() && value.is_finite() {
        return f32::MAX.copysign(nearest);
    }
    match never_above && f64::from(nearest).abs() > value.abs() {
        // One step towards zero.
        true => f32::from_bits(nearest.to_bits() - 1),
        false => nearest,
    }
}

#[cfg(test)]
mod tests {
    use super::narrow;

    #[test]
    fn doubles_become_singles() {
        let tenth = f64::from(0.1f32);
        // Value, nearest, towards zero.
        let cases = [
            (0.1, 0.1f32, f32::from_bits(0.1f32.to_bits() - 1)),
            (-0.1, -0.1, -f32::from_bits(0.1f32.to_bits() - 1)),
            (tenth, 0.1, 0.1),
            (1e300, f32::MAX, f32::MAX),
            (-1e300, -f32::MAX, -f32::MAX),
            (f64::from(f32::MAX) * (1.0 + 1e-9), f32::MAX, f32::MAX),
            (f64::INFINITY, f32::INFINITY, f32::INFINITY),
            (1e-46, 0.0, 0.0),
            (1.3e-45, 1e-45, 0.0),
            (-0.0, -0.0, -0.0),
        ];
        for (value, nearest, towards_zero) in cases {
            let got = (narrow(value, false), narrow(value, true));
            let bits = |(a, b): (f32, f32)| (a.to_bits(), b.to_bits());
            assert_eq!(bits(got), bits((nearest, towards_zero)), "{value}: {got:?}");
        }
        assert!(narrow(f64::NAN, true).is_nan());
    }
}
