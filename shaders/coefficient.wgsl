// sum and setting of each segment -> outcome. One invocation a segment; src/cpu/coefficient.rs
// is its twin, to the bit.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> sums: array<Sum>;
@group(0) @binding(2) var<storage, read> settings: array<Setting>;
@group(0) @binding(3) var<storage, read_write> outcomes: array<Outcome>;

fn norm_of(sum: Sum) -> Real {
    let mantissa = U96(sum.mantissa[0], sum.mantissa[1], sum.mantissa[2]);
    if NORM == NORM_INF {
        return from_f32(sum.exponent);
    }
    if NORM == NORM_ONE {
        return normalised96(mantissa, i32(sum.exponent) - 174 - i32(GUARD));
    }
    if NORM == NORM_P {
        return power_norm(sum);
    }
    return square_root(mantissa, 2 * (i32(sum.exponent) - 150) - i32(GUARD));
}

// largest * powers^(1/p), see shared/power.wgsl.
fn power_norm(sum: Sum) -> Real {
    if sum.exponent == 0u {
        return Real(0u, 0, 0u);
    }
    let log = clamp(log2(bitcast<f32>(sum.mantissa[0])) / P, 0.0, 60000.0);
    let whole = floor(log);
    let fraction = min(bitcast<u32>(exp2(log - whole)), 0x3fffffffu); // below 2
    let norm = multiply(from_f32(sum.exponent), from_f32(fraction));
    return Real(norm.mantissa, norm.exponent + i32(whole), norm.sticky);
}

// threshold / (norm + eps), or exactly 1 where the norm does not exceed the threshold.
fn coefficient_of(norm: Rounded, clipped: bool, setting: Setting) -> Real {
    if !clipped {
        return Real(0x80000000u, -31, 0u);
    }
    let eps = rounded(from_f32(setting.eps), NO_MIN_EXPONENT);
    let divisor = rounded(add(norm, eps), NO_MIN_EXPONENT);
    return quotient(rounded(from_f32(setting.threshold), NO_MIN_EXPONENT), divisor);
}

// 2^exponent as f32 bits, exponent in the normal range.
fn power_of_two(exponent: i32) -> u32 {
    return u32(exponent + 127) << 23u;
}

// Splits a factor so that an f32 holds it: scale, and rescale to be multiplied twice.
fn set_scale(outcome: ptr<function, Outcome>, factor: Real) {
    let exact = rounded(factor, NO_MIN_EXPONENT);
    (*outcome).rescale = ONE_BITS;
    (*outcome).scale = 0u;
    if exact.mantissa == 0u || exact.exponent < -400 {
        return;
    }
    var exponent = exact.exponent;
    if exponent < F32_MIN_EXPONENT {
        let half = (F32_MIN_EXPONENT - exponent + 1) / 2;
        (*outcome).rescale = power_of_two(-half);
        exponent += 2 * half;
    }
    (*outcome).scale = to_f32(Rounded(exact.mantissa, exponent));
}

fn decide(sum: Sum, setting: Setting) -> Outcome {
    let norm = rounded(multiply(norm_of(sum), from_f32(setting.unscale)), F32_MIN_EXPONENT);
    var out = Outcome();
    out.norm = to_f32(norm);
    out.norm_mantissa = norm.mantissa;
    out.norm_exponent = norm.exponent;
    out.threshold = setting.threshold;
    out.unscale = setting.unscale;
    out.non_finite = sum.non_finite;
    out.first_non_finite = sum.first;
    let clipped = out.norm > setting.threshold;
    let coefficient = coefficient_of(norm, clipped, setting);
    out.coefficient = to_f32(rounded(coefficient, F32_MIN_EXPONENT));
    out.flags = select(0u, CLIPPED, clipped);
    set_scale(&out, multiply(coefficient, from_f32(setting.unscale)));
    out.action = select(MULTIPLY, KEEP, out.scale == ONE_BITS && out.rescale == ONE_BITS);
    if sum.non_finite != 0u {
        decide_non_finite(&out, sum.nan, setting.policy);
    }
    return out;
}

fn decide_non_finite(out: ptr<function, Outcome>, nan: u32, policy: u32) {
    (*out).flags |= NON_FINITE | select(0u, NAN, nan != 0u);
    if policy == POLICY_SANITIZE {
        (*out).action = SANITIZE;
        return;
    }
    (*out).norm = select(INFINITY_BITS, QUIET_NAN_BITS, nan != 0u);
    (*out).norm_mantissa = 0u;
    (*out).norm_exponent = 0;
    (*out).flags &= ~CLIPPED;
    (*out).rescale = ONE_BITS;
    if policy == POLICY_SKIP {
        (*out).flags |= SKIPPED;
        (*out).coefficient = ONE_BITS;
        (*out).scale = ONE_BITS;
        (*out).action = KEEP;
        return;
    }
    let value = select(0u, QUIET_NAN_BITS, policy == POLICY_NAN);
    (*out).coefficient = value;
    (*out).scale = value;
    (*out).action = FILL;
}

@compute @workgroup_size(WORKGROUP)
fn coefficient(@builtin(workgroup_id) group: vec3<u32>,
               @builtin(num_workgroups) groups: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let segment = (group.y * groups.x + group.x) * WORKGROUP + lane;
    if segment < job.runs {
        outcomes[segment] = decide(sums[segment], settings[segment]);
    }
}
