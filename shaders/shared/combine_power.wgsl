// Any other p: each item brought to the run's largest magnitude by the power of the ratio, and
// added as f32.

fn widened(lo: u32, hi: u32) -> array<u32, 3> {
    return array<u32, 3>(lo, hi, 0u);
}

struct Lane {
    powers: f32,
    non_finite: u32,
    nan: u32,
    first: u32,
}

fn add_items(run: Run, begin: u32, step: u32, largest: u32) -> Lane {
    var lane = Lane(0.0, 0u, 0u, NONE);
    for (var i = begin; i < run.count; i += step) {
        let value = item(run.first + i * run.stride, run.tensor);
        lane.powers += bitcast<f32>(value.mantissa[0]) * power_of_ratio(value.exponent, largest);
        lane.non_finite = saturating_add(lane.non_finite, value.non_finite);
        lane.nan |= value.nan;
        lane.first = min(lane.first, value.first);
    }
    return lane;
}

fn store(run: Run, lane: Lane, largest: u32) {
    let mantissa = array<u32, 3>(bitcast<u32>(lane.powers), 0u, 0u);
    put(run, Sum(mantissa, largest, lane.non_finite, lane.nan, lane.first, 0u));
}

fn reset() {}

fn gathered(mine: Lane, lane: u32) -> Lane {
    gather_counts(mine.non_finite, mine.nan, mine.first);
    let powers = sum_of_lanes(mine.powers, lane);
    return Lane(powers, gathered_count(), atomicLoad(&shared_nan), atomicLoad(&shared_first));
}
