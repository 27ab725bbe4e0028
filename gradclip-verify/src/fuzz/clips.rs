//! A set of any bits under any rule, by the CPU path and by `f64` and exact integers.

use arbitrary::{Arbitrary, Result, Unstructured};
use gradclip::{Clip, NonFinite, Rule, Scope};
use half::{bf16, f16};

use crate::check::cpu;
use crate::gpu::Placing;
use crate::inputs::{Case, NORMS, RULES, SCOPES, checked};
use crate::tensor::{Data, Named, Tensor};

/// Of elements other than 0, so that norms stay normal: f32 has few bits for those below, and the oracle many.
const LEAST_FIELD: u32 = 20;
/// More of them would find no more, and take longer.
const MOST_ROWS: u64 = 40;

fn data(u: &mut Unstructured<'_>, len: usize) -> Result<Data> {
    let each = |u: &mut Unstructured<'_>| -> Result<Vec<u32>> {
        // Neighbours of like size, as gradients are, or any bits.
        let like = bool::arbitrary(u)?.then_some(u.int_in_range(0..=254u32)?);
        (0..len)
            .map(|_| {
                let bits = u32::arbitrary(u)?;
                let bits =
                    like.map_or(bits, |field| (bits & 0x807f_ffff) | ((field.max(4) - (bits & 3)) << 23));
                Ok(if bits >> 23 & 0xff < LEAST_FIELD { 0 } else { bits })
            })
            .collect()
    };
    let bits = each(u)?;
    let halves = bits.iter().map(|bits| (bits >> 16) as u16);
    Ok(match u.int_in_range(0..=2)? {
        0 => Data::F32(bits.iter().copied().map(f32::from_bits).collect()),
        1 => Data::F16(halves.map(f16::from_bits).collect()),
        _ => Data::Bf16(halves.map(bf16::from_bits).collect()),
    })
}

/// An `f32` that is positive, finite and normal, or 0, or infinite.
fn magnitude(u: &mut Unstructured<'_>) -> Result<f32> {
    Ok(match u.int_in_range(0..=7)? {
        0 => f32::INFINITY,
        1 => 0.0,
        2 => 1.0,
        _ => f32::from_bits(u32::arbitrary(u)? % 0x7f80_0000).max(1e-30),
    })
}

fn clip(u: &mut Unstructured<'_>) -> Result<Clip> {
    let policies = [NonFinite::Skip, NonFinite::Zero, NonFinite::Sanitize, NonFinite::Nan, NonFinite::Keep];
    let mut clip = Clip::global_norm(magnitude(u)?)
        .norm_type(*u.choose(&NORMS)?)
        .scope(*u.choose(&SCOPES)?)
        .on_non_finite(*u.choose(&policies)?);
    // A norm below the normal range of f32 has few bits, which only a rule that divides by every norm shows.
    clip.rule = *u.choose(&RULES.map(|rule| if rule == Rule::Normalize { Rule::Norm } else { rule }))?;
    if bool::arbitrary(u)? {
        clip = clip.unscale(magnitude(u)?.clamp(1e-3, 1e3));
    }
    // With an eps the tolerance of norms that are never above their limit is too narrow.
    if bool::arbitrary(u)? && clip.scope != Scope::Row {
        clip = clip.eps(*u.choose(&[0.0, 1e-6, 1.0])?);
    }
    if bool::arbitrary(u)? {
        clip = clip.total(magnitude(u)?);
    }
    Ok(checked(clip))
}

fn tensor(u: &mut Unstructured<'_>, i: usize, rows: u64, clip: &Clip) -> Result<Tensor> {
    let shape = [rows, u.int_in_range(1..=30)?];
    let len = (shape[0] * shape[1]) as usize;
    let mut tensor = Tensor::new(format!("t{i}"), data(u, len)?).shape(&shape);
    if matches!(clip.rule, Rule::Agc { .. }) {
        // The oracle has no parameters that are not finite.
        let finite = |x: f64| if x.is_finite() { x as f32 } else { 1.0 };
        let parameter = data(u, len)?;
        tensor = tensor.parameter((0..len).map(|i| finite(parameter.value(i))).collect::<Vec<f32>>());
    }
    if clip.scope == Scope::Group {
        let groups = [Some(Named::new("own", 0.5)), Some(Named::excluded("out")), None];
        tensor.group = *u.choose(&groups)?;
    }
    Ok(tensor)
}

pub(super) fn any_set_under_any_rule(u: &mut Unstructured<'_>) -> Result<bool> {
    let clip = clip(u)?;
    let rows = u.int_in_range(1..=MOST_ROWS)?;
    let count = u.int_in_range(0..=4)?;
    let tensors = (0..count).map(|i| tensor(u, i, rows, &clip)).collect::<Result<Vec<_>>>()?;
    let case = Case { tensors, placing: Placing::PACKED, clip };
    let told = case.clone();
    // Some combinations are refused.
    let Ok(found) = cpu::check(case) else { return Ok(false) };
    for (what, findings) in found {
        assert!(findings.wrong == 0, "{what}: {findings:?} of {told:?}");
    }
    Ok(true)
}
