//! One gradient set through the CPU path and through f64 arithmetic, which shares nothing with it.

use gradclip::cpu::{self, GradMut};
use gradclip::{Clip, NonFinite, NormType, Report, Scope, SegmentReport};

use crate::cases::Case;
use crate::failure::Failure;
use crate::tally::{Findings, Tally, ulp};
use crate::tensor::{Data, Element, Tensor};

/// The error of an L1, L2 or infinity norm: half an ulp of rounding, and what the sum drops.
const NORM: f64 = 0.65;
/// The coefficient's: half an ulp, and f64's own.
const COEFFICIENT: f64 = 0.501;
/// A clipped f32's beside the norm's: quotient, scale and product are rounded.
const APPLIED: f64 = 2.5;
/// A clipped half's: rounded once, what went before hardly shows.
const APPLIED_HALF: f64 = 0.51;

pub(crate) fn tallies() -> Vec<Tally> {
    ["norm", "power", "coefficient", "apply"].map(Tally::new).to_vec()
}

pub(crate) fn check(name: &str, case: Case, tallies: &mut [Tally]) -> Result<(), Failure> {
    let Case { mut tensors, clip, .. } = case;
    let before: Vec<Data> = tensors.iter().map(|t| t.data.clone()).collect();
    let mut grads: Vec<GradMut<'_>> = tensors.iter_mut().map(Tensor::grad).collect();
    let report = cpu::clip(&mut grads, &clip)?;
    drop(grads);
    let norms = norms(&before, &report, &clip);
    let (exact, power) = match clip.norm {
        NormType::P(_) => (Findings::default(), norms),
        _ => (norms, Findings::default()),
    };
    let findings = [exact, power, coefficients(&report, &clip), elements(&before, &tensors, &report, &clip)];
    for (tally, findings) in tallies.iter_mut().zip(&findings).filter(|(_, f)| f.compared > 0) {
        tally.add(name, findings);
    }
    Ok(())
}

/// The largest error of a norm in ulp.
fn most(norm: NormType) -> f64 {
    match norm {
        // Records are rounded to f32, and the root divides their error by p.
        NormType::P(p) => 2.0 * (2.0 + 3.0 / f64::from(p)),
        _ => NORM,
    }
}

/// Norms of tensors and segments.
fn norms(before: &[Data], report: &Report, clip: &Clip) -> Findings {
    let mut findings = Findings::default();
    let mut check = |tensors: &mut dyn Iterator<Item = &Data>, reported: f64| {
        let exact = norm(tensors, clip);
        let error = match (exact.is_finite(), exact.is_nan() && reported.is_nan()) {
            (true, _) => (reported - exact).abs() / ulp(Element::F32, exact),
            (false, true) => 0.0,
            // Infinite.
            (false, false) => f64::from(u8::from(reported != exact)),
        };
        findings.value(error, most(clip.norm));
    };
    for (data, tensor) in before.iter().zip(&report.tensors) {
        check(&mut std::iter::once(data), tensor.norm);
    }
    for (i, segment) in report.segments.iter().enumerate() {
        let own = before.iter().zip(&report.tensors).filter(|(_, t)| t.segment == i || global(clip));
        check(&mut own.map(|(data, _)| data), segment.norm);
    }
    findings
}

fn global(clip: &Clip) -> bool {
    clip.scope == Scope::Global
}

fn norm(tensors: &mut dyn Iterator<Item = &Data>, clip: &Clip) -> f64 {
    let sanitize = clip.non_finite == NonFinite::Sanitize;
    let p = match clip.norm {
        NormType::One => 1.0,
        NormType::P(p) => f64::from(p),
        _ => 2.0,
    };
    let (mut sum, mut largest, mut nan, mut infinite) = (0.0f64, 0.0f64, false, false);
    for data in tensors {
        for i in 0..data.len() {
            let value = data.value(i).abs();
            if value.is_finite() {
                // f64 holds these powers of any f32, for the p that are tried.
                sum += if p == 2.0 { value * value } else { value.powf(p) };
                largest = largest.max(value);
            } else {
                nan |= value.is_nan();
                infinite |= value.is_infinite();
            }
        }
    }
    let unscale = f64::from(clip.unscale);
    match clip.norm {
        _ if nan && !sanitize => f64::NAN,
        _ if infinite && !sanitize => f64::INFINITY,
        NormType::Inf => largest * unscale,
        _ => sum.powf(1.0 / p) * unscale,
    }
}

