// The sum of reduce.wgsl, to the bit, for hardware. A lane takes four columns, with all loads of a turn in flight before the
// first is used. How rows are read, access_*.wgsl tells; what elements are, block_*.wgsl.

const_assert WORKGROUP * 4u == COLUMNS;

//@each slot
@group(1) @binding(SLOT) var<storage, read> slot_SLOT: array<Row>;
//@end

// All rows of the columns that a lane takes in a turn.
struct Block {
    //@each row
    rROW: Row,
    //@end row
}

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

fn last_of(row: ChunkRow) -> u32 {
    return (row.slot_len & ((1u << LEN_BITS) - 1u)) - 1u;
}

// Where the Rows of a Block lie.
struct Places {
    //@each row
    iROW: u32,
    //@end row
}

// Past the end of a shorter chunk those of its last element, which `fetch` then takes out.
fn places_of(start: u32, column: u32, last: u32) -> Places {
    var p: Places;
    if last == CHUNK - 1u {
        let first = place_of(start + column);
        //@each row
        p.iROW = first + ROWu * STEP;
        //@end row
    } else {
        //@each row
        p.iROW = place_of(start + min(ROWu * COLUMNS + column, last));
        //@end row
    }
    return p;
}

// Little code a slot: there may be many.
fn load(slot: u32, p: Places, last: u32) -> Block {
    var b: Block;
    switch slot {
        //@each slot
        case SLOTu: {
            b.r0 = slot_SLOT[p.i0];
            if last >= COLUMNS {
                //@each further row
                b.rROW = slot_SLOT[p.iROW];
                //@end row
            }
        }
        //@end
        default: {}
    }
    return b;
}

fn fetch(row: ChunkRow, column: u32) -> Block {
    let last = last_of(row);
    let slot = row.slot_len >> LEN_BITS;
    var b: Block;
    if MOST_PLACES > 1u {
        // Loads are most of the code where slots are many, so they are written once.
        let places = places_of_row(row.start);
        var k = 0u;
        loop {
            let next = load(slot, places_of(row.start, column + k, last), last);
            if k == 0u {
                b = next;
            } else {
                //@each row
                b.rROW = joined(b.rROW, next.rROW);
                //@end row
            }
            k++;
            if k == places {
                break;
            }
        }
    } else {
        b = load(slot, places_of(row.start, column, last), last);
    }
    if last != CHUNK - 1u {
        //@each row
        b.rROW = within_chunk(b.rROW, ROWu * COLUMNS + column, last);
        //@end row
    }
    return b;
}

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

fn row_of(b: Block, r: u32) -> Row {
    switch r {
        //@each row
        case ROWu: {
            return b.rROW;
        }
        //@end row
        default: {
            return Row(0u);
        }
    }
}

// |element| in units of 2^(exponent - 154), of L1 2^(exponent - 158), truncated.
fn aligned(bits: Cols, exponent: Cols) -> Cols {
    let field = max(bits >> Cols(23u), Cols(1u));
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
    let exponent = max(top >> Cols(23u), Cols(1u));
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
