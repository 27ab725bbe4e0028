// chunks -> their partials: a workgroup goes on with the next chunk, whose loads are on their way while the sums of this one
// are gathered.

@compute @workgroup_size(WORKGROUP)
fn reduce(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    var index = group.y * groups.x + group.x;
    if index >= job.rows {
        return;
    }
    var row = rows[job.first_row + index];
    var block = fetch(row, first_column(lane, 0u));
    loop {
        if lane == 0u {
            reset_chunk();
        }
        workgroupBarrier();

        let own = row;
        most = most_of(own.segment);
        var sums = LaneSums(vec4(0u), vec4(0u), vec4(0u));
        if own.segment < job.until {
            sums = sums_of_chunk(block, own, lane);
        }
        index += groups.x * groups.y;
        let goes_on = index < job.rows;
        if goes_on {
            row = rows[job.first_row + index];
            block = fetch(row, first_column(lane, 0u));
        }
        gather(sums);
        if lane == 0u {
            partials[own.partial] = partial_of_chunk();
        }
        if !goes_on {
            break;
        }
        workgroupBarrier();
    }
}
