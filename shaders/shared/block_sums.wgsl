// The sum of reduce.wgsl, to the bit, over the rows of blocks.wgsl. What elements are, block_*.wgsl tells.

// The sums of the columns of a turn, as U64s side by side.
struct Sums {
    lo: Cols,
    hi: Cols,
    exponent: Cols,
}

struct LaneSums {
    lo: vec4<u32>,
    hi: vec4<u32>,
    exponent: vec4<u32>,
}

// The largest magnitude of the chunk's elements that counts as finite.
var<private> most: u32;

// With q = h * 2^14 + l: the sums of h^2, h * l and l^2 over sixteen q fit 32 bits each. Where 32-bit products are as fast as
// any, sums of h^2, h * q and q^2 modulo 2^32 spare l, and those follow from them. Of L1 the halves of q.
struct Squares {
    hh: Cols,
    hl: Cols,
    ll: Cols,
}

fn with_q(s: Squares, q: Cols) -> Squares {
    if NORM == NORM_ONE {
        return Squares(s.hh + (q >> Cols(16u)), s.hl + (q & Cols(0xffffu)), s.ll);
    }
    let h = q >> Cols(14u);
    if FULL_MULTIPLY {
        return Squares(s.hh + h * h, s.hl + h * q, s.ll + q * q);
    }
    let l = q & Cols(0x3fffu);
    return Squares(s.hh + h * h, s.hl + h * l, s.ll + l * l);
}

fn sums_of_squares(sums: Squares, exponent: Cols) -> Sums {
    var s = sums;
    if NORM == NORM_ONE {
        return Sums(s.hl << Cols(16u), s.hh + (s.hl >> Cols(16u)), exponent);
    }
    if FULL_MULTIPLY {
        s.hl -= s.hh << Cols(14u);
        s.ll -= (s.hh << Cols(28u)) + (s.hl << Cols(15u));
    }
    // (hh * 2^28 + hl * 2^15 + ll) / 2^8
    let lowest = s.hh << Cols(20u);
    let lower = lowest + (s.hl << Cols(7u));
    let lo = lower + (s.ll >> Cols(8u));
    let carries = select(Cols(0u), Cols(1u), lower < lowest) + select(Cols(0u), Cols(1u), lo < lower);
    return Sums(lo, (s.hh >> Cols(12u)) + (s.hl >> Cols(25u)) + carries, exponent);
}

// Whether `q_of` is not the definition, or something is not finite. A column of zeros is none of those.
fn is_rare(top: Cols) -> bool {
    let beyond = top - Cols(LEAST_TOP) >= Cols(first_non_finite_top() - LEAST_TOP);
    return any(beyond & (top != Cols(0u)));
}

fn sums_of_block(b: Block, last: u32) -> Sums {
    var top = tops_of(b.r0);
    if last >= COLUMNS {
        //@each further row
        top = max(top, tops_of(b.rROW));
        //@end row
    }
    top = whole_top(top);
    if is_rare(top) {
        return rare_sums(b, last);
    }
    if NORM == NORM_INF {
        return Sums(Cols(0u), Cols(0u), bits_of_top(top));
    }
    let exponent = exponent_of(top);
    let unit = unit_of(exponent);
    var s = Squares(Cols(0u), Cols(0u), Cols(0u));
    s = with_q(s, q_of(b.r0, unit));
    if last >= COLUMNS {
        //@each further row
        s = with_q(s, q_of(b.rROW, unit));
        //@end row
    }
    return sums_of_squares(s, exponent);
}

// As field_of of shared/fields.wgsl.
fn fields_of(magnitudes: Cols) -> Cols {
    return max(magnitudes >> Cols(23u), Cols(1u));
}

// |element| in units of 2^(exponent - 154), of L1 2^(exponent - 158), truncated.
fn aligned(bits: Cols, exponent: Cols) -> Cols {
    let field = fields_of(bits);
    let mantissa = (bits - ((field - Cols(1u)) << Cols(23u))) << Cols(select(4u, 8u, NORM == NORM_ONE));
    let down = exponent - field;
    return select(mantissa >> (down & Cols(31u)), Cols(0u), down > Cols(31u));
}

// By the definition, whatever the elements are; counts what is not finite.
fn rare_sums(b: Block, last: u32) -> Sums {
    let used = last / COLUMNS + 1u;
    var top = Cols(0u);
    var non_finite = Cols(0u);
    var nan = Cols(0u);
    for (var r = 0u; r < used; r++) {
        let bits = magnitudes_of(row_of(b, r));
        let over = bits > Cols(most);
        top = max(top, select(bits, Cols(0u), over));
        non_finite += select(Cols(0u), Cols(1u), over);
        nan = max(nan, select(Cols(0u), Cols(1u), bits > Cols(INFINITY_BITS)));
    }
    if total_of(non_finite) != 0u {
        atomicAdd(&chunk_non_finite, total_of(non_finite));
        atomicMax(&chunk_nan, min(total_of(nan), 1u));
    }
    if NORM == NORM_INF {
        return Sums(Cols(0u), Cols(0u), top);
    }
    let exponent = fields_of(top);
    var s = Squares(Cols(0u), Cols(0u), Cols(0u));
    for (var r = 0u; r < used; r++) {
        let bits = magnitudes_of(row_of(b, r));
        s = with_q(s, aligned(select(bits, Cols(0u), bits > Cols(most)), exponent));
    }
    return sums_of_squares(s, exponent);
}

fn with_turn(all: LaneSums, turn: u32, own: Sums) -> LaneSums {
    return LaneSums(
        placed(all.lo, own.lo, turn), placed(all.hi, own.hi, turn), placed(all.exponent, own.exponent, turn)
    );
}

// Adds up the columns of all lanes, aligned to the largest exponent.
fn gather(sums: LaneSums) {
    let e = sums.exponent;
    atomicMax(&chunk_exponent, max(max(e.x, e.y), max(e.z, e.w)));
    workgroupBarrier();
    if NORM == NORM_INF {
        return;
    }
    let down = ALIGN * (vec4(atomicLoad(&chunk_exponent)) - e);
    var total = shr64(U64(sums.lo.x, sums.hi.x), down.x);
    total = add64(total, shr64(U64(sums.lo.y, sums.hi.y), down.y));
    total = add64(total, shr64(U64(sums.lo.z, sums.hi.z), down.z));
    total = add64(total, shr64(U64(sums.lo.w, sums.hi.w), down.w));
    add_to_chunk(total);
    workgroupBarrier();
}
