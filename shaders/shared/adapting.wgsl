// What a limit that adapts is in this step.

fn adapt_setting(setting: ptr<function, Setting>, limit: u32) {
    if limit < job.adaptive && (*setting).rule != RULE_FREE {
        (*setting).threshold = states[limit].threshold;
        (*setting).lift = 0;
        (*setting).raised = states[limit].raised;
        (*setting).total &= 1u - states[limit].alone;
    }
}

// What the quantile rule follows.
fn count_for_limit(out: Outcome, limit: u32) {
    if limit < job.adaptive {
        atomicAdd(&states[limit].counted, 1u);
        atomicAdd(&states[limit].over, (out.flags & CLIPPED) / CLIPPED);
    }
}
