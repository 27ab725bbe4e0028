// TEAM invocations add up the chunk of a unit where the row has few enough, else one. An invocation takes every TEAM-th column of
// the chunk, with sixteen elements in flight. Neighbouring invocations read what lies side by side: elements of one unit, or the
// same element of neighbouring units.

// A team may be a single invocation.
const TEAMS: u32 = WORKGROUP;

// Where an invocation stands: with whom it shares which unit.
struct Place {
    unit: u32,
    member: u32,
    team: u32,
    // The unit's first element in the slot.
    origin: u32,
    // Elements of the unit's chunk; none for an invocation without a unit.
    len: u32,
}

fn place_of(row: UnitRow, lane: u32) -> Place {
    let team = select(1u, TEAM, row.units <= WORKGROUP / TEAM);
    let units = WORKGROUP / team;
    let is_along = row.reduced_low < row.kept_low;
    let index = select(lane % units, lane / team, is_along);
    let member = select(lane / units, lane % team, is_along);
    let unit = row.first_unit + min(index, row.units - 1u);
    let origin = row.base + (unit / row.kept) * row.kept_high + (unit % row.kept) * row.kept_low;
    let reads = index < row.units && row.segment + index < job.until;
    return Place(index, member, team, origin, select(0u, row.len, reads));
}

// Where elements of the unit lie; past the end of the chunk its last one's place.
fn elements_of(row: UnitRow, origin: u32, i: vec4<u32>) -> vec4<u32> {
    let n = vec4(row.first) + min(i, vec4(row.len - 1u));
    if row.reduced_high == 0u {
        return vec4(origin) + n * row.reduced_low;
    }
    return vec4(origin) + (n / row.reduced) * row.reduced_high + (n % row.reduced) * row.reduced_low;
}

fn quads_of(row: UnitRow, origin: u32, i: Quads, few: bool) -> Quads {
    let e = Quads(
        elements_of(row, origin, i.a),
        elements_of(row, origin, i.b),
        elements_of(row, origin, i.c),
        elements_of(row, origin, i.d)
    );
    return before(row.len, magnitudes_at(row.slot, e, few), i);
}

// How an invocation goes through its elements: sixteen a turn, from `first` on those of four `step` apart, the fours `apart` from
// each other. Columns that it has whole lie COLUMNS apart.
struct Sweep {
    end: u32,
    advance: u32,
    step: u32,
    apart: u32,
}

fn sweep_of(row: UnitRow, p: Place) -> Sweep {
    if row.len <= COLUMNS {
        return Sweep(p.len, 16u * p.team, p.team, 4u * p.team);
    }
    let columns = select(0u, COLUMNS, p.len != 0u);
    if row.len <= 4u * COLUMNS {
        return Sweep(columns, 4u * p.team, COLUMNS, p.team);
    }
    return Sweep(columns, p.team, COLUMNS, 4u * COLUMNS);
}

// Of q = h * 2^14 + l the sums of h^2, h * l and l^2; of L1 those of the halves of q.
fn squares_of(m: vec4<u32>, exponent: u32) -> vec3<u32> {
    if NORM == NORM_ONE {
        let q = four_aligned_to(m, exponent, 8u);
        return vec3(total_in(q >> vec4(16u)), total_in(q & vec4(0xffffu)), 0u);
    }
    let q = four_aligned_to(m, exponent, 4u);
    let h = q >> vec4(14u);
    let l = q & vec4(0x3fffu);
    return vec3(total_in(h * h), total_in(h * l), total_in(l * l));
}

// A column of at most four elements.
fn with_short_column(total: U64, m: vec4<u32>, chunk_exponent: u32) -> U64 {
    let exponent = field_of(largest_in(m));
    return add64(total, shr64(column_total(squares_of(m, exponent)), ALIGN * (chunk_exponent - exponent)));
}

fn with_column(total: U64, m: Quads, chunk_exponent: u32) -> U64 {
    let exponent = field_of(largest_in(max(max(m.a, m.b), max(m.c, m.d))));
    let s = squares_of(m.a, exponent) + squares_of(m.b, exponent) + squares_of(m.c, exponent) + squares_of(m.d, exponent);
    return add64(total, shr64(column_total(s), ALIGN * (chunk_exponent - exponent)));
}

fn with_turn(total: U64, row: UnitRow, m: Quads, exponent: u32) -> U64 {
    if row.len <= COLUMNS {
        return with_singles(total, m, exponent);
    }
    if row.len > 4u * COLUMNS {
        return with_column(total, m, exponent);
    }
    let two = with_short_column(with_short_column(total, m.a, exponent), m.b, exponent);
    return with_short_column(with_short_column(two, m.c, exponent), m.d, exponent);
}

// Twice through the elements, once for the largest, once for the sum: in one loop, since loads are most of the code where slots
// are many. Invocations without a unit, and those of units left out, go through every barrier with no elements.
fn add_units(row: UnitRow, lane: u32) {
    reset_team(lane);
    workgroupBarrier();

    let p = place_of(row, lane);
    let most = most_of(row.segment);
    let sweep = sweep_of(row, p);
    var seen = Seen(0u, 0u, 0u);
    var total = U64(0u, 0u);
    var exponent = 0u;
    for (var visit = 0u; visit < select(2u, 1u, NORM == NORM_INF); visit++) {
        for (var turn = 0u; turn < sweep.end; turn += sweep.advance) {
            let few = row.len <= COLUMNS && row.len - turn <= 4u * p.team;
            let m = quads_of(row, p.origin, spread(p.member + turn, sweep.step, sweep.apart), few);
            if NORM == NORM_INF || visit == 0u {
                seen = with_seen(seen, m, most);
            } else {
                total = with_turn(total, row, finite_in(m, most), exponent);
            }
        }
        if NORM == NORM_INF || visit == 0u {
            add_seen(p.unit, seen);
        } else {
            add_to_team(p.unit, total);
        }
        workgroupBarrier();
        exponent = exponent_of_team(p.unit);
    }

    if p.member == 0u && p.unit < row.units {
        partials[row.partial + p.unit] = gathered_of_team(p.unit, p.len != 0u);
    }
}
