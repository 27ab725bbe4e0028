// gradient, accumulator -> accumulator: the sum over micro-batches. A segment that is skipped adds nothing.

fn idle() -> bool {
    return false;
}

// The sum of two f32, by integer code where a driver could flush a subnormal.
fn sum_of(a: u32, b: u32) -> u32 {
    if (a & 0x7fffffffu) == 0u {
        return b;
    }
    if (b & 0x7fffffffu) == 0u {
        return a;
    }
    return bitcast<u32>(bitcast<f32>(a) + bitcast<f32>(b));
}

//@each slot
fn element_SLOT(row: JointRow, tensor: JointTensor, i: u32, outcome: Outcome) {
    if (outcome.flags & LEFT_OUT) != 0u {
        return;
    }
    let at = row.parameter + i;
    var gradient = applied(element_bits(ROLE0[word_of(row.start + i)], row.start + i), outcome);
    if (outcome.flags & SKIPPED) != 0u {
        gradient = 0u;
    }
    if job.begins == 1u {
        ROLE1[at] = gradient;
    } else {
        ROLE1[at] = sum_of(ROLE1[at], gradient);
    }
}
//@end
