// norm and history of each limit that adapts -> its threshold of this step, and the history of the next.
// One workgroup a limit. The first workgroup also begins the step.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> adaptation: Adaptation;
@group(0) @binding(2) var<storage, read> sums: array<Sum>;
@group(0) @binding(3) var<storage, read> settings: array<Setting>;
@group(0) @binding(4) var<storage, read_write> states: array<State>;
@group(0) @binding(5) var<storage, read_write> history: array<u32>;
@group(0) @binding(6) var<storage, read_write> tally: Tally;
@group(0) @binding(7) var<uniform> progress: Progress;

@compute @workgroup_size(WORKGROUP)
fn threshold(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let limit = index_in_grid(group, groups);
    if limit == 0u && lane == 0u {
        begin_step();
    }
    if limit >= job.adaptive {
        return;
    }
    let step = limit_before(limit);
    let before = window_before(step, limit);
    let window = window_now(step, limit);
    let found = found_in(before, window, lane);
    if lane == 0u {
        end_limit(step, before, window, found, limit);
    }
}
