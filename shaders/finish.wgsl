// All that lies between reading gradients and reading them again, for sets so small that one workgroup does it
// faster than dispatches follow each other: sums of tensors, sums of segments, thresholds, outcomes, and what
// the next step begins with. The job says which of these; the parts are those of the kernels that do one each.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> adaptation: Adaptation;
@group(0) @binding(2) var<uniform> hyper: Hyper;
// Runs of partials, runs of sums of tensors, members of runs, and rows of segments, and of the only chunk, in the form of runs.
@group(0) @binding(3) var<storage, read> runs: array<Run>;
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

// Short runs a lane each, a workgroup of them in a turn; then one run in a turn, for all lanes. Compilers take every
// call apart, hence one loop for both.
fn combine_all(first: u32, serial: u32, count: u32, lane: u32) {
    let serial_turns = (serial + WORKGROUP - 1u) / WORKGROUP;
    let turns = serial_turns + count - serial;
    for (var turn = 0u; turn < turns; turn++) {
        let together = turn >= serial_turns;
        var index = turn * WORKGROUP + lane;
        var begin = 0u;
        var step = 1u;
        if together {
            index = serial + turn - serial_turns;
            begin = lane;
            step = WORKGROUP;
        }
        var run = Run();
        if together || index < serial {
            run = runs[first + index];
        }
        var exponent = largest_exponent(run, begin, step);
        if together {
            // The last run has been read by all lanes before what they share is reset.
            workgroupBarrier();
            if lane == 0u {
                reset_counts();
                reset();
            }
            workgroupBarrier();
            atomicMax(&shared_exponent, exponent);
            workgroupBarrier();
            exponent = atomicLoad(&shared_exponent);
        }
        var sum = add_items(run, begin, step, exponent);
        if together {
            sum = gathered(sum, lane);
        }
        if select(index < serial, lane == 0u, together) {
            store(run, sum, exponent);
        }
    }
}

// An invocation a segment: a loop around a decision takes SwiftShader minutes to compile.
fn decide_all(lane: u32) {
    if lane == 0u {
        begin_step();
    }
    adapt_all(lane);
    storageBarrier();
    let first = job.runs + job.segment_runs + job.rows;
    if lane < job.decided {
        let row = runs[first + lane];
        decide_segment(SegmentRow(row.first, row.count, row.target_index, row.stride, row.lanes), 0u);
    }
    storageBarrier();
}

@compute @workgroup_size(WORKGROUP)
fn finish(@builtin(local_invocation_index) lane: u32) {
    reduce_all(lane);
    for (var stage = STAGE_TENSORS; stage <= STAGE_SEGMENTS; stage <<= 1u) {
        let first_stage = stage == STAGE_TENSORS;
        of_partials = first_stage;
        if (job.stages & stage) != 0u {
            let serial = select(job.segment_serial, job.serial, first_stage);
            let count = select(job.segment_runs, job.runs, first_stage);
            combine_all(select(job.runs, 0u, first_stage), serial, count, lane);
        }
        storageBarrier();
    }
    if (job.stages & STAGE_DECIDE) != 0u {
        decide_all(lane);
    }
    if (job.stages & STAGE_ADVANCE) != 0u && lane == 0u {
        advance_all();
    }
}
