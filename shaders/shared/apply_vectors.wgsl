// The vectors of a chunk, which consists of whole ones: 16 bytes each, all of an invocation in flight before the first store. What
// elements are, vector_*.wgsl tells.

const_assert WORKGROUP == 256u;

//@each slot
@group(1) @binding(SLOT) var<storage, read_write> slot_SLOT: array<vec4<u32>>;
//@end

// All vectors of an invocation.
struct Vectors {
    //@each vector
    vROW: vec4<u32>,
    //@end row
}

// Past the end of a shorter chunk these are zeros, which are plain.
fn fetch(slot: u32, first: u32, end: u32, whole: bool) -> Vectors {
    var v: Vectors;
    switch slot {
        //@each slot
        case SLOTu: {
            if whole {
                //@each vector
                v.vROW = slot_SLOT[first + ROWu * WORKGROUP];
                //@end row
            } else {
                //@each vector
                if first + ROWu * WORKGROUP < end {
                    v.vROW = slot_SLOT[first + ROWu * WORKGROUP];
                }
                //@end row
            }
        }
        //@end
        default: {}
    }
    return v;
}

fn put(slot: u32, first: u32, end: u32, whole: bool, v: Vectors) {
    switch slot {
        //@each slot
        case SLOTu: {
            if whole {
                //@each vector
                slot_SLOT[first + ROWu * WORKGROUP] = v.vROW;
                //@end row
            } else {
                //@each vector
                if first + ROWu * WORKGROUP < end {
                    slot_SLOT[first + ROWu * WORKGROUP] = v.vROW;
                }
                //@end row
            }
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
        let v = get_one(slot, i);
        put_one(slot, i, vec4(
            applied_word(v.x, outcome), applied_word(v.y, outcome), applied_word(v.z, outcome), applied_word(v.w, outcome)
        ));
    }
}

fn apply_chunk(row: ChunkRow, outcome: Outcome, lane: u32) {
    let slot = row.slot_len >> LEN_BITS;
    let len = row.slot_len & ((1u << LEN_BITS) - 1u);
    let first = row.start / (4u * PER_WORD) + lane;
    let end = (row.start + len) / (4u * PER_WORD);
    if outcome.action == MULTIPLY && outcome.rescale == ONE_BITS && outcome.scale >= 0x800000u {
        let v = fetch(slot, first, end, len == CHUNK);
        if all_plain(v, outcome) {
            put(slot, first, end, len == CHUNK, products_of(v, vec4(bitcast<f32>(outcome.scale))));
            return;
        }
    }
    apply_any(slot, first, end, outcome);
}
