// What an optimiser corrects beyond Adam, after the step has begun; src/cpu/advance.rs is the twin, to the bit. One invocation, in a
// kernel of its own: where all of it stands beside the rest, software adapters compile for minutes.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> hyper: Hyper;
@group(0) @binding(2) var<storage, read_write> progress: Progress;

@compute @workgroup_size(1)
fn correct() {
    if progress.moves == 1u {
        correct_step();
    }
}
