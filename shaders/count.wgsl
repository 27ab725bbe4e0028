// Whether a micro-batch is left out, micro-batches summed so far -> which of the dispatches that follow have workgroups. One invocation.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> counting: Counting;
// Workgroups of the first sum, of a further one and of a step, dispatch by dispatch.
@group(0) @binding(2) var<storage, read> grids: array<array<u32, 3>>;
@group(0) @binding(3) var<storage, read> corrections: array<u32>;
@group(0) @binding(4) var<storage, read_write> tally: Tally;
@group(0) @binding(5) var<storage, read_write> progress: Progress;
@group(0) @binding(6) var<storage, read_write> summed: u32;
@group(0) @binding(7) var<storage, read_write> arguments: array<array<u32, 3>>;

fn put(first: u32, count: u32, runs: bool) {
    for (var i = first; i < first + count; i++) {
        if runs {
            arguments[i] = grids[i];
        } else {
            arguments[i] = array<u32, 3>(0u, 0u, 0u);
        }
    }
}

@compute @workgroup_size(1)
fn count() {
    let ends = counting.ends == 1u;
    let adds = !ends && atomicLoad(&tally.skipped) == 0u;
    let before = summed;
    let now = before + u32(adds);
    let steps = select(now == counting.micro_batches, now > 0u, ends);
    put(0u, counting.sums, adds && before == 0u);
    put(counting.sums, counting.sums, adds && before > 0u);
    put(2u * counting.sums, counting.steps, steps);
    // The mean is that of so many: all of them but at an end.
    progress.mean_correction = corrections[max(select(counting.micro_batches, now, ends), 1u) - 1u];
    summed = select(now, 0u, steps);
}
