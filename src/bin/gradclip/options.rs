//! Options whose words need a reading of their own. Each error says what was expected.

use std::path::PathBuf;

use gradclip::{Clip, NormType};

/// `--max-norm`, `--value` and the like: 0 or more, `inf` limits nothing.
pub(crate) fn threshold(text: &str) -> Result<f32, String> {
    let value = number(text, "a number, 0 or more, or `inf`, which limits nothing")?;
    if value.is_nan() || value < 0.0 {
        return Err("expected 0 or more; `inf` limits nothing".into());
    }
    single(value)
}

/// `--eps`, `--agc-eps`: 0 or more, finite.
pub(crate) fn eps(text: &str) -> Result<f32, String> {
    let value = number(text, "a finite number, 0 or more")?;
    if !(value >= 0.0 && value.is_finite()) {
        return Err("expected a finite number, 0 or more".into());
    }
    single(value)
}

/// `--unscale S`: the factor 1/S.
pub(crate) fn unscale(text: &str) -> Result<f32, String> {
    let value = number(text, "a finite number above 0")?;
    if !(value > 0.0 && value.is_finite()) {
        return Err("expected a finite number above 0".into());
    }
    let factor = (1.0 / value) as f32;
    match Clip::measure().unscale(factor).validate() {
        Ok(()) => Ok(factor),
        Err(_) => Err("expected a scale S whose inverse 1/S is above 0 and finite as f32".into()),
    }
}

/// `--norm`: 1, 2, inf or any p above 0.
pub(crate) fn norm_type(text: &str) -> Result<NormType, String> {
    let value = number(text, "1, 2, inf or a number above 0")?;
    match value {
        1.0 => Ok(NormType::One),
        2.0 => Ok(NormType::Two),
        f64::INFINITY => Ok(NormType::Inf),
        p if p as f32 > 0.0 && (p as f32).is_finite() => Ok(NormType::P(p)),
        _ => Err("expected 1, 2, inf or a number above 0".into()),
    }
}

/// `--percentile`: 0 to 100.
pub(crate) fn percentile(text: &str) -> Result<f64, String> {
    let value = number(text, "a number from 0 to 100")?;
    if (0.0..=100.0).contains(&value) { Ok(value) } else { Err("expected a number from 0 to 100".into()) }
}

/// `--plot`: the picture has one format, which the file's name must say.
pub(crate) fn svg(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("svg") => Ok(path),
        _ => Err("expected a file whose name ends in .svg".into()),
    }
}

/// How a norm type is called.
pub(crate) fn norm_name(norm: NormType) -> String {
    match norm {
        NormType::One => "L1".into(),
        NormType::Two => "L2".into(),
        NormType::Inf => "L∞".into(),
        NormType::P(p) => format!("L{p}"),
        other => format!("{other:?}"),
    }
}

fn number(text: &str, expected: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| format!("expected {expected}"))
}

/// A finite number must stay finite as f32: 1e39 is not infinity, which would only measure.
fn single(value: f64) -> Result<f32, String> {
    let single = value as f32;
    match single.is_finite() == value.is_finite() {
        true => Ok(single),
        false => Err(format!("expected at most {:e}, the largest f32", f32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        assert_eq!(threshold("0.5"), Ok(0.5));
        assert_eq!(threshold("inf"), Ok(f32::INFINITY));
        assert_eq!(threshold("1e-50"), Ok(0.0));
        for wrong in ["-1", "nan", "-inf", "1e39", "x", ""] {
            assert!(threshold(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn scales() {
        assert_eq!(unscale("1000"), Ok((1.0f64 / 1000.0) as f32));
        for wrong in ["0", "-2", "inf", "nan", "1e-60", "1e300"] {
            assert!(unscale(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn percentiles_and_pictures() {
        assert_eq!((percentile("0"), percentile("97.5"), percentile("100")), (Ok(0.0), Ok(97.5), Ok(100.0)));
        for wrong in ["-1", "100.1", "nan", "inf", "p90", ""] {
            assert!(percentile(wrong).is_err(), "{wrong}");
        }
        assert!(svg("a.svg").is_ok() && svg("folder/B.SVG").is_ok());
        for wrong in ["a.png", "svg", ".svg", "a.svg.gz", ""] {
            assert!(svg(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn norm_types() {
        assert_eq!(norm_type("2.0"), Ok(NormType::Two));
        assert_eq!(norm_type("1"), Ok(NormType::One));
        assert_eq!(norm_type("Inf"), Ok(NormType::Inf));
        assert_eq!(norm_type("0.5"), Ok(NormType::P(0.5)));
        for wrong in ["0", "-1", "nan", "-inf", "1e-60", "1e60", "two"] {
            assert!(norm_type(wrong).is_err(), "{wrong}");
        }
    }
}
