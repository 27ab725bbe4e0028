// chunks of at most COLUMNS elements -> their partials: TEAM invocations each, several chunks a workgroup.
// The sum is that of reduce.wgsl, to the bit: every element is a column of its own.

const TEAMS: u32 = WORKGROUP / TEAM;

var<workgroup> shared_top: array<atomic<u32>, TEAMS>;
var<workgroup> shared_limbs: array<atomic<u32>, 3u * TEAMS>;
var<workgroup> shared_non_finite: array<atomic<u32>, TEAMS>;
var<workgroup> shared_nan: array<atomic<u32>, TEAMS>;

@compute @workgroup_size(WORKGROUP)
fn reduce_short(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let team = lane / TEAM;
    let member = lane % TEAM;
    let index = (group.y * groups.x + group.x) * TEAMS + team;
    // Teams without a row, and rows left out, go through every barrier with no elements.
    let owns = index < job.rows;
    let row = rows[job.first_row + min(index, job.rows - 1u)];
    let len = select(0u, row.slot_len & ((1u << LEN_BITS) - 1u), owns && row.segment < job.until);
    if member == 0u {
        atomicStore(&shared_top[team], 0u);
        atomicStore(&shared_limbs[3u * team], 0u);
        atomicStore(&shared_limbs[3u * team + 1u], 0u);
        atomicStore(&shared_limbs[3u * team + 2u], 0u);
        atomicStore(&shared_non_finite[team], 0u);
        atomicStore(&shared_nan[team], 0u);
    }
    workgroupBarrier();

    let most = most_of(row.segment);
    let seen = seen_in(row, member, len, most);
    atomicMax(&shared_top[team], seen.top);
    if seen.non_finite != 0u {
        atomicAdd(&shared_non_finite[team], seen.non_finite);
        atomicMax(&shared_nan[team], seen.nan);
    }
    workgroupBarrier();

    let top = atomicLoad(&shared_top[team]);
    let exponent = select(max(top >> 23u, 1u), top, NORM == NORM_INF);
    if NORM != NORM_INF {
        let limbs = limbs21_of(sum_in(row, member, len, exponent, most));
        atomicAdd(&shared_limbs[3u * team], limbs.x);
        atomicAdd(&shared_limbs[3u * team + 1u], limbs.y);
        atomicAdd(&shared_limbs[3u * team + 2u], limbs.z);
        workgroupBarrier();
    }

    if member == 0u && owns {
        let total = from_limbs21(vec3(
            atomicLoad(&shared_limbs[3u * team]),
            atomicLoad(&shared_limbs[3u * team + 1u]),
            atomicLoad(&shared_limbs[3u * team + 2u])
        ));
        let nan = atomicLoad(&shared_nan[team]) << 31u;
        let reads = len != 0u;
        partials[row.partial] =
            Partial(total.lo, total.hi, select(0u, exponent, reads), atomicLoad(&shared_non_finite[team]) | nan);
    }
}
