// Whether a step is left out with all that belongs to it, as the rule for that has found.

const SPIKES: u32 = REASON_ABOVE | REASON_NORM | REASON_LOSS | REASON_LOSS_NON_FINITE;

fn leaves_out() -> bool {
    return (progress.reasons & SPIKES) != 0u && (progress.reasons & LET_THROUGH) == 0u;
}
