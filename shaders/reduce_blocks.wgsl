// chunk -> partial, for hardware.

fn add_chunk(row: ChunkRow, lane: u32) {
    let block = fetch(row, first_column(lane, 0u));
    if lane == 0u {
        reset_chunk();
    }
    workgroupBarrier();

    most = most_of(row.segment);
    gather(sums_of_chunk(block, row, lane));
    if lane == 0u {
        partials[row.partial] = partial_of_chunk();
    }
}
