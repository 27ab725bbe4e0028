// What a step was -> the loss scale of the next one, and the corrections of the optimiser's. One
// invocation.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> hyper: Hyper;
@group(0) @binding(2) var<storage, read_write> tally: Tally;
@group(0) @binding(3) var<storage, read_write> progress: Progress;

@compute @workgroup_size(1)
fn advance() {
    advance_step();
}
