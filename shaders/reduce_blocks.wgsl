// chunk -> partial, for hardware.

fn add_chunk(row: ChunkRow, lane: u32) {
    let last = last_of(row);
    // Where one turn does, its loads are on their way before the barrier.
    var block: Block;
    if TURNS == 1u {
        block = fetch(row, first_column(lane, 0u));
    }
    if lane == 0u {
        reset_chunk();
    }
    workgroupBarrier();

    most = most_of(row.segment);
    var sums = LaneSums(vec4(0u), vec4(0u), vec4(0u));
    if TURNS == 1u {
        sums = with_turn(sums, 0u, sums_of_block(block, last));
    } else {
        for (var turn = 0u; turn < TURNS && first_column(0u, turn) <= last; turn++) {
            sums = with_turn(sums, turn, sums_of_block(fetch(row, first_column(lane, turn)), last));
        }
    }
    gather(sums);
    if lane == 0u {
        partials[row.partial] = partial_of_chunk();
    }
}
