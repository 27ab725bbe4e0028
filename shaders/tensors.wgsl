// partials of chunks -> sum of each tensor, block or unit.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> runs: array<Run>;
@group(0) @binding(2) var<storage, read> partials: array<Partial>;
@group(0) @binding(3) var<storage, read_write> sums: array<Sum>;

fn item_exponent(i: u32) -> u32 {
    return partials[i].exponent;
}

// The tensor of a partial, where a run adds up those of several: their first partials follow the runs.
fn tensor_of(i: u32) -> u32 {
    var below = 0u;
    var above = job.rows;
    while above - below > 1u {
        let middle = (below + above) / 2u;
        if runs[job.runs + middle].first <= i {
            below = middle;
        } else {
            above = middle;
        }
    }
    return runs[job.runs + below].tensor;
}

fn item(i: u32, tensor: u32) -> Sum {
    let p = partials[i];
    let non_finite = p.non_finite & 0x7fffffffu;
    var first = NONE;
    if non_finite != 0u {
        first = tensor;
        if tensor == NONE && job.rows != 0u {
            first = tensor_of(i);
        }
    }
    return Sum(widened(p.lo, p.hi), p.exponent, non_finite, p.non_finite >> 31u, first, 0u);
}
