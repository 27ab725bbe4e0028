// chunks of at most COLUMNS elements -> their partials: TEAM invocations each, several chunks a workgroup.
// The sum is that of reduce.wgsl, to the bit: every element is a column of its own.

const TEAMS: u32 = WORKGROUP / TEAM;

@compute @workgroup_size(WORKGROUP)
fn reduce_short(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let team = lane / TEAM;
    let member = lane % TEAM;
    let index = index_in_grid(group, groups) * TEAMS + team;
    // Teams without a row, and rows left out, go through every barrier with no elements.
    let owns = index < job.rows;
    let row = rows[job.first_row + min(index, job.rows - 1u)];
    let len = select(0u, row.slot_len & ((1u << LEN_BITS) - 1u), owns && row.segment < job.until);
    if member == 0u {
        reset_team(team);
    }
    workgroupBarrier();

    let most = most_of(row.segment);
    let seen = seen_in(row, member, len, most);
    add_seen(team, seen);
    workgroupBarrier();

    let exponent = exponent_of_team(team);
    if NORM != NORM_INF {
        add_to_team(team, sum_in(row, member, len, exponent, most));
        workgroupBarrier();
    }

    if member == 0u && owns {
        partials[row.partial] = gathered_of_team(team, len != 0u);
    }
}
