// gradient, accumulator -> accumulator: the sum over micro-batches. A segment that is skipped adds nothing.

fn idle() -> bool {
    return false;
}

// The sum of two f32. With 0 it is the other one, of which a driver might flush a subnormal; two zeros are
// negative only where both are.
fn sum_of(a: u32, b: u32) -> u32 {
    if (a & 0x7fffffffu) == 0u {
        return select(b, a & b, (b & 0x7fffffffu) == 0u);
    }
    if (b & 0x7fffffffu) == 0u {
        return a;
    }
    return bitcast<u32>(within(bitcast<f32>(a) + bitcast<f32>(b), is_finite(a) && is_finite(b)));
}

//@each slot
fn element_SLOT(row: JointRow, tensor: JointTensor, i: u32, gradient: u32, outcome: Outcome) {
    let at = row.parameter + i;
    if (outcome.flags & SKIPPED) != 0u {
        if job.begins == 1u {
            ROLE1[at] = 0u;
        }
        return;
    }
    if job.begins == 1u {
        ROLE1[at] = gradient;
    } else {
        ROLE1[at] = sum_of(ROLE1[at], gradient);
    }
}
//@end
