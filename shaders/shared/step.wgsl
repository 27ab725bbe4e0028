// Before the outcomes of a step are counted.
fn begin_step() {
    atomicAdd(&tally.steps, 1u);
    atomicStore(&tally.clipped, 0u);
    atomicStore(&tally.skipped, 0u);
    atomicStore(&tally.changed, 0u);
    atomicStore(&tally.non_finite, 0u);
}

// The unscale factor that holds: the clip's own times that of the loss scale, rounded.
fn with_loss_scale(unscale: u32) -> u32 {
    return to_f32(rounded(multiply(from_f32(unscale), from_f32(progress.unscale)), F32_MIN_EXPONENT));
}
