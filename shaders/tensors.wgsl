// partials of chunks -> sum of each tensor, block or unit.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> runs: array<Run>;
@group(0) @binding(2) var<storage, read> partials: array<Partial>;
@group(0) @binding(3) var<storage, read_write> sums: array<Sum>;

fn item_exponent(i: u32) -> u32 {
    return partials[i].exponent;
}

fn item(i: u32, tensor: u32) -> Sum {
    let p = partials[i];
    let non_finite = p.non_finite & 0x7fffffffu;
    let first = select(NONE, tensor, non_finite != 0u); // of a tensor, else NONE
    return Sum(widened(p.lo, p.hi), p.exponent, non_finite, p.non_finite >> 31u, first, 0u);
}
