//! Settings as words, for command lines and configurations: what `Display` writes, `FromStr` reads.

use std::fmt;
use std::str::FromStr;

use crate::error::WordError;
use crate::tensor::DType;

use super::rule::{Axes, NonFinite, NormType, Scope, Units};

/// As PyTorch's `norm_type`: `1`, `2`, `inf`, or the p.
impl fmt::Display for NormType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NormType::One => f.write_str("1"),
            NormType::Two => f.write_str("2"),
            NormType::Inf => f.write_str("inf"),
            NormType::P(p) => write!(f, "{p}"),
        }
    }
}

/// ```
/// use gradclip::NormType;
///
/// assert_eq!("2".parse(), Ok(NormType::Two));
/// assert_eq!("inf".parse(), Ok(NormType::Inf));
/// assert_eq!("2.5".parse(), Ok(NormType::P(2.5)));
/// assert!("-1".parse::<NormType>().is_err());
/// ```
impl FromStr for NormType {
    type Err = WordError;

    fn from_str(text: &str) -> Result<NormType, WordError> {
        // As an `f32`, which a norm has it as, p is neither 0 nor infinite where it was not.
        let fits = |p: f64| p == f64::INFINITY || (p as f32 >= f32::MIN_POSITIVE && (p as f32).is_finite());
        let p = text.parse::<f64>().ok().filter(|&p| fits(p));
        match p.ok_or_else(|| wrong("norm type", "1, 2, inf or a number above 0", text))? {
            1.0 => Ok(NormType::One),
            2.0 => Ok(NormType::Two),
            f64::INFINITY => Ok(NormType::Inf),
            p => Ok(NormType::P(p)),
        }
    }
}

/// `skip`, `zero`, `sanitize`, `nan` or `keep`.
impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NonFinite::Skip => "skip",
            NonFinite::Zero => "zero",
            NonFinite::Sanitize => "sanitize",
            NonFinite::Nan => "nan",
            NonFinite::Keep => "keep",
        })
    }
}

impl FromStr for NonFinite {
    type Err = WordError;

    fn from_str(text: &str) -> Result<NonFinite, WordError> {
        let all = [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan, NonFinite::Keep];
        named(all, text).ok_or_else(|| wrong("non-finite policy", "skip, zero, sanitize, nan or keep", text))
    }
}

/// The name in lower case: `f32`, `f16`, `bf16` or `f64`.
impl FromStr for DType {
    type Err = WordError;

    fn from_str(text: &str) -> Result<DType, WordError> {
        let all = [DType::F32, DType::F16, DType::Bf16, DType::F64];
        named(all, text).ok_or_else(|| wrong("element type", "f32, f16, bf16 or f64", text))
    }
}

/// `global`, `group`, `tensor`, `row`, or units: `unit` (the first axis counts outputs), `unit-last`, and `unit:0,2` with the axes
/// that are summed over.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Global => f.write_str("global"),
            Scope::Group => f.write_str("group"),
            Scope::Tensor => f.write_str("tensor"),
            Scope::Row => f.write_str("row"),
            Scope::Unit(Units::OutputFirst) => f.write_str("unit"),
            Scope::Unit(Units::OutputLast) => f.write_str("unit-last"),
            Scope::Unit(Units::Over(axes)) => {
                f.write_str("unit:")?;
                let mut all = axes.all();
                if let Some(first) = all.next() {
                    write!(f, "{first}")?;
                }
                all.try_for_each(|axis| write!(f, ",{axis}"))
            }
        }
    }
}

/// ```
/// use gradclip::{Scope, Units};
///
/// assert_eq!("unit:0,2".parse(), Ok(Scope::Unit(Units::over(&[0, 2]))));
/// assert_eq!(Scope::Unit(Units::OutputLast).to_string(), "unit-last");
/// ```
impl FromStr for Scope {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Scope, WordError> {
        const REQUIRED: &str =
            "global, group, tensor, row, unit, unit-last, or unit: and axes below 31 (unit:0,2)";
        let units = [Units::OutputFirst, Units::OutputLast].map(Scope::Unit);
        let named = named([Scope::Global, Scope::Group, Scope::Tensor, Scope::Row, units[0], units[1]], text);
        let over = || axes(text.strip_prefix("unit:")?).map(|axes| Scope::Unit(Units::over(&axes)));
        named.or_else(over).ok_or_else(|| wrong("scope", REQUIRED, text))
    }
}

/// Axes with commas between them; none at all is a list, too.
fn axes(text: &str) -> Option<Vec<usize>> {
    let axis = |text: &str| text.parse().ok().filter(|&axis| axis < Axes::MOST);
    if text.is_empty() { Some(Vec::new()) } else { text.split(',').map(axis).collect() }
}

/// The one of these that is written so.
fn named<T: fmt::Display, const N: usize>(all: [T; N], text: &str) -> Option<T> {
    all.into_iter().find(|one| one.to_string() == text)
}

fn wrong(what: &'static str, required: &'static str, given: &str) -> WordError {
    WordError { what, required, given: given.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes_back<T: fmt::Display + FromStr<Err = WordError> + PartialEq + fmt::Debug>(all: &[T]) {
        for one in all {
            assert_eq!(one.to_string().parse::<T>().as_ref(), Ok(one));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let p = [1e-30, 0.5, 2.5, 1e30].map(NormType::P);
        comes_back(&[&[NormType::One, NormType::Two, NormType::Inf][..], &p].concat());
        comes_back(&[NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan, NonFinite::Keep]);
        comes_back(&[DType::F32, DType::F16, DType::Bf16, DType::F64]);
        let units = [Units::OutputFirst, Units::OutputLast, Units::over(&[]), Units::over(&[0, 3, 30])];
        comes_back(&[Scope::Global, Scope::Group, Scope::Tensor, Scope::Row]);
        comes_back(&units.map(Scope::Unit));
    }

    #[test]
    fn other_words_are_refused_by_name() {
        for text in ["", "0", "-1", "nan", "-inf", "two", "2 ", "1e-40", "1e60"] {
            let error = text.parse::<NormType>().unwrap_err().to_string();
            assert_eq!(error, format!("norm type: required 1, 2, inf or a number above 0, given `{text}`"));
        }
        for text in ["", "Skip", "error"] {
            assert!(text.parse::<NonFinite>().is_err(), "{text}");
        }
        for text in ["F32", "float32", ""] {
            assert!(text.parse::<DType>().is_err(), "{text}");
        }
        for text in ["", "units", "unit:a", "unit:0,", "unit:31", "unit:-1", "unit:0 1", "rows"] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }
}
