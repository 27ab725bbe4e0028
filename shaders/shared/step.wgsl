// Before the outcomes of a step are counted.
fn begin_step() {
    atomicAdd(&tally.steps, 1u);
    atomicStore(&tally.clipped, 0u);
    atomicStore(&tally.skipped, 0u);
    atomicStore(&tally.changed, 0u);
    atomicStore(&tally.non_finite, 0u);
}
