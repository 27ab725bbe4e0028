// Partials as items of a sum.

// The tensor of a partial, where a run adds up those of several: their first partials follow the runs.
fn tensor_of(i: u32) -> u32 {
    var below = 0u;
    var above = job.rows;
    let members = job.runs + job.segment_runs;
    while above - below > 1u {
        let middle = (below + above) / 2u;
        if runs[members + middle].first <= i {
            below = middle;
        } else {
            above = middle;
        }
    }
    return runs[members + below].tensor;
}

fn partial_item(i: u32, tensor: u32) -> Sum {
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
