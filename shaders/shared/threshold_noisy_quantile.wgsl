// The threshold below which a share of the segments lies, with noise on how many do; src/cpu/threshold.rs has the formula.

// Counts are of halves of segments above or below, and noise is rounded to 2^-20 of one.
const COUNT_DIGITS: i32 = 20;

// C after the last step, whose segments were counted.
fn adapt(step: ptr<function, Step>, before: Window, window: Window, found: u32, limit: u32) {
    let counted = atomicLoad(&states[limit].counted);
    let over = atomicLoad(&states[limit].over);
    let steps = states[limit].steps;
    // Half of those within less half of those above.
    let within = counted - over;
    let more = within >= over;
    let halves = select(over - within, within - over, more);
    let total = add64(signed64(shl64(U64(halves, 0u), 19u), !more), noise_of_count(limit, steps));
    let negative = (total.hi >> 31u) == 1u;
    let magnitude = signed64(total, negative);
    let exact = normalised96(U96(magnitude.lo, magnitude.hi, 0u), -COUNT_DIGITS);
    let share = f_div(saturated(rounded(exact, F32_MIN_EXPONENT)), adaptation.d);
    // 1/2 + share against the quantile, both without a sign. C moves whatever was counted.
    let half = 0x3f000000u;
    let left = select(f_add(half, share), half, negative);
    let right = select(adaptation.a, f_add(adaptation.a, share), negative);
    follow(step, limit, true, left, right);
}

fn noise_of_count(limit: u32, steps: u32) -> U64 {
    let deviation = exactly(adaptation.c);
    if deviation.mantissa == 0u {
        return U64(0u, 0u);
    }
    let keys = noise_keys(vec2(adaptation.steps, adaptation.reaction), limit, NOISE_OF_THRESHOLDS);
    let scale = shl64(U64(deviation.mantissa, 0u), 40u);
    return on_grid(noise_at(keys, 0u, steps), scale, 7 - COUNT_DIGITS - deviation.exponent);
}
