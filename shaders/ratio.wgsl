// The squares of each tensor's update and parameter -> the factor of its update; src/cpu/ratio.rs is the twin, to the bit.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> hyper: Hyper;
@group(0) @binding(2) var<uniform> progress: Progress;
@group(0) @binding(3) var<storage, read> sums: array<Sum>;
@group(0) @binding(4) var<storage, read_write> tensors: array<FusedTensor>;

// The root of the squares, at most 24 bits whatever their size.
fn length_of(sum: Sum) -> Rounded {
    let mantissa = U96(sum.mantissa[0], sum.mantissa[1], sum.mantissa[2]);
    return rounded(square_root(mantissa, 2 * (i32(sum.exponent) - 150) - i32(GUARD)), NO_MIN_EXPONENT);
}

fn real_of(a: Rounded) -> Real {
    return normalised(a.mantissa, a.exponent, 0u);
}

fn product_of(a: u32, b: Rounded) -> Rounded {
    return rounded(multiply(from_f32(a), real_of(b)), NO_MIN_EXPONENT);
}

// 1 at most: by how much the root of the mean square is over its limit.
fn within_limit(update: Sum, elements: u32) -> u32 {
    if update.non_finite != 0u {
        return select(0u, QUIET_NAN_BITS, update.nan != 0u);
    }
    let root = rounded(square_root(U96(elements, 0u, 0u), 0), NO_MIN_EXPONENT);
    let most = product_of(hyper.limit, root);
    let length = length_of(update);
    if !exceeds(length, most) {
        return ONE_BITS;
    }
    return to_f32(rounded(quotient(most, length), F32_MIN_EXPONENT));
}

fn sum_of(a: Rounded, b: Rounded) -> Rounded {
    return rounded(add(a, b), NO_MIN_EXPONENT);
}

fn trust_ratio(update: Sum, parameter: Sum, weight_decay: u32) -> u32 {
    if (update.nan | parameter.nan) != 0u || (update.non_finite != 0u && parameter.non_finite != 0u) {
        return QUIET_NAN_BITS;
    }
    if update.non_finite != 0u {
        return 0u;
    }
    if parameter.non_finite != 0u {
        return hyper.limit_most;
    }
    let own = length_of(update);
    let size = length_of(parameter);
    if own.mantissa == 0u || size.mantissa == 0u {
        return ONE_BITS;
    }
    var divisor = own;
    if (hyper.flags & NORMS_APART) != 0u {
        divisor = sum_of(own, product_of(weight_decay, size));
    }
    divisor = sum_of(divisor, exactly(hyper.limit_eps));
    let ratio = to_f32(rounded(quotient(product_of(hyper.limit, size), divisor), F32_MIN_EXPONENT));
    return min(min(ratio, LARGEST_BITS), hyper.limit_most);
}

@compute @workgroup_size(WORKGROUP)
fn ratio(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = index_in_grid(group, groups) * WORKGROUP + lane;
    if i >= job.rows || progress.moves == 0u {
        return;
    }
    // A tensor that is left out has sums of nothing, and so a factor of 1.
    if (hyper.flags & RATIOS) == 0u {
        tensors[i].ratio = ONE_BITS;
    } else if (hyper.flags & TRUST_RATIO) != 0u {
        tensors[i].ratio = trust_ratio(sums[2u * i], sums[2u * i + 1u], tensors[i].weight_decay);
    } else {
        tensors[i].ratio = within_limit(sums[2u * i], tensors[i].elements);
    }
}
