// The loss scale of the next step, and the corrections of the optimiser's; src/cpu/advance.rs is the twin, to the bit.

const LEAST_SCALE: u32 = 0x00800000u; // 2^-126
const MOST_SCALE: u32 = 0x7e800000u; // 2^126

fn follow_loss_scale(finite: bool) {
    if !finite {
        progress.scale = max(f_mul(progress.scale, hyper.backoff), LEAST_SCALE);
        progress.finite_steps = 0u;
    } else {
        progress.finite_steps += 1u;
    }
    if progress.finite_steps >= hyper.interval {
        let grown = f_mul(progress.scale, hyper.growth);
        progress.scale = select(progress.scale, grown, grown <= MOST_SCALE);
        progress.finite_steps = 0u;
    }
    progress.unscale = f_div(ONE_BITS, progress.scale);
}

fn begin_update(moves: bool) {
    progress.moves = u32(moves);
    progress.skips = select(min(progress.skips, 0xfffffffeu) + 1u, 0u, moves);
    if !moves {
        return;
    }
    progress.updates += 1u;
    progress.share = hyper.share;
    if (hyper.flags & ADAM) == 0u {
        // Nothing has been remembered yet, so nothing is dampened.
        progress.share = select(hyper.share, ONE_BITS, progress.updates == 1u && (hyper.flags & LION) == 0u);
        return;
    }
    progress.correction = f_div(ONE_BITS, complement_of_power(hyper.share, progress.updates));
    let second = complement_of_power(hyper.second_share, progress.updates);
    progress.second_correction = f_div(ONE_BITS, f_sqrt(second));
}

// For one invocation.
fn advance_step() {
    if (hyper.flags & SCALES_LOSS) != 0u {
        follow_loss_scale(atomicLoad(&tally.non_finite) == 0u);
    }
    if (hyper.flags & STEPS) != 0u {
        begin_update(atomicLoad(&tally.skipped) == 0u);
    }
}
