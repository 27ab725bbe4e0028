// The only chunk of a set -> its partial, from which finish.wgsl goes on: one dispatch less where dispatches cost most.

@group(0) @binding(4) var<storage, read_write> partials: array<Partial>;

// The row of the chunk follows those of segments, in the form of a run.
fn reduce_all(lane: u32) {
    let row = runs[job.runs + job.segment_runs + job.rows + job.decided];
    reduce_row(ChunkRow(row.first, row.count, row.target_index, row.segment), lane);
    storageBarrier();
}
