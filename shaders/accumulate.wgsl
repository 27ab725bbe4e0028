// gradient, accumulator -> accumulator: the sum over micro-batches. A segment that is skipped adds nothing.

struct Own {
    sum: u32,
}

//@each slot
fn own_SLOT(row: FusedRow, i: u32) -> Own {
    if job.begins == 1u {
        return Own(0u);
    }
    return Own(OPERAND1[row.parameter + i]);
}

fn put_SLOT(row: FusedRow, i: u32, own: Own) {
    OPERAND1[row.parameter + i] = own.sum;
}
//@end

// Whether what belongs to a gradient with this outcome stays as it is.
fn passes_over(outcome: Outcome) -> bool {
    return (outcome.flags & LEFT_OUT) != 0u || ((outcome.flags & SKIPPED) != 0u && job.begins == 0u);
}

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

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    if job.begins == 1u {
        return Own(select(gradient, 0u, (outcome.flags & SKIPPED) != 0u));
    }
    return Own(sum_of(own.sum, gradient));
}
