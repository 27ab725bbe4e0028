//! One gradient set through the shaders of an adapter and through the CPU path, stage by stage.

use bytemuck::Pod;
use gradclip::cpu;
use gradclip::layout::{Outcome, Partial, Sum};
use gradclip::{NormType, Pass};

use crate::check::history::Course;
use crate::check::placed::Placed;
use crate::check::progress::Advance;
use crate::check::steps;
use crate::check::sums::Sums;
use crate::check::training::Training;
use crate::failure::Failure;
use crate::gpu::Gpu;
use crate::inputs::Case;
use crate::tally::{Findings, Tally, ulp};
use crate::tensor::Element;

pub(crate) fn tallies() -> Vec<Tally> {
    WHAT.map(Tally::new).to_vec()
}

/// What is checked, shader by shader. Seams are words that two 16-bit tensors share; power is any norm but
/// 1, 2 and infinity.
const WHAT: [&str; 15] = [
    "reduce",
    "tensors",
    "segments",
    "coefficient",
    "apply",
    "seams",
    "power",
    "reduce_units",
    "apply_units",
    "threshold",
    "advance",
    "update_sgd",
    "update_momentum",
    "update_adam",
    "accumulate",
];

/// Checks one case.
pub(crate) fn check(gpu: &Gpu, name: &str, case: Case, tallies: &mut [Tally]) -> Result<(), Failure> {
    if let NormType::P(p) = case.clip.norm {
        let findings = power(gpu, case, p)?;
        add(tallies, "power", name, &findings);
        return Ok(());
    }
    exact(gpu, case)?.iter().for_each(|(what, findings)| add(tallies, what, name, findings));
    Ok(())
}

/// Checks a threshold from step to step.
pub(crate) fn check_course(gpu: &Gpu, course: &Course, tallies: &mut [Tally]) -> Result<(), Failure> {
    let findings = course.check(gpu)?;
    add(tallies, "threshold", &course.to_string(), &findings);
    Ok(())
}

/// Checks loss scale, counts and corrections from step to step.
pub(crate) fn check_advance(gpu: &Gpu, advance: &Advance, tallies: &mut [Tally]) -> Result<(), Failure> {
    add(tallies, "advance", &advance.to_string(), &advance.check(gpu)?);
    Ok(())
}

/// Checks an optimiser's steps.
pub(crate) fn check_training(gpu: &Gpu, training: &Training, tallies: &mut [Tally]) -> Result<(), Failure> {
    let [update, advance] = steps::on_gpu(gpu, training)?;
    let name = training.to_string();
    add(tallies, training.shader(), &name, &update);
    add(tallies, "advance", &name, &advance);
    Ok(())
}

/// Checks sums of micro-batches.
pub(crate) fn check_sums(gpu: &Gpu, sums: &Sums, tallies: &mut [Tally]) -> Result<(), Failure> {
    add(tallies, "accumulate", &sums.to_string(), &sums.on_gpu(gpu)?);
    Ok(())
}

fn add(tallies: &mut [Tally], what: &str, name: &str, findings: &Findings) {
    let own = tallies.iter_mut().filter(|t| t.what == what && findings.compared > 0);
    own.for_each(|t| t.add(name, findings));
}

