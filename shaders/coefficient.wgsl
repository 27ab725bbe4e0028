// sum and setting of each segment -> outcome. One invocation a segment, one workgroup a row of segments
// that are decided alike; src/cpu/coefficient.rs is its twin, to the bit.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> rows: array<SegmentRow>;
@group(0) @binding(2) var<storage, read> sums: array<Sum>;
@group(0) @binding(3) var<storage, read> settings: array<Setting>;
@group(0) @binding(4) var<storage, read_write> states: array<State>;
@group(0) @binding(5) var<storage, read_write> tally: Tally;
@group(0) @binding(6) var<storage, read_write> outcomes: array<Outcome>;
@group(0) @binding(7) var<uniform> progress: Progress;

fn setting_of(limit: u32) -> Setting {
    var setting = settings[limit];
    setting.unscale = with_loss_scale(setting.unscale);
    if limit < job.adaptive && setting.rule != RULE_FREE {
        setting.threshold = states[limit].threshold;
        setting.lift = 0;
        setting.total &= 1u - states[limit].alone;
    }
    return setting;
}

// The limit on the whole set: what it does to all, or the smaller coefficient.
fn limit_by_total(out: ptr<function, Outcome>) {
    let setting = setting_of(arrayLength(&settings) - 1u);
    let sum = sums[job.total];
    let total = decide(sum, setting, sum);
    let poisoned = (total.flags & NON_FINITE) != 0u && setting.policy != POLICY_SANITIZE;
    if !poisoned && total.coefficient >= (*out).coefficient {
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

@compute @workgroup_size(WORKGROUP)
fn coefficient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    if index >= job.runs {
        return;
    }
    let row = rows[index];
    if lane >= row.count {
        return;
    }
    if job.begins == 1u {
        begin_step();
    }
    let segment = row.first + lane;
    if segment == 0u {
        tally.unscale = with_loss_scale(settings[0].unscale);
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
    if limit < job.adaptive && sum.non_finite == 0u {
        atomicAdd(&states[limit].counted, 1u);
        atomicAdd(&states[limit].over, (out.flags & CLIPPED) / CLIPPED);
    }
    if job.total != NONE && segment != job.total && setting.total == 1u {
        limit_by_total(&out);
    }
    if segment != job.total {
        count_outcome(out);
    }
    outcomes[segment] = out;
}
