// chunk -> partial. One workgroup adds up one chunk of at most CHUNK elements exactly as
// src/cpu/reduce.rs does: each column in integers of its own largest exponent, then all columns
// aligned to the chunk's. Max and integer addition are associative and commutative, so neither the
// workgroup size nor the order of the atomics can change a bit.

const COLUMNS_PER_LANE: u32 = COLUMNS / WORKGROUP;

// The magnitude bits of a column, rows 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
struct Column {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

struct ColumnSum {
    mantissa: U64,
    exponent: u32,
}

// The largest magnitude of the chunk's elements that counts as finite.
var<private> most: u32;

// Rows 4 to 15 are fetched only where the chunk has them. Whole chunks have no way of their own here: software adapters, for which
// this form is, would run both.
fn fetch(slot: u32, start: u32, column: u32, last: u32) -> Column {
    var c = Column(vec4(0u), vec4(0u), vec4(0u), vec4(0u));
    switch slot {
        //@each slot
        case SLOTu: {
            c.a = four_rows_SLOT(start, column, last);
            if last >= 4u * COLUMNS {
                c.b = four_rows_SLOT(start, column + 4u * COLUMNS, last);
            }
            if last >= 8u * COLUMNS {
                c.c = four_rows_SLOT(start, column + 8u * COLUMNS, last);
            }
            if last >= 12u * COLUMNS {
                c.d = four_rows_SLOT(start, column + 12u * COLUMNS, last);
            }
        }
        //@end
        default: {}
    }
    return c;
}

//@each slot
fn four_rows_SLOT(start: u32, i: u32, last: u32) -> vec4<u32> {
    return vec4(
        at_SLOT(start, i, last),
        at_SLOT(start, i + COLUMNS, last),
        at_SLOT(start, i + 2u * COLUMNS, last),
        at_SLOT(start, i + 3u * COLUMNS, last)
    );
}
//@end

fn largest(c: Column) -> u32 {
    let m = max(max(c.a, c.b), max(c.c, c.d));
    return max(max(m.x, m.y), max(m.z, m.w));
}

fn finite_or_zero(bits: vec4<u32>) -> vec4<u32> {
    return select(bits, vec4(0u), bits > vec4(most));
}

fn count(marked: vec4<bool>) -> u32 {
    let ones = select(vec4(0u), vec4(1u), marked);
    return ones.x + ones.y + ones.z + ones.w;
}

// Rare: counts the non-finite elements of a column and returns it with zeros in their place.
fn without_non_finite(c: Column) -> Column {
    let limit = vec4(most);
    atomicAdd(&chunk_non_finite, count(c.a > limit) + count(c.b > limit) + count(c.c > limit) + count(c.d > limit));
    if largest(c) > INFINITY_BITS {
        atomicMax(&chunk_nan, 1u);
    }
    return Column(finite_or_zero(c.a), finite_or_zero(c.b), finite_or_zero(c.c), finite_or_zero(c.d));
}

// |element| in units of 2^(exponent - 154): 28 bits, truncated.
fn aligned(bits: vec4<u32>, exponent: u32) -> vec4<u32> {
    let field = max(bits >> vec4(23u), vec4(1u));
    let mantissa = bits - ((field - vec4(1u)) << vec4(23u));
    return (mantissa << vec4(4u)) >> min(vec4(exponent) - field, vec4(31u));
}

fn sum_of_column(loaded: Column, last: u32) -> ColumnSum {
    var c = loaded;
    var top = largest(c);
    if top > most {
        c = without_non_finite(c);
        top = largest(c);
    }
    if NORM == NORM_INF {
        return ColumnSum(U64(0u, 0u), top);
    }
    let exponent = max(top >> 23u, 1u);
    if NORM == NORM_ONE {
        return ColumnSum(sum_of_magnitudes(c, exponent), exponent);
    }
    var squares = squares_of(aligned(c.a, exponent));
    if last >= 4u * COLUMNS {
        squares += squares_of(aligned(c.b, exponent));
    }
    if last >= 8u * COLUMNS {
        squares += squares_of(aligned(c.c, exponent));
    }
    if last >= 12u * COLUMNS {
        squares += squares_of(aligned(c.d, exponent));
    }
    return ColumnSum(column_total(squares), exponent);
}

// A column of one element, as chunks of at most COLUMNS elements have: nothing is aligned, nothing
// dropped.
fn sum_of_single(loaded: u32) -> ColumnSum {
    var bits = loaded;
    if bits > most {
        atomicAdd(&chunk_non_finite, 1u);
        atomicMax(&chunk_nan, u32(bits > INFINITY_BITS));
        bits = 0u;
    }
    if NORM == NORM_INF {
        return ColumnSum(U64(0u, 0u), bits);
    }
    let exponent = max(bits >> 23u, 1u);
    return ColumnSum(term_of(bits - ((exponent - 1u) << 23u)), exponent);
}

// |element| in units of 2^(exponent - 158): 32 bits, truncated.
fn aligned32(bits: vec4<u32>, exponent: u32) -> vec4<u32> {
    let field = max(bits >> vec4(23u), vec4(1u));
    let mantissa = (bits - ((field - vec4(1u)) << vec4(23u))) << vec4(8u);
    let down = vec4(exponent) - field;
    return select(mantissa >> (down & vec4(31u)), vec4(0u), down > vec4(31u));
}

// Sixteen terms of 32 bits, their halves added apart, and 16 bits below them for the alignment of
// columns.
fn sum_of_magnitudes(c: Column, exponent: u32) -> U64 {
    let a = aligned32(c.a, exponent);
    let b = aligned32(c.b, exponent);
    let e = aligned32(c.c, exponent);
    let f = aligned32(c.d, exponent);
    let s = vec4(16u);
    let m = vec4(0xffffu);
    let high = (a >> s) + (b >> s) + (e >> s) + (f >> s);
    let low = (a & m) + (b & m) + (e & m) + (f & m);
    let upper = high.x + high.y + high.z + high.w;
    let lower = low.x + low.y + low.z + low.w;
    return column_total(vec3(upper, lower, 0u));
}

// Sums of h^2, h * l and l^2 over four q = h * 2^14 + l: those of sixteen fit 32 bits each.
fn squares_of(q: vec4<u32>) -> vec3<u32> {
    let h = q >> vec4(14u);
    let l = q & vec4(0x3fffu);
    return vec3(dot(h, h), dot(h, l), dot(l, l));
}

fn add_chunk(row: ChunkRow, lane: u32) {
    if lane == 0u {
        reset_chunk();
    }
    workgroupBarrier();

    most = most_of(row.segment);
    let slot = row.slot_len >> LEN_BITS;
    let last = (row.slot_len & ((1u << LEN_BITS) - 1u)) - 1u;
    var sums: array<ColumnSum, COLUMNS_PER_LANE>;
    var exponent = 0u;
    // Not a constant, which Mesa's GL would unroll: compiling then takes minutes.
    let used = min(COLUMNS_PER_LANE, last / WORKGROUP + 1u);
    // Two loops, of which one is empty: software adapters run both sides of a branch.
    let single = last < COLUMNS;
    for (var k = 0u; k < select(0u, used, single); k++) {
        sums[k] = sum_of_single(fetch_single(slot, row.start, k * WORKGROUP + lane, last));
        exponent = max(exponent, sums[k].exponent);
    }
    for (var k = 0u; k < select(used, 0u, single); k++) {
        sums[k] = sum_of_column(fetch(slot, row.start, k * WORKGROUP + lane, last), last);
        exponent = max(exponent, sums[k].exponent);
    }
    atomicMax(&chunk_exponent, exponent);
    workgroupBarrier();

    exponent = atomicLoad(&chunk_exponent);
    if NORM != NORM_INF {
        var total = U64(0u, 0u);
        for (var k = 0u; k < used; k++) {
            total = add64(total, shr64(sums[k].mantissa, ALIGN * (exponent - sums[k].exponent)));
        }
        add_to_chunk(total);
        workgroupBarrier();
    }

    if lane == 0u {
        partials[row.partial] = partial_of_chunk();
    }
}
