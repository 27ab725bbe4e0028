// sum and setting of each segment -> outcome. One invocation a segment, one workgroup a row of segments
// that are decided alike.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> rows: array<SegmentRow>;
@group(0) @binding(2) var<storage, read> sums: array<Sum>;
@group(0) @binding(3) var<storage, read> settings: array<Setting>;
@group(0) @binding(4) var<storage, read_write> states: array<State>;
@group(0) @binding(5) var<storage, read_write> tally: Tally;
@group(0) @binding(6) var<storage, read_write> outcomes: array<Outcome>;
@group(0) @binding(7) var<uniform> progress: Progress;

@compute @workgroup_size(WORKGROUP)
fn coefficient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = index_in_grid(group, groups);
    if index >= job.runs {
        return;
    }
    let row = rows[index];
    if lane >= row.count {
        return;
    }
    if job.begins == 1u {
        begin_step();
    }
    decide_segment(row, lane);
}
