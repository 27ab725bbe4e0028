// Adds up runs of items, each item a Sum given by `item(i)`: align every mantissa to the largest
// exponent of the run, add. Short runs take one invocation each, long runs one workgroup each.

var<workgroup> shared_exponent: atomic<u32>;
var<workgroup> shared_limbs: array<atomic<u32>, 4>; // 24 bits each, room for 256 lanes
var<workgroup> shared_count: array<atomic<u32>, 2>; // 16 bits each
var<workgroup> shared_nan: atomic<u32>;
var<workgroup> shared_first: atomic<u32>;

struct Lane {
    mantissa: U96,
    non_finite: u32,
    nan: u32,
    first: u32,
}

fn saturating_add(a: u32, b: u32) -> u32 {
    return a + min(b, 0xffffffffu - a);
}

fn largest_exponent(run: Run, begin: u32, step: u32) -> u32 {
    var exponent = 0u;
    for (var i = begin; i < run.count; i += step) {
        exponent = max(exponent, item_exponent(run.first + i));
    }
    return exponent;
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
    sums[run.target_index] = Sum(
        array<u32, 3>(lane.mantissa.lo, lane.mantissa.mid, lane.mantissa.hi),
        exponent, lane.non_finite, lane.nan, lane.first, 0u
    );
}

// What all lanes of the workgroup hold together, valid in lane 0.
fn gathered(mine: Lane, lane: u32) -> Lane {
    atomicAdd(&shared_limbs[0], mine.mantissa.lo & 0xffffffu);
    atomicAdd(&shared_limbs[1], (mine.mantissa.lo >> 24u) | ((mine.mantissa.mid & 0xffffu) << 8u));
    atomicAdd(&shared_limbs[2], (mine.mantissa.mid >> 16u) | ((mine.mantissa.hi & 0xffu) << 16u));
    atomicAdd(&shared_limbs[3], mine.mantissa.hi >> 8u);
    atomicAdd(&shared_count[0], mine.non_finite & 0xffffu);
    atomicAdd(&shared_count[1], mine.non_finite >> 16u);
    atomicMax(&shared_nan, mine.nan);
    atomicMin(&shared_first, mine.first);
    workgroupBarrier();

    let limb1 = atomicLoad(&shared_limbs[1]);
    let limb2 = atomicLoad(&shared_limbs[2]);
    let limb3 = atomicLoad(&shared_limbs[3]);
    var mantissa = add96(U96(atomicLoad(&shared_limbs[0]), 0u, 0u), U96(limb1 << 24u, limb1 >> 8u, 0u));
    mantissa = add96(mantissa, U96(0u, limb2 << 16u, limb2 >> 16u));
    mantissa = add96(mantissa, U96(0u, 0u, limb3 << 8u));
    let count_low = atomicLoad(&shared_count[0]);
    let count_high = atomicLoad(&shared_count[1]) + (count_low >> 16u);
    let count = select((count_high << 16u) | (count_low & 0xffffu), 0xffffffffu, count_high > 0xffffu);
    return Lane(mantissa, count, atomicLoad(&shared_nan), atomicLoad(&shared_first));
}

@compute @workgroup_size(WORKGROUP)
fn combine(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    let serial_groups = (job.serial + WORKGROUP - 1u) / WORKGROUP;
    if index < serial_groups {
        let i = index * WORKGROUP + lane;
        if i < job.serial {
            let run = runs[i];
            let exponent = largest_exponent(run, 0u, 1u);
            store(run, add_items(run, 0u, 1u, exponent), exponent);
        }
        return;
    }
    let i = job.serial + index - serial_groups;
    if i >= job.runs {
        return;
    }
    if lane == 0u {
        atomicStore(&shared_exponent, 0u);
        for (var k = 0u; k < 4u; k++) {
            atomicStore(&shared_limbs[k], 0u);
        }
        atomicStore(&shared_count[0], 0u);
        atomicStore(&shared_count[1], 0u);
        atomicStore(&shared_nan, 0u);
        atomicStore(&shared_first, NONE);
    }
    workgroupBarrier();
    let run = runs[i];
    atomicMax(&shared_exponent, largest_exponent(run, lane, WORKGROUP));
    workgroupBarrier();
    let exponent = atomicLoad(&shared_exponent);
    let total = gathered(add_items(run, lane, WORKGROUP, exponent), lane);
    if lane == 0u {
        store(run, total, exponent);
    }
}
