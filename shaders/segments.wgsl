// sums of tensors or blocks -> sum of each segment or tensor.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> runs: array<Run>;
@group(0) @binding(2) var<storage, read> tensors: array<Sum>;
@group(0) @binding(3) var<storage, read_write> sums: array<Sum>;

fn item_exponent(i: u32) -> u32 {
    return tensors[i].exponent;
}

fn item(i: u32, unused: u32) -> Sum {
    return tensors[i];
}

fn put(run: Run, sum: Sum) {
    sums[run.target_index] = sum;
}

fn begin() {}
