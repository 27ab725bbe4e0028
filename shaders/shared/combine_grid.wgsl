// As many workgroups as runs need: whole ones of short runs first, then one for each other run.

@compute @workgroup_size(WORKGROUP)
fn combine(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = index_in_grid(group, groups);
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

fn add_alone(run: Run) {
    let exponent = largest_exponent(run, 0u, 1u);
    store(run, add_items(run, 0u, 1u, exponent), exponent);
}

// A run that a workgroup adds up, or runs side by side.
fn add_together(whole: Run, lane: u32) {
    var run = whole;
    if run.lanes > 1u {
        if lane < run.lanes {
            run.first += lane;
            run.target_index = of_lane(run.target_index, lane);
            run.segment = of_lane(run.segment, lane);
            add_alone(run);
        }
        return;
    }
    if lane == 0u {
        reset_counts();
        reset();
    }
    workgroupBarrier();
    atomicMax(&shared_exponent, largest_exponent(run, lane, WORKGROUP));
    workgroupBarrier();
    let exponent = atomicLoad(&shared_exponent);
    let total = gathered(add_items(run, lane, WORKGROUP, exponent), lane);
    if lane == 0u {
        store(run, total, exponent);
    }
}

fn of_lane(place: u32, lane: u32) -> u32 {
    return select(place + lane, NONE, place == NONE);
}
