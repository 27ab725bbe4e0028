// chunk -> partial for any p: the largest magnitude first, then the sum of the powers of the
// ratios to it. Not promised to the bit; src/cpu/power.rs is its twin.

var<workgroup> chunk_largest: atomic<u32>;
var<workgroup> chunk_non_finite: atomic<u32>;
var<workgroup> chunk_nan: atomic<u32>;

fn add_chunk(row: ChunkRow, lane: u32) {
    if lane == 0u {
        atomicStore(&chunk_largest, 0u);
        atomicStore(&chunk_non_finite, 0u);
        atomicStore(&chunk_nan, 0u);
    }
    workgroupBarrier();
    let most = most_of(row.segment);
    let len = row.slot_len & ((1u << LEN_BITS) - 1u);
    let top = largest_of(row, lane, len, most);
    atomicMax(&chunk_largest, top);
    workgroupBarrier();
    let largest = atomicLoad(&chunk_largest);
    let powers = powers_of(row, lane, len, most, largest);
    let total = sum_of_lanes(powers, lane);
    if lane == 0u {
        let non_finite = atomicLoad(&chunk_non_finite) | (atomicLoad(&chunk_nan) << 31u);
        partials[row.partial] = Partial(bitcast<u32>(total), 0u, largest, non_finite);
    }
}
