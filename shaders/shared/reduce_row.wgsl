// A chunk, or one that is left out and has no sum.
fn reduce_row(row: ChunkRow, lane: u32) {
    if row.segment < job.until {
        add_chunk(row, lane);
    } else if lane == 0u {
        partials[row.partial] = Partial(0u, 0u, 0u, 0u);
    }
}