/// Every stage to the bit. Coefficient and apply are given the right sums, so that they are judged
/// by themselves whatever came out of the norm.
fn exact(gpu: &Gpu, mut case: Case) -> Result<[(&'static str, Findings); 7], Failure> {
    let placed = Placed::upload(gpu, &case);
    let (before, clip) = (case.tensors.clone(), case.clip);
    let expected = cpu::clip_traced(&mut case.grads(), &clip)?;

    let pass = gpu.clipper.prepare(&placed.grads, &clip)?;
    let mut encoder = gpu.encoder();
    pass.record_norm(&mut encoder);
    let sums = [pass.partials(), pass.tensor_sums(), pass.segment_sums()];
    let sums = gpu.stage(&mut encoder, sums);
    gpu.queue.submit([encoder.finish()]);
    gpu.queue.write_buffer(pass.segment_sums(), 0, bytemuck::cast_slice(&expected.segment_sums));
    let mut encoder = gpu.encoder();
    pass.record_apply(&mut encoder);
    let results = gpu.stage(&mut encoder, std::iter::once(pass.outcomes()).chain(&placed.buffers));
    gpu.queue.submit([encoder.finish()]);

    let sums = gpu.read(&sums)?;
    let results = gpu.read(&results)?;
    let norm = clip.norm;
    let partial = |a: &Partial, b: &Partial| {
        let mantissa = |p: &Partial| f64::from(p.hi) * 2f64.powi(32) + f64::from(p.lo);
        sum_error(norm, (mantissa(a), a.exponent), (mantissa(b), b.exponent))
    };
    let sum = |a: &Sum, b: &Sum| {
        let mantissa = |s: &Sum| s.mantissa.iter().rev().fold(0.0, |m, &w| m * 2f64.powi(32) + f64::from(w));
        sum_error(norm, (mantissa(a), a.exponent), (mantissa(b), b.exponent))
    };
    let [apply, seams] = placed.compare(&before, &case.tensors, &results[1..]);
    let by_units = by_units(&pass, expected.partials.len());
    let partials = |units| records(&sums[0], &expected.partials, partial, |i| by_units[i] == units);
    let all = |_| true;
    Ok([
        ("reduce", partials(false)),
        ("reduce_units", partials(true)),
        ("tensors", records(&sums[1], &expected.tensor_sums, sum, all)),
        ("segments", records(&sums[2], &expected.segment_sums, sum, all)),
        ("coefficient", records(&results[0], &expected.outcomes, outcome_error, all)),
        (if case.cut() { "apply_units" } else { "apply" }, apply),
        ("seams", seams),
    ])
}

/// Whether each partial is that of a short or scattered unit.
fn by_units(pass: &Pass, partials: usize) -> Vec<bool> {
    let mut by_units = vec![false; partials];
    for row in &pass.plan().unit_rows {
        by_units[row.partial as usize..(row.partial + row.units) as usize].fill(true);
    }
    by_units
}

/// Norms that are summed in floating point: close, not equal.
fn power(gpu: &Gpu, mut case: Case, p: f64) -> Result<Findings, Failure> {
    let placed = Placed::upload(gpu, &case);
    let clip = case.clip;
    let expected = cpu::clip_traced(&mut case.grads(), &clip)?;
    let pass = gpu.clipper.prepare(&placed.grads, &clip)?;
    let mut encoder = gpu.encoder();
    pass.record(&mut encoder);
    let outcomes = gpu.stage(&mut encoder, [pass.outcomes()]);
    gpu.queue.submit([encoder.finish()]);
    let outcomes: Vec<Outcome> =
        gpu.read(&outcomes)?.iter().flat_map(|b| bytemuck::pod_collect_to_vec(b)).collect();
    let elements: u64 = expected.report.tensors.iter().map(|t| t.elements).sum();
    // A logarithm and a power are off by some 2^-21, and the root divides that by p.
    let most = 2.0 * (8.0 * (elements as f64).log2() / p + 16.0 + 208.0 / p);
    let mut findings = Findings::default();
    for (got, expected) in outcomes.iter().zip(&expected.outcomes) {
        let norm = |o: &Outcome| f64::from(o.norm_mantissa) * 2f64.powi(o.norm_exponent);
        findings.value((norm(got) - norm(expected)).abs() / ulp(Element::F32, norm(expected)), most);
    }
    Ok(findings)
}

/// Records that must be equal in every bit, of those meant. The error only says how far off the others are.
pub(crate) fn records<T: Pod>(
    got: &[u8],
    expected: &[T],
    error: impl Fn(&T, &T) -> f64,
    meant: impl Fn(usize) -> bool,
) -> Findings {
    let mut findings = Findings::default();
    let got: Vec<T> = bytemuck::pod_collect_to_vec(&got[..size_of_val(expected)]);
    for (_, (got, expected)) in got.iter().zip(expected).enumerate().filter(|(i, _)| meant(*i)) {
        findings.compared += 1;
        if bytemuck::bytes_of(got) != bytemuck::bytes_of(expected) {
            findings.wrong += 1;
            findings.worst = findings.worst.max(error(got, expected));
        }
    }
    findings
}

/// The relative error of a sum in ulp of an f32.
fn sum_error(norm: NormType, got: (f64, u32), expected: (f64, u32)) -> f64 {
    let per_exponent = match norm {
        // The infinity norm's exponent is the norm itself, by its bits.
        NormType::Inf => return f64::from(got.1.abs_diff(expected.1)),
        NormType::One => 1,
        _ => 2,
    };
    let shift = (got.1 as i32 - expected.1 as i32).clamp(-200, 200) * per_exponent;
    match (got.0 * 2f64.powi(shift), expected.0) {
        (got, expected) if got == expected => 0.0,
        (got, expected) => (got / expected - 1.0).abs() * 2f64.powi(24),
    }
}

/// How far norm, coefficient and scale are off, in steps of an f32.
pub(crate) fn outcome_error(got: &Outcome, expected: &Outcome) -> f64 {
    let steps = |a: f32, b: f32| f64::from(a.to_bits().abs_diff(b.to_bits()));
    let pairs =
        [(got.norm, expected.norm), (got.coefficient, expected.coefficient), (got.scale, expected.scale)];
    pairs.map(|(a, b)| steps(a, b)).into_iter().fold(0.0, f64::max)
}
