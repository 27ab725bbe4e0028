//! One gradient set through the shaders of an adapter and through the CPU path, stage by stage.

use std::collections::HashSet;

use bytemuck::Pod;
use gradclip::layout::{Outcome, Partial, Sum};
use gradclip::{NormType, Pass};

use crate::check::Found;
use crate::failure::Failure;
use crate::gpu::{Gpu, Placed};
use crate::inputs::Case;
use crate::tally::{Findings, ulp};
use crate::tensor::{Element, Tensor};
use crate::tolerance::{HALF_ULP, power_on_adapter};

/// What is checked, shader by shader. Seams are words that two 16-bit tensors share; power is any norm but
/// 1, 2 and infinity.
pub(crate) const WHAT: [&str; 29] = [
    "reduce",
    "tensors",
    "segments",
    "coefficient",
    "apply",
    "seams",
    "power",
    "reduce_units",
    "apply_units",
    "given",
    "skip",
    "threshold",
    "advance",
    "update_sgd",
    "update_momentum",
    "update_lars",
    "update_adam",
    "update_amsgrad",
    "update_nadam",
    "update_radam",
    "update_spam",
    "update_adopt",
    "update_lion",
    "accumulate",
    "coalesce_places",
    "coalesce_add",
    "coalesce_long_rows",
    "private_sum",
    "private_release",
];

/// Checks one case.
pub(crate) async fn check(gpu: &Gpu, case: Case) -> Result<Found, Failure> {
    match case.clip.norm {
        NormType::P(p) => Ok(vec![("power", power(gpu, &case, p).await?)]),
        _ => exact(gpu, &case).await,
    }
}

/// Every stage to the bit. Coefficient and apply are given the right sums, so that they are judged
/// by themselves whatever came out of the norm.
async fn exact(gpu: &Gpu, case: &Case) -> Result<Found, Failure> {
    let placed = Placed::upload(gpu, &case.tensors, case.placing);
    let (expected, after) = case.traced()?;
    let pass = gpu.clipper.prepare_async(&placed.grads, &case.clip).await?;
    let sums = gpu.submit(|encoder| {
        pass.record_norm(encoder);
        gpu.stage(encoder, [pass.partials(), pass.tensor_sums(), pass.segment_sums()])
    });
    gpu.queue.write_buffer(pass.segment_sums(), 0, bytemuck::cast_slice(&expected.segment_sums));
    let results = gpu.submit(|encoder| {
        pass.record_apply(encoder);
        gpu.stage(encoder, std::iter::once(pass.outcomes()).chain(&placed.buffers))
    });
    let sums = gpu.collect_async(&sums).await?;
    let results = gpu.collect_async(&results).await?;
    let norm = case.clip.norm;
    let partial = |a: &Partial, b: &Partial| {
        let mantissa = |p: &Partial| f64::from(p.hi) * 2f64.powi(32) + f64::from(p.lo);
        sum_error(norm, (mantissa(a), a.exponent), (mantissa(b), b.exponent))
    };
    let sum = |a: &Sum, b: &Sum| {
        let mantissa = |s: &Sum| s.mantissa.iter().rev().fold(0.0, |m, &w| m * 2f64.powi(32) + f64::from(w));
        sum_error(norm, (mantissa(a), a.exponent), (mantissa(b), b.exponent))
    };
    let [apply, seams] = compare(&placed, &case.tensors, &after, &results[1..]);
    let by_units = by_units(&pass, expected.partials.len());
    let partials = |units| records(&sums[0], &expected.partials, partial, |i| by_units[i] == units);
    let all = |_| true;
    Ok(vec![
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

/// Compares every tensor, and whatever lies between tensors with what lay there before.
/// Elements in words of their tensor alone are apply's, others are those of seams.
fn compare(placed: &Placed, before: &[Tensor], expected: &[Tensor], got: &[Vec<u8>]) -> [Findings; 2] {
    let (mut apply, mut seams) = (Findings::default(), Findings::default());
    let Some(results) = placed.data(got) else {
        apply.value(f64::INFINITY, 0.0);
        return [apply, seams];
    };
    let shared = shared(placed, expected);
    let tensors = expected.iter().zip(before).zip(placed.places()).zip(&results);
    for (((tensor, before), (buffer, offset)), result) in tensors {
        let size = tensor.data.dtype().size();
        let is_shared = |i: usize| shared.contains(&(buffer, (offset + i as u64 * size) / 4));
        let len = tensor.data.len();
        let own = usize::from(is_shared(0)).min(len)..len - usize::from(len > 1 && is_shared(len - 1));
        apply.elements(&before.data, &tensor.data, result, own.clone());
        seams.elements(&before.data, &tensor.data, result, 0..own.start);
        seams.elements(&before.data, &tensor.data, result, own.end..len);
    }
    [apply, seams]
}

/// The words, by buffer, that hold elements of two tensors.
fn shared(placed: &Placed, tensors: &[Tensor]) -> HashSet<(usize, u64)> {
    let (mut seen, mut shared) = (HashSet::new(), HashSet::new());
    for (tensor, (buffer, offset)) in tensors.iter().zip(placed.places()).filter(|(t, _)| t.data.len() > 0) {
        let last = offset + tensor.data.bytes().len() as u64 - 1;
        let words = HashSet::from([(buffer, offset / 4), (buffer, last / 4)]);
        shared.extend(words.intersection(&seen));
        seen.extend(words);
    }
    shared
}

/// Norms that are summed in floating point: close, not equal.
async fn power(gpu: &Gpu, case: &Case, p: f64) -> Result<Findings, Failure> {
    let placed = Placed::upload(gpu, &case.tensors, case.placing);
    let (expected, _) = case.traced()?;
    let pass = gpu.clipper.prepare_async(&placed.grads, &case.clip).await?;
    gpu.submit(|encoder| pass.record(encoder));
    let outcomes: Vec<Outcome> = gpu.read_async(pass.outcomes(), 0..pass.outcomes().size()).await?;
    let elements = case.tensors.iter().map(|t| t.data.len()).sum();
    let most = 2.0 * power_on_adapter(p, elements) / HALF_ULP;
    let mut findings = Findings::default();
    // What is not finite has no mantissa on either side.
    let norm = |o: &Outcome| f64::from(o.norm_mantissa) * 2f64.powi(o.norm_exponent);
    for (got, expected) in outcomes.iter().zip(&expected.outcomes).map(|(a, b)| (norm(a), norm(b))) {
        findings.value((got - expected).abs() / ulp(Element::F32, expected), most);
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
