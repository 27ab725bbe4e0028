// chunk -> partial. One workgroup adds up one chunk of at most CHUNK elements exactly as
// src/cpu/reduce.rs does: each column in integers of its own largest exponent, then all columns
// aligned to the chunk's. Max and integer addition are associative and commutative, so neither the
// workgroup size nor the order of the atomics can change a bit.

fn add_chunk(row: ChunkRow, lane: u32) {
    if lane == 0u {
        reset_chunk();
    }
    workgroupBarrier();

    most = most_of(row.segment);
    let slot = row.slot_len >> LEN_BITS;
    let last = (row.slot_len & ((1u << LEN_BITS) - 1u)) - 1u;
    var sums: array<ColumnSum, COLUMNS_PER_LANE>;
    // Not a constant, which Mesa's GL would unroll: compiling then takes minutes.
    let used = min(COLUMNS_PER_LANE, last / WORKGROUP + 1u);
    // Two loops, of which one is empty: software adapters run both sides of a branch.
    let single = last < COLUMNS;
    for (var k = 0u; k < select(0u, used, single); k++) {
        sums[k] = sum_of_single(fetch_single(slot, row.start, k * WORKGROUP + lane, last));
    }
    for (var k = 0u; k < select(used, 0u, single); k++) {
        sums[k] = sum_of_column(fetch(slot, row.start, k * WORKGROUP + lane, last), last);
    }
    put_sums(&sums, used, row.partial, lane);
}
