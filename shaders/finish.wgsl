// All that lies between reading gradients and reading them again, for sets so small that one workgroup does it
// faster than dispatches follow each other: sums of tensors, sums of segments, thresholds, outcomes, and what
// the next step begins with. The job says which of these; the parts are those of the kernels that do one each.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> adaptation: Adaptation;
@group(0) @binding(2) var<uniform> hyper: Hyper;
// Runs of partials, runs of sums of tensors, members of runs, and rows of segments in the form of runs.
@group(0) @binding(3) var<storage, read> runs: array<Run>;
@group(0) @binding(4) var<storage, read> partials: array<Partial>;
@group(0) @binding(5) var<storage, read_write> tensor_sums: array<Sum>;
@group(0) @binding(6) var<storage, read_write> sums: array<Sum>;
@group(0) @binding(7) var<storage, read> settings: array<Setting>;
@group(0) @binding(8) var<storage, read_write> tally: Tally;
@group(0) @binding(9) var<storage, read_write> outcomes: array<Outcome>;

// What the items of a run are.
var<private> of_partials: bool;

fn item_exponent(i: u32) -> u32 {
    if of_partials {
        return partials[i].exponent;
    }
    return tensor_sums[i].exponent;
}

fn item(i: u32, tensor: u32) -> Sum {
    if of_partials {
        return partial_item(i, tensor);
    }
    return tensor_sums[i];
}

fn put(run: Run, sum: Sum) {
    if run.target_index != NONE {
        tensor_sums[run.target_index] = sum;
    }
    if run.segment != NONE {
        sums[run.segment] = sum;
    }
}

fn combine_all(first: u32, serial: u32, count: u32, lane: u32) {
    for (var i = lane; i < serial; i += WORKGROUP) {
        add_alone(runs[first + i]);
    }
    for (var i = serial; i < count; i++) {
        // The last run has been read by all lanes before what they share is reset.
        workgroupBarrier();
        add_together(runs[first + i], lane);
    }
    storageBarrier();
}

fn decide_all(lane: u32) {
    if lane == 0u {
        begin_step();
    }
    adapt_all(lane);
    storageBarrier();
    let first = job.runs + job.segment_runs + job.rows;
    for (var i = lane; i < job.decided; i += WORKGROUP) {
        let row = runs[first + i];
        decide_segment(SegmentRow(row.first, row.count, row.target_index, row.stride, row.lanes), 0u);
    }
    storageBarrier();
}

@compute @workgroup_size(WORKGROUP)
fn finish(@builtin(local_invocation_index) lane: u32) {
    if (job.stages & STAGE_TENSORS) != 0u {
        of_partials = true;
        combine_all(0u, job.serial, job.runs, lane);
    }
    if (job.stages & STAGE_SEGMENTS) != 0u {
        of_partials = false;
        combine_all(job.runs, job.segment_serial, job.segment_runs, lane);
    }
    if (job.stages & STAGE_DECIDE) != 0u {
        decide_all(lane);
    }
    if (job.stages & STAGE_ADVANCE) != 0u && lane == 0u {
        advance_all();
    }
}
