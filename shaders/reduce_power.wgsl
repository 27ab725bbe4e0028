// chunk -> partial for any p: the largest magnitude first, then the sum of the powers of the
// ratios to it. Not promised to the bit; src/cpu/power.rs is its twin.

var<workgroup> shared_largest: atomic<u32>;
var<workgroup> shared_non_finite: atomic<u32>;
var<workgroup> shared_nan: atomic<u32>;
var<workgroup> shared_powers: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn reduce(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    if index >= job.rows {
        return;
    }
    let row = rows[job.first_row + index];
    if row.segment >= job.until {
        if lane == 0u {
            partials[row.partial] = Partial(0u, 0u, 0u, 0u);
        }
        return;
    }
    if lane == 0u {
        atomicStore(&shared_largest, 0u);
        atomicStore(&shared_non_finite, 0u);
        atomicStore(&shared_nan, 0u);
    }
    workgroupBarrier();
    let most = most_of(row.segment);
    let len = row.slot_len & ((1u << LEN_BITS) - 1u);
    let top = largest_of(row, lane, len, most);
    atomicMax(&shared_largest, top);
    workgroupBarrier();
    let largest = atomicLoad(&shared_largest);
    let powers = powers_of(row, lane, len, most, largest);
    let total = sum_of_lanes(powers, lane);
    if lane == 0u {
        let non_finite = atomicLoad(&shared_non_finite) | (atomicLoad(&shared_nan) << 31u);
        partials[row.partial] = Partial(bitcast<u32>(total), 0u, largest, non_finite);
    }
}
