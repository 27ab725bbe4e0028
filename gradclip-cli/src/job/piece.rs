//! Some elements of a gradient, in memory on their way from file to file.

use gradclip::cpu::Decision;
use gradclip_verify::tensor::Data;

/// Doubles as `f32`: the nearest, or where `never_above` the nearest that is not larger in magnitude. A finite
/// number stays finite.
pub(crate) fn narrowed(data: Data, never_above: bool) -> Data {
    match data {
        Data::F64(e) => Data::F32(e.into_iter().map(|value| narrow(value, never_above)).collect()),
        other => other,
    }
}

/// Does what was decided of a gradient, whose element `first` is the first of these.
pub(crate) fn apply(data: &mut Data, decision: &Decision, gradient: usize, first: u64) {
    match data {
        Data::F64(e) => decision.apply(gradient, first, &mut e[..]),
        Data::F32(e) => decision.apply(gradient, first, &mut e[..]),
        Data::F16(e) => decision.apply(gradient, first, &mut e[..]),
        Data::Bf16(e) => decision.apply(gradient, first, &mut e[..]),
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
