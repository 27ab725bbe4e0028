// Sixteen words of an invocation, all in flight before the first store; little code a slot.

//@each slot
@group(1) @binding(SLOT) var<storage, read_write> slot_SLOT: array<u32>;
//@end

struct Sixteen {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// Every WORKGROUP-th word from the first; past the end that again, with which the same is done.
fn sixteen_from(first: u32, end: u32) -> Sixteen {
    let a = vec4(first) + vec4(0u, WORKGROUP, 2u * WORKGROUP, 3u * WORKGROUP);
    let b = a + vec4(4u * WORKGROUP);
    let c = b + vec4(4u * WORKGROUP);
    let d = c + vec4(4u * WORKGROUP);
    let begin = vec4(first);
    let most = vec4(end);
    return Sixteen(
        select(begin, a, a < most), select(begin, b, b < most), select(begin, c, c < most), select(begin, d, d < most)
    );
}

//@each slot
fn four_SLOT(i: vec4<u32>) -> vec4<u32> {
    return vec4(slot_SLOT[i.x], slot_SLOT[i.y], slot_SLOT[i.z], slot_SLOT[i.w]);
}
//@end

fn fetch(slot: u32, i: Sixteen) -> Sixteen {
    var words: Sixteen;
    switch slot {
        //@each slot
        case SLOTu: {
            words = Sixteen(four_SLOT(i.a), four_SLOT(i.b), four_SLOT(i.c), four_SLOT(i.d));
        }
        //@end
        default: {}
    }
    return words;
}

//@each slot
fn put_four_SLOT(i: vec4<u32>, words: vec4<u32>) {
    slot_SLOT[i.x] = words.x;
    slot_SLOT[i.y] = words.y;
    slot_SLOT[i.z] = words.z;
    slot_SLOT[i.w] = words.w;
}
//@end

fn put(slot: u32, i: Sixteen, words: Sixteen) {
    switch slot {
        //@each slot
        case SLOTu: {
            put_four_SLOT(i.a, words.a);
            put_four_SLOT(i.b, words.b);
            put_four_SLOT(i.c, words.c);
            put_four_SLOT(i.d, words.d);
        }
        //@end
        default: {}
    }
}

fn get_one(slot: u32, i: u32) -> u32 {
    switch slot {
        //@each slot
        case SLOTu: {
            return slot_SLOT[i];
        }
        //@end
        default: {
            return 0u;
        }
    }
}

fn put_one(slot: u32, i: u32, word: u32) {
    switch slot {
        //@each slot
        case SLOTu: {
            slot_SLOT[i] = word;
        }
        //@end
        default: {}
    }
}

fn smallest_of(v: vec4<u32>) -> u32 {
    return min(min(v.x, v.y), min(v.z, v.w));
}

fn largest_of(v: vec4<u32>) -> u32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

// Whether float code gives the product of every element, by exponent fields of factors, all of normal ones.
fn all_plain(words: Sixteen, smallest_field: u32, largest_field: u32) -> bool {
    let least = min(min(least_of(words.a), least_of(words.b)), min(least_of(words.c), least_of(words.d)));
    let top = max(max(top_of(words.a), top_of(words.b)), max(top_of(words.c), top_of(words.d)));
    return enough(smallest_of(least), smallest_field) && not_too_large(largest_of(top), largest_field);
}
