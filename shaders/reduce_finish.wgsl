// The only chunk of a set -> its partial, from which finish.wgsl goes on: one dispatch less where dispatches cost most. A chunk that is
// left out has no sum.

@group(0) @binding(4) var<storage, read_write> partials: array<Partial>;

fn put_partial(index: u32, partial: Partial) {
    partials[index] = partial;
}

// The row of the chunk follows those of segments, in the form of a run.
fn reduce_all(lane: u32) {
    let run = runs[job.runs + job.segment_runs + job.rows + job.decided];
    let row = ChunkRow(run.first, run.count, run.target_index, run.segment);
    if row.segment < job.until {
        add_chunk(row, lane);
    } else if lane == 0u {
        partials[row.partial] = Partial(0u, 0u, 0u, 0u);
    }
    storageBarrier();
}
