// L1, L2 and infinity: mantissas aligned to the run's largest exponent, and added.

var<workgroup> shared_limbs: array<atomic<u32>, 4>; // 24 bits each, room for 256 lanes

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
        let value = item(run.first + i, run.target_index);
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
    sums[run.target_index] = Sum(mantissa, exponent, lane.non_finite, lane.nan, lane.first, 0u);
}

fn reset() {
    for (var k = 0u; k < 4u; k++) {
        atomicStore(&shared_limbs[k], 0u);
    }
}

// What all lanes of the workgroup hold together.
fn gathered(mine: Lane, lane: u32) -> Lane {
    atomicAdd(&shared_limbs[0], mine.mantissa.lo & 0xffffffu);
    atomicAdd(&shared_limbs[1], (mine.mantissa.lo >> 24u) | ((mine.mantissa.mid & 0xffffu) << 8u));
    atomicAdd(&shared_limbs[2], (mine.mantissa.mid >> 16u) | ((mine.mantissa.hi & 0xffu) << 16u));
    atomicAdd(&shared_limbs[3], mine.mantissa.hi >> 8u);
    gather_counts(mine.non_finite, mine.nan, mine.first);
    workgroupBarrier();

    let limb1 = atomicLoad(&shared_limbs[1]);
    let limb2 = atomicLoad(&shared_limbs[2]);
    let limb3 = atomicLoad(&shared_limbs[3]);
    var mantissa = add96(U96(atomicLoad(&shared_limbs[0]), 0u, 0u), U96(limb1 << 24u, limb1 >> 8u, 0u));
    mantissa = add96(mantissa, U96(0u, limb2 << 16u, limb2 >> 16u));
    mantissa = add96(mantissa, U96(0u, 0u, limb3 << 8u));
    return Lane(mantissa, gathered_count(), atomicLoad(&shared_nan), atomicLoad(&shared_first));
}
