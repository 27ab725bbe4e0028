// sum and setting of a segment -> outcome, as src/cpu/coefficient.rs does, to the bit.

const AGC_LEAST_NORM: u32 = 0x358637bdu; // 1e-6
const F32_MAX_EXPONENT: i32 = 104; // of a mantissa of 24 bits

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
    // A power of 1 has the largest magnitude alone, whatever a driver makes of its logarithm.
    if sum.mantissa[0] == ONE_BITS {
        return from_f32(sum.exponent);
    }
    let log = clamp(log2(bitcast<f32>(sum.mantissa[0])) / P, 0.0, 60000.0);
    let whole = floor(log);
    let fraction = min(bitcast<u32>(exp2(log - whole)), 0x3fffffffu); // below 2
    let norm = multiply(from_f32(sum.exponent), from_f32(fraction));
    return Real(norm.mantissa, norm.exponent + i32(whole), norm.sticky);
}

// The norm of the unscaled gradients as it is reported and compared.
fn unscaled_norm(sum: Sum, unscale: u32) -> Rounded {
    return rounded(multiply(norm_of(sum), from_f32(unscale)), F32_MIN_EXPONENT);
}

// The same norm, never below that of the unscaled gradients: sums and roots drop bits downwards, less than a
// share of 2^-26 of them.
fn norm_above(sum: Sum, unscale: u32) -> Rounded {
    var norm = norm_of(sum);
    if NORM != NORM_INF {
        norm = enlarged(norm, (norm.mantissa >> 26u) + 2u);
    }
    return rounded_up(multiply(norm, from_f32(unscale)));
}

// To nearest, or down where nothing may be above its limit.
fn rounded_for(value: Real, least: i32, setting: Setting) -> Rounded {
    if setting.below == 1u {
        return rounded_down(value, least);
    }
    return rounded(value, least);
}

fn larger(a: Rounded, b: Rounded) -> Rounded {
    if exceeds(a, b) {
        return a;
    }
    return b;
}

// The largest norm allowed; `parameters` is the sum of the parameters where the rule compares with it.
fn limit_of(setting: Setting, parameters: Sum) -> Real {
    let threshold = from_f32(setting.threshold);
    let lifted = Real(threshold.mantissa, threshold.exponent + setting.lift, 0u);
    if setting.rule != RULE_AGC {
        return lifted;
    }
    let size = larger(rounded_for(norm_of(parameters), F32_MIN_EXPONENT, setting), exactly(setting.floor));
    return multiply(lifted, normalised(size.mantissa, size.exponent, 0u));
}

// limit / (norm + eps).
fn quotient_of(norm: Rounded, limit: Rounded, setting: Setting) -> Real {
    let sum = add(norm, exactly(setting.eps));
    var divisor = rounded(sum, NO_MIN_EXPONENT);
    if setting.below == 1u {
        divisor = rounded_up(sum);
    }
    if setting.rule == RULE_AGC {
        divisor = larger(divisor, exactly(AGC_LEAST_NORM));
    }
    return quotient(limit, divisor);
}

// 2^exponent as f32 bits, exponent in the normal range.
fn power_of_two(exponent: i32) -> u32 {
    return u32(exponent + 127) << 23u;
}

// Splits a factor so that an f32 holds it: scale, and rescale to be multiplied twice.
fn set_scale(outcome: ptr<function, Outcome>, exact: Rounded) {
    (*outcome).rescale = ONE_BITS;
    (*outcome).scale = 0u;
    if exact.mantissa == 0u || exact.exponent < -400 {
        return;
    }
    var exponent = exact.exponent;
    var half = 0;
    if exponent < F32_MIN_EXPONENT {
        half = -(F32_MIN_EXPONENT - exponent + 1) / 2;
    } else if exponent > F32_MAX_EXPONENT {
        half = min((exponent - F32_MAX_EXPONENT + 1) / 2, 127);
    }
    (*outcome).rescale = power_of_two(half);
    exponent -= 2 * half;
    (*outcome).scale = to_f32(Rounded(exact.mantissa, exponent));
}

