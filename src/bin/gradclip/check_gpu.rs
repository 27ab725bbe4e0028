//! One gradient set through the shaders of an adapter and through the CPU path, stage by stage.

use std::collections::HashSet;

use bytemuck::Pod;
use gradclip::cpu::{self, GradMut};
use gradclip::layout::{Outcome, Partial, Sum};
use gradclip::wgpu::BufferUsages as Usage;
use gradclip::{Grad, NormType, wgpu};

use crate::cases::Case;
use crate::failure::Failure;
use crate::gpu::Gpu;
use crate::tally::{Findings, Tally, ulp};
use crate::tensor::{Data, Element, Tensor};

/// What lies between tensors in memory and must stay.
const GUARD: u8 = 0xa5;
/// Largest offset of the first tensor, so that alignment is not taken for granted.
const LEAD: u64 = 12;

pub(crate) fn tallies() -> Vec<Tally> {
    ["reduce", "tensors", "segments", "coefficient", "apply", "seams", "power"].map(Tally::new).to_vec()
}

/// Checks one case. Seams are words that two 16-bit tensors share; power is any norm but 1, 2 and
/// infinity.
pub(crate) fn check(gpu: &Gpu, name: &str, case: Case, tallies: &mut [Tally]) -> Result<(), Failure> {
    if let NormType::P(p) = case.clip.norm {
        let findings = power(gpu, case, p.into())?;
        tallies.iter_mut().filter(|t| t.what == "power").for_each(|t| t.add(name, &findings));
        return Ok(());
    }
    let findings = exact(gpu, case)?;
    for (tally, findings) in tallies.iter_mut().zip(&findings).filter(|(_, f)| f.compared > 0) {
        tally.add(name, findings);
    }
    Ok(())
}

/// Every stage to the bit. Coefficient and apply are given the right sums, so that they are judged
/// by themselves whatever came out of the norm.
fn exact(gpu: &Gpu, mut case: Case) -> Result<[Findings; 6], Failure> {
    let placed = Placed::upload(gpu, &case);
    let before: Vec<Data> = case.tensors.iter().map(|t| t.data.clone()).collect();
    let mut grads: Vec<GradMut<'_>> = case.tensors.iter_mut().map(Tensor::grad).collect();
    let expected = cpu::clip_traced(&mut grads, &case.clip)?;
    drop(grads);

    let pass = gpu.clipper.prepare(&placed.grads, &case.clip)?;
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
    let norm = case.clip.norm;
    let partial = |a: &Partial, b: &Partial| {
        let mantissa = |p: &Partial| f64::from(p.hi) * 2f64.powi(32) + f64::from(p.lo);
        sum_error(norm, (mantissa(a), a.exponent), (mantissa(b), b.exponent))
    };
    let sum = |a: &Sum, b: &Sum| {
        let mantissa = |s: &Sum| s.mantissa.iter().rev().fold(0.0, |m, &w| m * 2f64.powi(32) + f64::from(w));
        sum_error(norm, (mantissa(a), a.exponent), (mantissa(b), b.exponent))
    };
    let [apply, seams] = placed.compare(&before, &case.tensors, &results[1..]);
    Ok([
        records(&sums[0], &expected.partials, partial),
        records(&sums[1], &expected.tensor_sums, sum),
        records(&sums[2], &expected.segment_sums, sum),
        records(&results[0], &expected.outcomes, outcome_error),
        apply,
        seams,
    ])
}

/// Norms that are summed in floating point: close, not equal.
fn power(gpu: &Gpu, mut case: Case, p: f64) -> Result<Findings, Failure> {
    let placed = Placed::upload(gpu, &case);
    let mut grads: Vec<GradMut<'_>> = case.tensors.iter_mut().map(Tensor::grad).collect();
    let expected = cpu::clip(&mut grads, &case.clip)?;
    let pass = gpu.clipper.prepare(&placed.grads, &case.clip)?;
    let mut encoder = gpu.encoder();
    pass.record(&mut encoder);
    let outcomes = gpu.stage(&mut encoder, [pass.outcomes()]);
    gpu.queue.submit([encoder.finish()]);
    let outcomes: Vec<Outcome> =
        gpu.read(&outcomes)?.iter().flat_map(|b| bytemuck::pod_collect_to_vec(b)).collect();
    let elements: u64 = expected.tensors.iter().map(|t| t.elements).sum();
    // A logarithm and a power are off by some 2^-21, and the root divides that by p.
    let most = 2.0 * (8.0 * (elements as f64).log2() / p + 16.0 + 208.0 / p);
    let mut findings = Findings::default();
    for (got, expected) in outcomes.iter().zip(&expected.segments) {
        let norm = f64::from(got.norm_mantissa) * 2f64.powi(got.norm_exponent);
        findings.value((norm - expected.norm).abs() / ulp(Element::F32, expected.norm), most);
    }
    Ok(findings)
}

