// chunks -> their partials: a workgroup goes on with the next turn or chunk, whose loads are on their way while the sums of
// this one are gathered.

@compute @workgroup_size(WORKGROUP)
fn reduce(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    var index = index_in_grid(group, groups);
    if index >= job.rows {
        return;
    }
    var row = rows[job.first_row + index];
    var turn = 0u;
    var block = fetch(row, first_column(lane, 0u));
    var sums = LaneSums(vec4(0u), vec4(0u), vec4(0u));
    if lane == 0u {
        reset_chunk();
    }
    workgroupBarrier();
    loop {
        let own = row;
        most = most_of(own.segment);
        if own.segment < job.until {
            sums = with_turn(sums, turn, sums_of_block(block, last_of(own)));
        }
        turn++;
        let ends = TURNS == 1u || turn == TURNS || first_column(0u, turn) > last_of(own);
        if ends {
            turn = 0u;
            index += groups.x * groups.y;
        }
        let goes_on = index < job.rows;
        if goes_on {
            row = rows[job.first_row + index];
            block = fetch(row, first_column(lane, turn));
        }
        if ends {
            put_chunk(own, sums, lane);
            sums = LaneSums(vec4(0u), vec4(0u), vec4(0u));
        }
        if !goes_on {
            break;
        }
    }
}

fn put_chunk(row: ChunkRow, sums: LaneSums, lane: u32) {
    gather(sums);
    if lane == 0u {
        partials[row.partial] = partial_of_chunk();
        reset_chunk();
    }
    workgroupBarrier();
}
