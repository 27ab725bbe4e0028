// As many workgroups as runs need: whole ones of short runs first, then one for each other run.

@compute @workgroup_size(WORKGROUP)
fn combine(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    if index == 0u && lane == 0u {
        begin();
    }
    let serial_groups = (job.serial + WORKGROUP - 1u) / WORKGROUP;
    if index < serial_groups {
        let i = index * WORKGROUP + lane;
        if i < job.serial {
            add_alone(runs[i]);
        }
        return;
    }
    let i = job.serial + index - serial_groups;
    if i >= job.runs {
        return;
    }
    add_together(runs[i], lane);
}
