// The vectors of a chunk, which consists of whole ones: 16 bytes each, all of an invocation's turn in flight before the first
// store; little code a slot. What elements are, vector_*.wgsl tells.

const_assert WORKGROUP == 256u;

//@each slot
@group(1) @binding(SLOT) var<storage, read_write> slot_SLOT: array<vec4<u32>>;
//@end

// The vectors of an invocation's turn.
struct Vectors {
    //@each vector
    vROW: vec4<u32>,
    //@end row
}

// Where they lie; past the end of a shorter chunk the first again, with which the same is done.
struct Places {
    //@each vector
    iROW: u32,
    //@end row
}

fn places_from(first: u32, end: u32) -> Places {
    var i: Places;
    //@each vector
    i.iROW = select(first, first + ROWu * WORKGROUP, first + ROWu * WORKGROUP < end);
    //@end row
    return i;
}

fn fetch(slot: u32, i: Places) -> Vectors {
    var v: Vectors;
    switch slot {
        //@each slot
        case SLOTu: {
            //@each vector
            v.vROW = slot_SLOT[i.iROW];
            //@end row
        }
        //@end
        default: {}
    }
    return v;
}

fn put(slot: u32, i: Places, v: Vectors) {
    switch slot {
        //@each slot
        case SLOTu: {
            //@each vector
            slot_SLOT[i.iROW] = v.vROW;
            //@end row
        }
        //@end
        default: {}
    }
}

// Whether float code gives the product of every element. Only what is not finite, or a factor above 1, can lead beyond the
// largest; sums that were put there from outside may not tell of the former.
fn all_plain(v: Vectors, outcome: Outcome) -> bool {
    let fields = outcome.scale >> 23u;
    var least = least_of(v.v0);
    //@each vector
    least = min(least, least_of(v.vROW));
    //@end row
    if !enough(min(min(least.x, least.y), min(least.z, least.w)), fields) {
        return false;
    }
    if INFINITY_STAYS && outcome.scale <= ONE_BITS && outcome.non_finite == 0u {
        return true;
    }
    var top = top_of(v.v0);
    //@each vector
    top = max(top, top_of(v.vROW));
    //@end row
    return not_too_large(max(max(top.x, top.y), max(top.z, top.w)), fields);
}

fn products_of(v: Vectors, scale: vec4<f32>) -> Vectors {
    var p: Vectors;
    //@each vector
    p.vROW = product_of(v.vROW, scale, scale);
    //@end row
    return p;
}

fn get_one(slot: u32, i: u32) -> vec4<u32> {
    switch slot {
        //@each slot
        case SLOTu: {
            return slot_SLOT[i];
        }
        //@end
        default: {
            return vec4(0u);
        }
    }
}

fn put_one(slot: u32, i: u32, v: vec4<u32>) {
    switch slot {
        //@each slot
        case SLOTu: {
            slot_SLOT[i] = v;
        }
        //@end
        default: {}
    }
}

// Whatever the outcome and the elements are.
fn apply_any(slot: u32, first: u32, end: u32, outcome: Outcome) {
    for (var i = first; i < end; i += WORKGROUP) {
        var v = get_one(slot, i);
        for (var k = 0u; k < 4u; k++) {
            v[k] = applied_word(v[k], outcome);
        }
        put_one(slot, i, v);
    }
}

fn apply_chunk(row: ChunkRow, outcome: Outcome, lane: u32) {
    let slot = row.slot_len >> LEN_BITS;
    let len = row.slot_len & ((1u << LEN_BITS) - 1u);
    let begin = row.start / (4u * PER_WORD) + lane;
    let end = (row.start + len) / (4u * PER_WORD);
    let multiplies = outcome.action == MULTIPLY && outcome.rescale == ONE_BITS && outcome.scale >= 0x800000u;
    for (var turn = 0u; turn < VECTOR_TURNS; turn++) {
        let first = begin + turn * VECTORS * WORKGROUP;
        if first >= end {
            return;
        }
        if multiplies {
            let i = places_from(first, end);
            let v = fetch(slot, i);
            if all_plain(v, outcome) {
                put(slot, i, products_of(v, vec4(bitcast<f32>(outcome.scale))));
                continue;
            }
        }
        apply_any(slot, first, min(end, first + VECTORS * WORKGROUP), outcome);
    }
}
