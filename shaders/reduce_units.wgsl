// chunk of a unit -> partial, for units too short or too scattered for a workgroup each. The sum is that of reduce.wgsl, to the
// bit: columns of at most ROWS elements, each COLUMNS apart. Who adds it up, shared/units_alone.wgsl or shared/units_by_teams.wgsl
// tells.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> rows: array<UnitRow>;
@group(0) @binding(2) var<storage, read_write> partials: array<Partial>;
@group(0) @binding(3) var<uniform> progress: Progress;
//@each slot
@group(1) @binding(SLOT) var<storage, read> slot_SLOT: array<u32>;
//@end

@compute @workgroup_size(WORKGROUP)
fn reduce_units(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = index_in_grid(group, groups);
    if index >= job.rows {
        return;
    }
    let row = rows[job.first_row + index];
    add_units(row, lane);
}
