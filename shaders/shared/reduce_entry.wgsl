// One workgroup a chunk; one that is left out has no sum. Software adapters are slower where what follows a return stands in a branch.

@compute @workgroup_size(WORKGROUP)
fn reduce(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = index_in_grid(group, groups);
    if index >= job.rows {
        return;
    }
    let row = rows[job.first_row + index];
    if row.segment >= job.until {
        if lane == 0u {
            partials[row.partial] = Partial(0u, 0u, 0u, 0u);
        }
        return;
    }
    add_chunk(row, lane);
}