/// Coefficients against the norms reported beside them.
fn coefficients(report: &Report, clip: &Clip) -> Findings {
    let mut findings = Findings::default();
    for segment in &report.segments {
        let expected = match clip.non_finite {
            NonFinite::Zero if segment.non_finite > 0 => 0.0,
            NonFinite::Nan if segment.non_finite > 0 => f64::NAN,
            NonFinite::Skip if segment.non_finite > 0 => 1.0,
            _ => quotient(segment, clip),
        };
        let got = f64::from(segment.coefficient);
        let error = match expected.is_nan() {
            true => f64::from(u8::from(!got.is_nan())),
            false => (got - expected).abs() / ulp(Element::F32, expected),
        };
        findings.value(error, COEFFICIENT);
    }
    findings
}

/// threshold / (norm + eps) where the norm exceeds the threshold, else 1.
fn quotient(segment: &SegmentReport, clip: &Clip) -> f64 {
    let threshold = f64::from(clip.threshold);
    if segment.norm > threshold {
        // The sum is rounded to f32 too, as whoever adds an eps of f32 expects.
        threshold / rounded(segment.norm + f64::from(clip.eps))
    } else {
        1.0
    }
}

/// Rounds to the 24 bits of an f32, also above its largest.
fn rounded(value: f64) -> f64 {
    let unit = ulp(Element::F32, value);
    (value / unit).round_ties_even() * unit
}

/// Every element against f64, with the norm in f64 too.
fn elements(before: &[Data], after: &[Tensor], report: &Report, clip: &Clip) -> Findings {
    let mut findings = Findings::default();
    let factors: Vec<Option<f64>> = report
        .segments
        .iter()
        .enumerate()
        .map(|(i, segment)| {
            let own = before.iter().zip(&report.tensors).filter(|(_, t)| t.segment == i);
            factor(segment, norm(&mut own.map(|(data, _)| data), clip), clip)
        })
        .collect();
    for ((before, after), tensor) in before.iter().zip(after).zip(&report.tensors) {
        let (segment, factor) = (&report.segments[tensor.segment], factors[tensor.segment]);
        let Some(factor) = factor else {
            // Left alone, bit for bit.
            let same = before.bytes() == after.data.bytes();
            findings.value(if same { 0.0 } else { f64::INFINITY }, 0.0);
            continue;
        };
        let element = before.element();
        let applied = if element == Element::F32 { APPLIED + most(clip.norm) } else { APPLIED_HALF };
        let offending = segment.non_finite > 0;
        for i in 0..before.len() {
            let (from, to) = (before.value(i), after.data.value(i));
            let expected = match clip.non_finite {
                NonFinite::Zero if offending => 0.0,
                NonFinite::Nan if offending => f64::NAN,
                _ if !from.is_finite() => 0.0,
                _ => from * factor,
            };
            if expected.is_nan() {
                findings.value(f64::from(u8::from(!to.is_nan())), 0.0);
            } else {
                findings.value(distance(element, to, expected), applied);
            }
        }
    }
    findings
}

/// What elements are multiplied by, `None` where they keep every bit.
fn factor(segment: &SegmentReport, norm: f64, clip: &Clip) -> Option<f64> {
    if segment.non_finite > 0 {
        match clip.non_finite {
            NonFinite::Skip => return None,
            NonFinite::Zero | NonFinite::Nan => return Some(0.0),
            _ => {}
        }
    }
    let unscale = f64::from(clip.unscale);
    // Whether a norm within its own error of the threshold exceeds it is the report's to say.
    let factor = match segment.norm > f64::from(clip.threshold) {
        true => f64::from(clip.threshold) / (norm + f64::from(clip.eps)) * unscale,
        false => unscale,
    };
    (factor != 1.0 || segment.non_finite > 0).then_some(factor)
}

/// Ulp between a result and what it should be. The number after the largest is infinity.
fn distance(element: Element, got: f64, expected: f64) -> f64 {
    let largest = match element {
        Element::F32 => f64::from(f32::MAX),
        Element::F16 => half::f16::MAX.to_f64(),
        Element::Bf16 => half::bf16::MAX.to_f64(),
    };
    let unit = ulp(element, expected.abs().min(largest));
    let last = |value: f64| value.clamp(-largest - unit, largest + unit);
    (last(got) - last(expected)).abs() / unit
}
