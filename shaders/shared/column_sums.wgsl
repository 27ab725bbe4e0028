// The sums of a chunk's columns, each in integers of its own largest exponent, and of all of them; src/cpu/reduce.rs is the twin.

const COLUMNS_PER_LANE: u32 = COLUMNS / WORKGROUP;

struct ColumnSum {
    mantissa: U64,
    exponent: u32,
}

// |element| in units of 2^(exponent - 154): 28 bits, truncated.
fn aligned(bits: vec4<u32>, exponent: u32) -> vec4<u32> {
    let fields = four_fields_of(bits);
    return (four_mantissas_of(bits, fields) << vec4(4u)) >> min(vec4(exponent) - fields, vec4(31u));
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
    let exponent = field_of(top);
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
    let exponent = field_of(bits);
    return ColumnSum(term_of(mantissa_of(bits, exponent)), exponent);
}

// Sixteen terms of 32 bits, in units of 2^(exponent - 158), their halves added apart, and 16 bits below them for the alignment of
// columns.
fn sum_of_magnitudes(c: Column, exponent: u32) -> U64 {
    let a = four_aligned_to(c.a, exponent, 8u);
    let b = four_aligned_to(c.b, exponent, 8u);
    let e = four_aligned_to(c.c, exponent, 8u);
    let f = four_aligned_to(c.d, exponent, 8u);
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

// Adds up what the lanes have of a chunk: the columns of one, `used` of them, aligned to the largest exponent.
fn put_sums(sums: ptr<function, array<ColumnSum, COLUMNS_PER_LANE>>, used: u32, index: u32, lane: u32) {
    var exponent = 0u;
    for (var k = 0u; k < used; k++) {
        exponent = max(exponent, (*sums)[k].exponent);
    }
    atomicMax(&chunk_exponent, exponent);
    workgroupBarrier();

    exponent = atomicLoad(&chunk_exponent);
    if NORM != NORM_INF {
        var total = U64(0u, 0u);
        for (var k = 0u; k < used; k++) {
            total = add64(total, shr64((*sums)[k].mantissa, ALIGN * (exponent - (*sums)[k].exponent)));
        }
        add_to_chunk(total);
        workgroupBarrier();
    }

    if lane == 0u {
        put_partial(index, partial_of_chunk());
    }
}
