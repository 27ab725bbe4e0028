// partials of chunks -> sum of each tensor, block or unit. What is a segment by itself is written as one, too.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> runs: array<Run>;
@group(0) @binding(2) var<storage, read> partials: array<Partial>;
@group(0) @binding(3) var<storage, read_write> sums: array<Sum>;
@group(0) @binding(4) var<storage, read_write> segment_sums: array<Sum>;
@group(0) @binding(5) var<storage, read_write> tally: Tally;

fn item_exponent(i: u32) -> u32 {
    return partials[i].exponent;
}

fn item(i: u32, tensor: u32) -> Sum {
    return partial_item(i, tensor);
}

fn put(run: Run, sum: Sum) {
    if run.target_index != NONE {
        sums[run.target_index] = sum;
    }
    if run.segment != NONE {
        segment_sums[run.segment] = sum;
    }
}

// The outcomes of this step are counted by a later dispatch.
fn begin() {
    if job.begins == 1u {
        begin_step();
    }
}
