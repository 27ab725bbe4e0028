//! What a row of checks added up to.

use std::fmt;
use std::ops::Range;

use crate::tensor::{Data, Element};

/// One thing that is checked on one device.
#[derive(Clone, Debug)]
pub struct Tally {
    /// What is checked.
    pub what: &'static str,
    /// Cases that were run.
    pub cases: u64,
    /// Values or records compared.
    pub compared: u64,
    /// Largest error in ulp.
    pub worst: f64,
    /// Subnormal results that came out as 0, which WGSL allows.
    pub flushed: u64,
    /// Cases that failed.
    pub failed: u64,
    /// The first case that failed.
    pub first: Option<String>,
}

impl Tally {
    pub(crate) fn new(what: &'static str) -> Tally {
        Tally { what, cases: 0, compared: 0, worst: 0.0, flushed: 0, failed: 0, first: None }
    }

    /// Whether no case failed.
    pub fn passed(&self) -> bool {
        self.failed == 0
    }

    /// Takes the findings of one case.
    pub(crate) fn add(&mut self, case: &str, findings: &Findings) {
        self.cases += 1;
        self.compared += findings.compared;
        self.worst = self.worst.max(findings.worst);
        self.flushed += findings.flushed;
        if findings.wrong > 0 {
            self.failed += 1;
            self.first.get_or_insert_with(|| match findings.first {
                Some(wrong) => format!("{case}: {wrong}"),
                None => case.to_owned(),
            });
        }
    }
}

/// What one case showed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Findings {
    pub(crate) compared: u64,
    pub(crate) wrong: u64,
    pub(crate) flushed: u64,
    pub(crate) worst: f64,
    /// Where it says what was wrong first.
    pub(crate) first: Option<Wrong>,
}

/// A value of a step that is not what it should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrong {
    /// Counted from 0.
    pub(crate) step: usize,
    pub(crate) what: &'static str,
    /// Tensor and element, of one among many.
    pub(crate) at: Option<(usize, usize)>,
    pub(crate) got: f64,
    pub(crate) expected: f64,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wrong { step, what, at, got, expected } = self;
        write!(f, "{what}")?;
        if let Some((tensor, element)) = at {
            write!(f, " of t{tensor}[{element}]")?;
        }
        write!(f, " is {got:e} and should be {expected:e} after step {step}")
    }
}

impl Findings {
    /// Takes what else the case showed.
    pub(crate) fn join(&mut self, other: Findings) {
        self.compared += other.compared;
        self.wrong += other.wrong;
        self.flushed += other.flushed;
        self.worst = self.worst.max(other.worst);
        self.first = self.first.or(other.first);
    }

    /// As [`Findings::value`], of a value that can be named.
    pub(crate) fn named(&mut self, ulp: f64, most: f64, value: Wrong) {
        let before = self.wrong;
        self.value(ulp, most);
        if self.wrong > before {
            self.first.get_or_insert(value);
        }
    }

    /// One value that a subnormal number flushed to 0 explains.
    pub(crate) fn flushed(&mut self) {
        self.compared += 1;
        self.flushed += 1;
    }

    /// One value that is off by `ulp`, of which `most` are allowed. NaN is never right.
    pub(crate) fn value(&mut self, ulp: f64, most: f64) {
        self.compared += 1;
        self.worst = self.worst.max(if ulp.is_nan() { f64::INFINITY } else { ulp });
        self.wrong += u64::from(!matches!(ulp.partial_cmp(&most), Some(o) if o.is_le()));
    }

    /// Elements of `range` that must equal `expected` in every bit, but for subnormal numbers
    /// flushed to 0.
    pub(crate) fn elements(&mut self, before: &Data, expected: &Data, got: &Data, range: Range<usize>) {
        self.compared += range.len() as u64;
        if expected.bytes() == got.bytes() {
            return;
        }
        let element = expected.element();
        for i in range.filter(|&i| expected.bits(i) != got.bits(i)) {
            let (e, g) = (expected.value(i), got.value(i));
            if e.is_nan() && g.is_nan() {
                continue;
            }
            if g == 0.0 && flushes(element, e, before.value(i)) {
                self.flushed += 1;
                continue;
            }
            let ulp = ((g - e) / ulp(element, e)).abs().max(1.0);
            self.worst = self.worst.max(if ulp.is_nan() { f64::INFINITY } else { ulp });
            self.wrong += 1;
        }
    }
}

/// Whether 0 may stand for `result`: it or the element it came from is a subnormal f32. A bf16
/// rounded up from a subnormal product may be the smallest normal number.
fn flushes(element: Element, result: f64, from: f64) -> bool {
    let smallest = f64::from(f32::MIN_POSITIVE);
    match element {
        Element::F32 => result.abs() < smallest || from.abs() < smallest,
        Element::Bf16 => result.abs() <= smallest || from.abs() < smallest,
        Element::F64 | Element::F16 => false,
    }
}

/// The distance of neighbours at `value` in the format.
pub(crate) fn ulp(element: Element, value: f64) -> f64 {
    // An f64's exponent field is floor(log2), unless the value is far below all these formats.
    let exponent = ((value.abs().to_bits() >> 52) as i32 - 1023).max(element.min_exponent());
    2f64.powi(exponent - element.mantissa_bits() as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulps_are_those_of_the_format() {
        assert_eq!(ulp(Element::F32, 1.0), f64::from(f32::EPSILON));
        assert_eq!(ulp(Element::F32, -3.9), 2.0 * f64::from(f32::EPSILON));
        assert_eq!(ulp(Element::F32, 0.0), f64::from(f32::from_bits(1)));
        assert_eq!(ulp(Element::F16, 1024.0), 1.0);
        assert_eq!(ulp(Element::Bf16, 128.0), 1.0);
    }

    #[test]
    fn only_subnormals_may_be_flushed() {
        let data = |values: &[f32]| Data::F32(values.to_vec());
        let mut findings = Findings::default();
        findings.elements(&data(&[1.0, 1.0]), &data(&[1e-40, 0.5]), &data(&[0.0, 0.5]), 0..2);
        assert_eq!((findings.wrong, findings.flushed), (0, 1));
        findings.elements(&data(&[1.0]), &data(&[1e-30]), &data(&[0.0]), 0..1);
        assert_eq!(findings.wrong, 1);
        let mut findings = Findings::default();
        findings.elements(&data(&[1.0]), &data(&[1.0]), &data(&[1.0 + f32::EPSILON]), 0..1);
        assert_eq!((findings.wrong, findings.worst), (1, 1.0));
        findings.value(f64::NAN, 1.0);
        assert_eq!(findings.wrong, 2);
    }
}
