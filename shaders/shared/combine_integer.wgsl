// L1, L2 and infinity: mantissas aligned to the run's largest exponent, and added.

// A partial's mantissa as that of a sum: GUARD more bits below, so that aligning millions of chunks
// loses nothing that counts.
fn widened(lo: u32, hi: u32) -> array<u32, 3> {
    let up = 32u - GUARD;
    return array<u32, 3>(lo << GUARD, (hi << GUARD) | (lo >> up), hi >> up);
}

struct Lane {
    mantissa: U96,
    non_finite: u32,
    nan: u32,
    first: u32,
}

fn add_items(run: Run, begin: u32, step: u32, exponent: u32) -> Lane {
    var lane = Lane(U96(0u, 0u, 0u), 0u, 0u, NONE);
    for (var i = begin; i < run.count; i += step) {
        let value = item(run.first + i * run.stride, run.tensor);
        let mantissa = U96(value.mantissa[0], value.mantissa[1], value.mantissa[2]);
        lane.mantissa = add96(lane.mantissa, shr96(mantissa, ALIGN * (exponent - value.exponent)));
        lane.non_finite = saturating_add(lane.non_finite, value.non_finite);
        lane.nan |= value.nan;
        lane.first = min(lane.first, value.first);
    }
    return lane;
}

fn store(run: Run, lane: Lane, exponent: u32) {
    let mantissa = array<u32, 3>(lane.mantissa.lo, lane.mantissa.mid, lane.mantissa.hi);
    put(run, Sum(mantissa, exponent, lane.non_finite, lane.nan, lane.first, 0u));
}

fn reset() {
    reset_limbs();
}

// What all lanes of the workgroup hold together.
fn gathered(mine: Lane, lane: u32) -> Lane {
    gather_limbs(mine.mantissa);
    gather_counts(mine.non_finite, mine.nan, mine.first);
    workgroupBarrier();
    return Lane(gathered_limbs(), gathered_count(), atomicLoad(&shared_nan), atomicLoad(&shared_first));
}
