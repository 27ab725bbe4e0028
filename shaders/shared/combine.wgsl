// Adds up runs of items, each item a Sum given by `item(i)`. Short runs and runs side by side take one
// invocation each, long runs one workgroup each. What is added and how, combine_integer.wgsl or combine_power.wgsl
// defines: Lane, add_items, gathered, reset, store. Where a sum goes, the kernel defines: put.

var<workgroup> shared_exponent: atomic<u32>;
var<workgroup> shared_count: array<atomic<u32>, 2>; // 16 bits each
var<workgroup> shared_nan: atomic<u32>;
var<workgroup> shared_first: atomic<u32>;

fn saturating_add(a: u32, b: u32) -> u32 {
    return a + min(b, 0xffffffffu - a);
}

fn largest_exponent(run: Run, begin: u32, step: u32) -> u32 {
    var exponent = 0u;
    let first = run.first - run.before * run.stride;
    let count = run.before + run.count + run.after;
    var i = begin;
    // Four in flight: blocks look through a whole tensor.
    for (; i + 3u * step < count; i += 4u * step) {
        let a = item_exponent(first + i * run.stride);
        let b = item_exponent(first + (i + step) * run.stride);
        let c = item_exponent(first + (i + 2u * step) * run.stride);
        let d = item_exponent(first + (i + 3u * step) * run.stride);
        exponent = max(max(exponent, max(a, b)), max(c, d));
    }
    for (; i < count; i += step) {
        exponent = max(exponent, item_exponent(first + i * run.stride));
    }
    return exponent;
}

fn reset_counts() {
    atomicStore(&shared_exponent, 0u);
    atomicStore(&shared_count[0], 0u);
    atomicStore(&shared_count[1], 0u);
    atomicStore(&shared_nan, 0u);
    atomicStore(&shared_first, NONE);
}

fn gather_counts(non_finite: u32, nan: u32, first: u32) {
    atomicAdd(&shared_count[0], non_finite & 0xffffu);
    atomicAdd(&shared_count[1], non_finite >> 16u);
    atomicMax(&shared_nan, nan);
    atomicMin(&shared_first, first);
}

fn gathered_count() -> u32 {
    let low = atomicLoad(&shared_count[0]);
    let high = atomicLoad(&shared_count[1]) + (low >> 16u);
    return select((high << 16u) | (low & 0xffffu), 0xffffffffu, high > 0xffffu);
}
