// What each team of a workgroup has found and added up. The kernel says how many TEAMS there are.

var<workgroup> shared_top: array<atomic<u32>, TEAMS>;
var<workgroup> shared_limbs: array<atomic<u32>, 3u * TEAMS>;
var<workgroup> shared_non_finite: array<atomic<u32>, TEAMS>;
var<workgroup> shared_nan: array<atomic<u32>, TEAMS>;

fn reset_team(team: u32) {
    atomicStore(&shared_top[team], 0u);
    atomicStore(&shared_limbs[3u * team], 0u);
    atomicStore(&shared_limbs[3u * team + 1u], 0u);
    atomicStore(&shared_limbs[3u * team + 2u], 0u);
    atomicStore(&shared_non_finite[team], 0u);
    atomicStore(&shared_nan[team], 0u);
}

fn add_seen(team: u32, seen: Seen) {
    atomicMax(&shared_top[team], seen.top);
    if seen.non_finite != 0u {
        atomicAdd(&shared_non_finite[team], seen.non_finite);
        atomicMax(&shared_nan[team], seen.nan);
    }
}

// Of the infinity norm the largest magnitude itself.
fn exponent_of_team(team: u32) -> u32 {
    let top = atomicLoad(&shared_top[team]);
    return select(field_of(top), top, NORM == NORM_INF);
}

fn add_to_team(team: u32, total: U64) {
    let limbs = limbs21_of(total);
    atomicAdd(&shared_limbs[3u * team], limbs.x);
    atomicAdd(&shared_limbs[3u * team + 1u], limbs.y);
    atomicAdd(&shared_limbs[3u * team + 2u], limbs.z);
}

// All zeros of a team that read nothing.
fn gathered_of_team(team: u32, reads: bool) -> Partial {
    let total = from_limbs21(vec3(
        atomicLoad(&shared_limbs[3u * team]),
        atomicLoad(&shared_limbs[3u * team + 1u]),
        atomicLoad(&shared_limbs[3u * team + 2u])
    ));
    let nan = atomicLoad(&shared_nan[team]) << 31u;
    let exponent = select(0u, exponent_of_team(team), reads);
    return Partial(total.lo, total.hi, exponent, atomicLoad(&shared_non_finite[team]) | nan);
}
