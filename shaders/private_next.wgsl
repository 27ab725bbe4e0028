// The number of the next release, whose noise is other noise.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read_write> release: array<u32>;

@compute @workgroup_size(1)
fn private_next() {
    release[0] += 1u;
}
