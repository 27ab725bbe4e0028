// Sixteen elements an invocation, of which all are in flight before the first is used: as hardware wants it where elements lie
// apart or chunks are short. Every element is read by its own word.

struct Quads {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// Indices: those of four `step` apart, the fours `apart` from each other.
fn spread(first: u32, step: u32, apart: u32) -> Quads {
    let i = vec4(first) + vec4(0u, 1u, 2u, 3u) * step;
    return Quads(i, i + vec4(apart), i + vec4(2u * apart), i + vec4(3u * apart));
}

fn words_of(e: vec4<u32>) -> vec4<u32> {
    return vec4(word_of(e.x), word_of(e.y), word_of(e.z), word_of(e.w));
}

// Where `few`, the first four alone.
fn words_at(slot: u32, at: Quads, few: bool) -> Quads {
    var w: Quads;
    switch slot {
        //@each slot
        case SLOTu: {
            w.a = vec4(slot_SLOT[at.a.x], slot_SLOT[at.a.y], slot_SLOT[at.a.z], slot_SLOT[at.a.w]);
            if !few {
                w.b = vec4(slot_SLOT[at.b.x], slot_SLOT[at.b.y], slot_SLOT[at.b.z], slot_SLOT[at.b.w]);
                w.c = vec4(slot_SLOT[at.c.x], slot_SLOT[at.c.y], slot_SLOT[at.c.z], slot_SLOT[at.c.w]);
                w.d = vec4(slot_SLOT[at.d.x], slot_SLOT[at.d.y], slot_SLOT[at.d.z], slot_SLOT[at.d.w]);
            }
        }
        //@end
        default: {}
    }
    return w;
}

fn magnitudes_at(slot: u32, e: Quads, few: bool) -> Quads {
    let w = words_at(slot, Quads(words_of(e.a), words_of(e.b), words_of(e.c), words_of(e.d)), few);
    return Quads(
        magnitudes_of(w.a, e.a), magnitudes_of(w.b, e.b), magnitudes_of(w.c, e.c), magnitudes_of(w.d, e.d)
    );
}

// Zeros instead of what does not lie before the end.
fn before(end: u32, m: Quads, i: Quads) -> Quads {
    let e = vec4(end);
    let none = vec4(0u);
    return Quads(
        select(none, m.a, i.a < e), select(none, m.b, i.b < e), select(none, m.c, i.c < e), select(none, m.d, i.d < e)
    );
}

// Zeros instead of what is not finite.
fn finite_in(m: Quads, most: u32) -> Quads {
    let e = vec4(most);
    let none = vec4(0u);
    return Quads(
        select(none, m.a, m.a <= e), select(none, m.b, m.b <= e), select(none, m.c, m.c <= e), select(none, m.d, m.d <= e)
    );
}

fn largest_in(m: vec4<u32>) -> u32 {
    return max(max(m.x, m.y), max(m.z, m.w));
}

fn total_in(m: vec4<u32>) -> u32 {
    return m.x + m.y + m.z + m.w;
}

fn with_seen(seen: Seen, m: Quads, most: u32) -> Seen {
    let finite = finite_in(m, most);
    let top = largest_in(max(max(finite.a, finite.b), max(finite.c, finite.d)));
    let largest = largest_in(max(max(m.a, m.b), max(m.c, m.d)));
    var next = Seen(max(seen.top, top), seen.non_finite, max(seen.nan, u32(largest > INFINITY_BITS)));
    if largest > most {
        let e = vec4(most);
        next.non_finite += total_in(vec4<u32>(m.a > e) + vec4<u32>(m.b > e) + vec4<u32>(m.c > e) + vec4<u32>(m.d > e));
    }
    return next;
}

// Elements that are columns of their own.
fn with_four_singles(total: U64, m: vec4<u32>, exponent: u32) -> U64 {
    let two = with_single(with_single(total, m.x, exponent), m.y, exponent);
    return with_single(with_single(two, m.z, exponent), m.w, exponent);
}

fn with_singles(total: U64, m: Quads, exponent: u32) -> U64 {
    let eight = with_four_singles(with_four_singles(total, m.a, exponent), m.b, exponent);
    return with_four_singles(with_four_singles(eight, m.c, exponent), m.d, exponent);
}
