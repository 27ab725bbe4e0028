// Sum and setting of a segment -> its outcome, counted; src/cpu/coefficient.rs is the twin, to the bit.

fn setting_of(limit: u32) -> Setting {
    var setting = settings[limit];
    setting.unscale = unscale_of(limit);
    adapt_setting(&setting, limit);
    if (progress.reasons & LET_THROUGH) != 0u && setting.policy == POLICY_SKIP && setting.rule != RULE_FREE {
        setting.policy = POLICY_NAN;
    }
    if job.measures == 1u {
        setting.threshold = INFINITY_BITS;
        setting.lift = 0;
    }
    return setting;
}

// What was recorded without a dispatch over gradients only measures, whatever was set since.
fn unscale_of(limit: u32) -> u32 {
    if job.measures == 1u {
        return ONE_BITS;
    }
    return with_loss_scale(settings[limit].unscale);
}

// Whether one coefficient is the smaller one, by bits: a driver may flush subnormals. Where f32 has none left to tell, the
// factors do, whose exponents go further.
fn lies_below(total: Outcome, out: Outcome) -> bool {
    let a = bitcast<u32>(total.coefficient);
    let b = bitcast<u32>(out.coefficient);
    if a != b || a >= 0x800000u {
        return a < b;
    }
    let x = factor_exponent(total);
    let y = factor_exponent(out);
    return x < y || (x == y && bitcast<u32>(total.scale) < bitcast<u32>(out.scale));
}

// That of scale * rescale * rescale, and one below all others for 0.
fn factor_exponent(out: Outcome) -> i32 {
    let scale = bitcast<u32>(out.scale);
    return select(i32(scale >> 23u) + 2 * i32(bitcast<u32>(out.rescale) >> 23u), -1, scale == 0u);
}

// The limit on the whole set: what it does to all, or the smaller coefficient.
fn limit_by_total(out: ptr<function, Outcome>) {
    let setting = setting_of(arrayLength(&settings) - 1u);
    let sum = sums[job.total];
    let total = decide(sum, setting, sum);
    let poisoned = (total.flags & NON_FINITE) != 0u && setting.policy != POLICY_SANITIZE;
    // One that limits nothing leaves what is raised as well.
    let limits = (total.flags & CLIPPED) != 0u && lies_below(total, *out);
    if !poisoned && !limits {
        return;
    }
    (*out).coefficient = total.coefficient;
    (*out).scale = total.scale;
    (*out).rescale = total.rescale;
    (*out).action = select(
        MULTIPLY | ((*out).action & SANITIZE) | (total.action & TOWARD_ZERO), total.action, poisoned
    );
    (*out).flags |= BY_TOTAL | (total.flags & (CLIPPED | SKIPPED));
    if poisoned {
        (*out).flags &= ~CLIPPED;
    }
}

fn count_outcome(out: Outcome) {
    if (out.flags & CLIPPED) != 0u && atomicAdd(&tally.clipped, 1u) == 0u {
        atomicAdd(&tally.clipped_steps, 1u);
    }
    if (out.flags & SKIPPED) != 0u && atomicAdd(&tally.skipped, 1u) == 0u {
        atomicAdd(&tally.skipped_steps, 1u);
    }
    if out.action != KEEP {
        atomicAdd(&tally.changed, 1u);
    }
    if (out.flags & NON_FINITE) != 0u {
        atomicAdd(&tally.non_finite, 1u);
    }
}

fn untouched(setting: Setting) -> Outcome {
    var out = Outcome();
    out.norm_exponent = F32_MIN_EXPONENT;
    out.threshold = setting.threshold;
    out.coefficient = ONE_BITS;
    out.scale = ONE_BITS;
    out.rescale = ONE_BITS;
    out.flags = LEFT_OUT;
    out.first_non_finite = NONE;
    out.unscale = setting.unscale;
    return out;
}

// A step is left out: nothing changes, whatever was decided.
fn leave(out: ptr<function, Outcome>) {
    (*out).flags = ((*out).flags & (NON_FINITE | NAN)) | SKIPPED | SPIKE;
    (*out).coefficient = ONE_BITS;
    (*out).scale = ONE_BITS;
    (*out).rescale = ONE_BITS;
    (*out).action = KEEP;
}

// The lane-th segment of a row.
fn decide_segment(row: SegmentRow, lane: u32) {
    let segment = row.first + lane;
    if segment == 0u {
        tally.unscale = unscale_of(0u);
    }
    let limit = row.limit + lane * row.step;
    let setting = setting_of(limit);
    if segment >= job.until && segment != job.total {
        outcomes[segment] = untouched(setting);
        return;
    }
    let sum = sums[segment];
    var parameters = sum;
    if row.parameters != NONE {
        parameters = sums[row.parameters + lane];
    }
    var out = decide(sum, setting, parameters);
    let leaves = leaves_out();
    if sum.non_finite == 0u && !leaves {
        count_for_limit(out, limit);
    }
    if job.total != NONE && segment != job.total && setting.total == 1u {
        limit_by_total(&out);
    }
    if leaves {
        leave(&out);
    }
    if segment != job.total {
        count_outcome(out);
    }
    outcomes[segment] = out;
}
