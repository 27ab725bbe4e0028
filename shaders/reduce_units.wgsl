// chunk of a unit -> partial, for units too short or too scattered for a workgroup each: one invocation
// adds up one chunk. The sum is that of reduce.wgsl, to the bit: columns of at most ROWS elements, each
// COLUMNS apart.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> rows: array<UnitRow>;
@group(0) @binding(2) var<storage, read_write> partials: array<Partial>;
//@each slot
@group(1) @binding(SLOT) var<storage, read> slot_SLOT: array<u32>;
//@end

struct Counted {
    non_finite: u32,
    nan: u32,
}

var<private> counted: Counted;
// The largest magnitude of a unit's elements that counts as finite.
var<private> most: u32;

fn raw_magnitude(slot: u32, element: u32) -> u32 {
    switch slot {
        //@each slot
        case SLOTu: {
            return element_bits(slot_SLOT[word_of(element)], element) & 0x7fffffffu;
        }
        //@end
        default: {
            return 0u;
        }
    }
}

// Element i of the unit whose first one is at `origin`.
fn element_at(row: UnitRow, origin: u32, i: u32) -> u32 {
    if row.reduced_high == 0u {
        return origin + i * row.reduced_low;
    }
    return origin + (i / row.reduced) * row.reduced_high + (i % row.reduced) * row.reduced_low;
}

fn finite_magnitude(row: UnitRow, origin: u32, i: u32) -> u32 {
    let bits = raw_magnitude(row.slot, element_at(row, origin, row.first + i));
    return select(0u, bits, bits <= most);
}

// The largest finite magnitude of the chunk; counts the others.
fn largest_of(row: UnitRow, origin: u32) -> u32 {
    var top = 0u;
    for (var i = 0u; i < row.len; i++) {
        let bits = raw_magnitude(row.slot, element_at(row, origin, row.first + i));
        if bits <= most {
            top = max(top, bits);
        } else {
            counted.non_finite += 1u;
            counted.nan |= u32(bits > INFINITY_BITS);
        }
    }
    return top;
}

fn field_or_one(bits: u32) -> u32 {
    return max(bits >> 23u, 1u);
}

// At most COLUMNS elements: each is a column of its own.
fn sum_of_singles(row: UnitRow, origin: u32, exponent: u32) -> U64 {
    var total = U64(0u, 0u);
    for (var i = 0u; i < row.len; i++) {
        let bits = finite_magnitude(row, origin, i);
        let field = field_or_one(bits);
        let term = term_of(bits - ((field - 1u) << 23u));
        total = add64(total, shr64(term, ALIGN * (exponent - field)));
    }
    return total;
}

// |element| in units of the column's exponent, with `guard` bits below the mantissa, truncated.
fn aligned_to(bits: u32, exponent: u32, guard: u32) -> u32 {
    let field = field_or_one(bits);
    let mantissa = (bits - ((field - 1u) << 23u)) << guard;
    let down = exponent - field;
    return select(mantissa >> (down & 31u), 0u, down > 31u);
}

fn sum_of_column(row: UnitRow, origin: u32, column: u32, chunk_exponent: u32) -> U64 {
    var top = 0u;
    for (var i = column; i < row.len; i += COLUMNS) {
        top = max(top, finite_magnitude(row, origin, i));
    }
    let exponent = field_or_one(top);
    var s = vec3<u32>(0u);
    for (var i = column; i < row.len; i += COLUMNS) {
        let bits = finite_magnitude(row, origin, i);
        if NORM == NORM_ONE {
            let q = aligned_to(bits, exponent, 8u);
            s += vec3(q >> 16u, q & 0xffffu, 0u);
        } else {
            let q = aligned_to(bits, exponent, 4u);
            let h = q >> 14u;
            let l = q & 0x3fffu;
            s += vec3(h * h, h * l, l * l);
        }
    }
    var sum = U64(s.y << 16u, s.x + (s.y >> 16u));
    if NORM != NORM_ONE {
        sum = add64(U64(s.x << 20u, s.x >> 12u), U64(s.y << 7u, s.y >> 25u));
        sum = add64(sum, U64(s.z >> 8u, 0u));
    }
    return shr64(sum, ALIGN * (chunk_exponent - exponent));
}

fn integer_sum(row: UnitRow, origin: u32, exponent: u32) -> U64 {
    if row.len <= COLUMNS {
        return sum_of_singles(row, origin, exponent);
    }
    var total = U64(0u, 0u);
    for (var column = 0u; column < COLUMNS; column++) {
        total = add64(total, sum_of_column(row, origin, column, exponent));
    }
    return total;
}

@compute @workgroup_size(WORKGROUP)
fn reduce_units(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    if index >= job.rows {
        return;
    }
    let row = rows[job.first_row + index];
    if lane >= row.units {
        return;
    }
    if row.segment + lane >= job.until {
        partials[row.partial + lane] = Partial(0u, 0u, 0u, 0u);
        return;
    }
    let unit = row.first_unit + lane;
    let origin = row.base + (unit / row.kept) * row.kept_high + (unit % row.kept) * row.kept_low;
    counted = Counted(0u, 0u);
    most = most_of(row.segment);
    let top = largest_of(row, origin);
    partials[row.partial + lane] = partial_of(row, origin, top, counted.non_finite | (counted.nan << 31u));
}
