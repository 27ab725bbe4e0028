// chunk -> partial for any p: the largest magnitude first, then the sum of the powers of the
// ratios to it. Not promised to the bit; src/cpu/power.rs is its twin.

var<workgroup> shared_largest: atomic<u32>;
var<workgroup> shared_non_finite: atomic<u32>;
var<workgroup> shared_nan: atomic<u32>;
var<workgroup> shared_powers: array<f32, WORKGROUP>;

fn add_chunk(row: ChunkRow, lane: u32) {
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
