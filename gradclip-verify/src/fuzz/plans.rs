//! Placements and limits, also those that nobody would ask for: planned rightly, or refused.

use arbitrary::{Arbitrary, Result, Unstructured};
use gradclip::plan::{Placement, Plan, PlanLimits};
use gradclip::{Clip, DType};

use crate::inputs::limits;
use crate::plans::check;

/// Between these only the tables would grow, to gigabytes.
const MOST_ELEMENTS: u64 = 1 << 24;

/// A number that is small, near a power of two, or any.
fn number(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.int_in_range(0..=2)? {
        0 => u.int_in_range(0..=100_000)?,
        1 => (1u64 << u.int_in_range(0..=63)?).wrapping_sub(2).wrapping_add(u.int_in_range(0..=4)?),
        _ => u64::arbitrary(u)?,
    })
}

fn placement(u: &mut Unstructured<'_>, i: usize) -> Result<Placement> {
    let elements = number(u)?;
    Ok(Placement {
        name: format!("t{i}"),
        buffer: u.int_in_range(0..=3)?,
        offset: number(u)?,
        elements: if elements > MOST_ELEMENTS { elements | 1 << 42 } else { elements },
        dtype: *u.choose(&[DType::F32, DType::F16, DType::Bf16])?,
        ..Placement::default()
    })
}

fn any_limits(u: &mut Unstructured<'_>) -> Result<PlanLimits> {
    let slots = u.int_in_range(1..=40)?;
    Ok(PlanLimits {
        slots,
        bindings: slots,
        alone_from: *u.choose(&[0, 1 << 12, 1 << 16, u64::MAX])?,
        short_from: u.int_in_range(0..=20)?,
        vectors: bool::arbitrary(u)?,
        block: *u.choose(&[1, 2, 4096])?,
        max_binding: number(u)?.max(1 << 17) & !3,
        alignment: *u.choose(&[4, 16, 32, 64, 256, 4096])?,
        max_workgroups: u.int_in_range(1..=70_000)?,
        workgroup_size: *u.choose(&[32, 64, 256])?,
        storage: 8,
        ..limits()
    })
}

pub(super) fn whatever_is_asked_for(u: &mut Unstructured<'_>) -> Result<bool> {
    let limits = any_limits(u)?;
    let sizes = [number(u)?, number(u)?, number(u)?, number(u)?];
    let count = u.int_in_range(0..=12)?;
    let mut tensors = (0..count).map(|i| placement(u, i)).collect::<Result<Vec<_>>>()?;
    tensors.iter_mut().for_each(|tensor| tensor.buffer_size = sizes[tensor.buffer]);
    let clip = if bool::arbitrary(u)? { Clip::measure() } else { Clip::per_tensor_norm(1.0) };
    match Plan::new(&tensors, &clip, &limits) {
        Ok(plan) => check(&plan, &tensors, &limits),
        // A refusal says something.
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    Ok(true)
}