fn decide(sum: Sum, setting: Setting, parameters: Sum) -> Outcome {
    let norm = unscaled_norm(sum, setting.unscale);
    let unlimited = setting.threshold == INFINITY_BITS;
    let limit = limit_of(setting, parameters);
    let exact = rounded_for(limit, NO_MIN_EXPONENT, setting);
    var compared = norm;
    if setting.below == 1u {
        compared = norm_above(sum, setting.unscale);
    }
    let over = !unlimited && exceeds(compared, exact);
    var out = Outcome();
    out.norm = to_f32(norm);
    out.norm_mantissa = norm.mantissa;
    out.norm_exponent = norm.exponent;
    out.threshold = select(to_f32(rounded_for(limit, F32_MIN_EXPONENT, setting)), INFINITY_BITS, unlimited);
    out.unscale = setting.unscale;
    out.non_finite = sum.non_finite;
    out.first_non_finite = sum.first;
    out.flags = select(0u, CLIPPED, over);
    let scales = over && setting.rule != RULE_SIGN && setting.rule != RULE_VALUE;
    let normalises = setting.rule == RULE_NORMALIZE && norm.mantissa != 0u;
    let least = exactly(setting.raised);
    let raises = !over && norm.mantissa != 0u && exceeds(least, compared);
    var coefficient = Real(0x80000000u, -31, 0u);
    if scales || normalises || raises {
        var wanted = exact;
        if raises {
            wanted = least;
        }
        coefficient = quotient_of(compared, wanted, setting);
    }
    out.coefficient = to_f32(rounded_for(coefficient, F32_MIN_EXPONENT, setting));
    set_scale(&out, rounded_for(multiply(coefficient, from_f32(setting.unscale)), NO_MIN_EXPONENT, setting));
    let keeps = out.scale == ONE_BITS && out.rescale == ONE_BITS;
    out.action = select(MULTIPLY | select(0u, TOWARD_ZERO, setting.below == 1u), KEEP, keeps);
    if over && setting.rule == RULE_SIGN {
        set_elementwise(&out, SIGN);
    }
    // What unscaling rounds to 16 bits might exceed the limit, too.
    if (over || !keeps) && setting.rule == RULE_VALUE {
        set_elementwise(&out, CLAMP);
    }
    var nan = sum.nan;
    if setting.rule == RULE_AGC {
        // No limit follows from parameters that are not finite.
        let both = sum.non_finite + parameters.non_finite;
        out.non_finite = select(both, 0xffffffffu, both < sum.non_finite);
        out.first_non_finite = min(sum.first, parameters.first);
        nan |= parameters.nan;
    }
    if out.non_finite != 0u {
        decide_non_finite(&out, nan, setting);
    }
    return out;
}

// `scale` is a magnitude, and no factor.
fn set_elementwise(out: ptr<function, Outcome>, action: u32) {
    (*out).action = action;
    (*out).scale = (*out).threshold;
    (*out).rescale = ONE_BITS;
}

fn decide_non_finite(out: ptr<function, Outcome>, nan: u32, setting: Setting) {
    (*out).flags |= NON_FINITE | select(0u, NAN, nan != 0u);
    if setting.policy == POLICY_SANITIZE {
        (*out).action = max((*out).action, MULTIPLY) | SANITIZE;
        return;
    }
    (*out).norm = select(INFINITY_BITS, QUIET_NAN_BITS, nan != 0u);
    (*out).norm_mantissa = 0u;
    (*out).norm_exponent = 0;
    if setting.policy == POLICY_KEEP {
        if setting.threshold != INFINITY_BITS {
            (*out).flags |= CLIPPED;
            set_elementwise(out, CLAMP);
        }
        return;
    }
    (*out).flags &= ~CLIPPED;
    (*out).rescale = ONE_BITS;
    if setting.policy == POLICY_SKIP {
        (*out).flags |= SKIPPED;
        (*out).coefficient = ONE_BITS;
        (*out).scale = ONE_BITS;
        (*out).action = KEEP;
        return;
    }
    let value = select(0u, QUIET_NAN_BITS, setting.policy == POLICY_NAN);
    (*out).coefficient = value;
    (*out).scale = value;
    (*out).action = FILL;
}