/// Gradients on the device: in one arena, packed without gaps but for alignment, or in buffers of
/// their own.
struct Placed {
    buffers: Vec<wgpu::Buffer>,
    grads: Vec<Grad>,
    /// Buffer and first byte of each tensor.
    places: Vec<(usize, u64)>,
    /// What the buffers hold, tensors and gaps.
    contents: Vec<Vec<u8>>,
}

impl Placed {
    fn upload(gpu: &Gpu, case: &Case) -> Placed {
        let mut contents: Vec<Vec<u8>> = Vec::new();
        let mut places = Vec::new();
        for (i, tensor) in case.tensors.iter().enumerate() {
            if contents.is_empty() || !case.arena {
                contents.push(vec![GUARD; (i as u64 * 4 % (LEAD + 4)) as usize]);
            }
            let buffer = contents.len() - 1;
            let bytes = &mut contents[buffer];
            let size = tensor.data.dtype().size() as usize;
            bytes.resize(bytes.len().next_multiple_of(size), GUARD);
            places.push((buffer, bytes.len() as u64));
            bytes.extend_from_slice(tensor.data.bytes());
        }
        for bytes in &mut contents {
            bytes.resize(bytes.len().next_multiple_of(4).max(4), GUARD);
        }
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let buffers: Vec<wgpu::Buffer> =
            contents.iter().map(|bytes| gpu.buffer(bytes.len() as u64, usage)).collect();
        for (buffer, bytes) in buffers.iter().zip(&contents) {
            gpu.queue.write_buffer(buffer, 0, bytes);
        }
        let grad = |(t, &(buffer, offset)): (&Tensor, &(usize, u64))| {
            Grad::range(&t.name, &buffers[buffer], offset, t.data.len() as u64).dtype(t.data.dtype())
        };
        let grads = case.tensors.iter().zip(&places).map(grad).collect();
        Placed { buffers, grads, places, contents }
    }

    /// Compares every tensor, and whatever lies between tensors with what lay there before.
    /// Elements in words of their tensor alone are apply's, others are those of seams.
    fn compare(&self, before: &[Data], expected: &[Tensor], got: &[Vec<u8>]) -> [Findings; 2] {
        let (mut apply, mut seams) = (Findings::default(), Findings::default());
        let mut gaps: Vec<Vec<u8>> = got.to_vec();
        let shared = self.shared(expected);
        for ((tensor, before), &(buffer, offset)) in expected.iter().zip(before).zip(&self.places) {
            let range = offset as usize..offset as usize + tensor.data.bytes().len();
            let result = Data::from_bytes(tensor.data.element(), &got[buffer][range.clone()]);
            let size = tensor.data.dtype().size();
            let is_shared = |i: usize| shared.contains(&(buffer, (offset + i as u64 * size) / 4));
            let len = tensor.data.len();
            let own = usize::from(is_shared(0)).min(len)..len - usize::from(len > 1 && is_shared(len - 1));
            apply.elements(before, &tensor.data, &result, own.clone());
            seams.elements(before, &tensor.data, &result, 0..own.start);
            seams.elements(before, &tensor.data, &result, own.end..len);
            gaps[buffer][range.clone()].copy_from_slice(&self.contents[buffer][range]);
        }
        let touched = gaps.iter().zip(&self.contents).filter(|(a, b)| a != b).count();
        apply.wrong += touched as u64;
        [apply, seams]
    }

    /// The words, by buffer, that hold elements of two tensors.
    fn shared(&self, tensors: &[Tensor]) -> HashSet<(usize, u64)> {
        let mut seen = HashSet::new();
        let mut shared = HashSet::new();
        for (tensor, &(buffer, offset)) in tensors.iter().zip(&self.places).filter(|(t, _)| t.data.len() > 0)
        {
            let last = offset + tensor.data.bytes().len() as u64 - 1;
            let words = HashSet::from([(buffer, offset / 4), (buffer, last / 4)]);
            shared.extend(words.intersection(&seen));
            seen.extend(words);
        }
        shared
    }
}

/// Records that must be equal in every bit. The error only says how far off the others are.
fn records<T: Pod>(got: &[u8], expected: &[T], error: impl Fn(&T, &T) -> f64) -> Findings {
    let mut findings = Findings { compared: expected.len() as u64, ..Findings::default() };
    let got: Vec<T> = bytemuck::pod_collect_to_vec(&got[..size_of_val(expected)]);
    for (got, expected) in got.iter().zip(expected) {
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
fn outcome_error(got: &Outcome, expected: &Outcome) -> f64 {
    let steps = |a: f32, b: f32| f64::from(a.to_bits().abs_diff(b.to_bits()));
    let pairs =
        [(got.norm, expected.norm), (got.coefficient, expected.coefficient), (got.scale, expected.scale)];
    pairs.map(|(a, b)| steps(a, b)).into_iter().fold(0.0, f64::max)
}
