//! Options whose words need a reading of their own. Each error says what was expected.

use std::path::PathBuf;

use gradclip::NormType;

/// `--max-norm`, `--value` and the like: 0 or more, `inf` limits nothing.
pub(crate) fn threshold(text: &str) -> Result<f64, String> {
    let value = number(text, "a number, 0 or more, or `inf`, which limits nothing")?;
    match value >= 0.0 {
        true => Ok(value),
        false => Err("expected 0 or more; `inf` limits nothing".into()),
    }
}

/// A pattern of names and a threshold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Own {
    pub(crate) pattern: String,
    pub(crate) threshold: f64,
}

/// `--group`: the threshold follows the last `=`, for names may have one.
pub(crate) fn own(text: &str) -> Result<Own, String> {
    let expected = "expected PATTERN=C, a pattern of names and a threshold";
    let (pattern, value) = text.rsplit_once('=').ok_or(expected)?;
    if pattern.is_empty() {
        return Err(expected.into());
    }
    Ok(Own { pattern: pattern.into(), threshold: threshold(value)? })
}

/// `--eps`, `--agc-eps`: 0 or more, finite.
pub(crate) fn eps(text: &str) -> Result<f64, String> {
    let value = number(text, "a finite number, 0 or more")?;
    match value >= 0.0 && value.is_finite() {
        true => Ok(value),
        false => Err("expected a finite number, 0 or more".into()),
    }
}

/// `--unscale S`: what gradients are divided by.
pub(crate) fn scale(text: &str) -> Result<f64, String> {
    let value = number(text, "a finite number above 0")?;
    match value > 0.0 && value.is_finite() {
        true => Ok(value),
        false => Err("expected a finite number above 0".into()),
    }
}

/// `--norm`: 1, 2, inf or any p above 0.
pub(crate) fn norm_type(text: &str) -> Result<NormType, String> {
    text.trim().parse().map_err(|_| "expected 1, 2, inf or a number above 0".into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        assert_eq!((threshold("0.5"), threshold("1e39")), (Ok(0.5), Ok(1e39)));
        assert_eq!(threshold("inf"), Ok(f64::INFINITY));
        for wrong in ["-1", "nan", "-inf", "x", ""] {
            assert!(threshold(wrong).is_err(), "{wrong}");
        }
        assert_eq!(own("a=b.*=2"), Ok(Own { pattern: "a=b.*".into(), threshold: 2.0 }));
        for wrong in ["", "a", "=1", "a=", "a=-1", "a=nan", "a=1=b"] {
            assert!(own(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn scales() {
        assert_eq!(scale("1000"), Ok(1000.0));
        for wrong in ["0", "-2", "inf", "nan", ""] {
            assert!(scale(wrong).is_err(), "{wrong}");
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
