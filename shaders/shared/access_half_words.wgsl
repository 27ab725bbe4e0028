// Gradients by words, wherever they begin: a lane takes two neighbouring columns of 16-bit elements a turn, its
// neighbour the next two. Where a chunk begins in the middle of a word, each pair lies in two of them.

alias Row = u32;
alias Cols = vec2<u32>;
alias Reals = vec2<f32>;

//@each slot
@group(1) @binding(SLOT) var<storage, read> slot_SLOT: array<u32>;
//@end

const TURNS: u32 = 2u;

fn first_column(lane: u32, turn: u32) -> u32 {
    return 2u * (lane + turn * WORKGROUP);
}

//@each slot
fn whole_SLOT(element: u32) -> Block {
    let at = element >> 1u;
    var b: Block;
    //@each row
    b.rROW = slot_SLOT[at + ROWu * (COLUMNS / 2u)];
    //@end row
    if (element & 1u) == 1u {
        //@each row
        b.rROW = (b.rROW >> 16u) | (slot_SLOT[at + ROWu * (COLUMNS / 2u) + 1u] << 16u);
        //@end row
    }
    return b;
}

fn pair_SLOT(start: u32, i: u32, last: u32) -> u32 {
    let low = start + min(i, last);
    let word = slot_SLOT[low >> 1u];
    if (start & 1u) == 0u {
        return word;
    }
    return (word >> 16u) | (slot_SLOT[(start + min(i + 1u, last)) >> 1u] << 16u);
}

fn part_SLOT(start: u32, column: u32, last: u32) -> Block {
    var b: Block;
    b.r0 = pair_SLOT(start, column, last);
    if last >= COLUMNS {
        //@each further row
        b.rROW = pair_SLOT(start, ROWu * COLUMNS + column, last);
        //@end row
    }
    return b;
}
//@end

// What lies before the end of the chunk.
fn within_chunk(row: Row, element: u32, last: u32) -> Row {
    return row & (select(0u, 0xffffu, element <= last) | select(0u, 0xffff0000u, element < last));
}

// Elements in the upper halves of words.
fn at_top(row: Row) -> Cols {
    return vec2(row << 16u, row & 0xffff0000u);
}

// The same without signs, one bit further up, and below the odd ones what lies there.
fn without_signs(row: Row) -> Cols {
    return vec2(row << 17u, row << 1u);
}

fn total_of(c: Cols) -> u32 {
    return c.x + c.y;
}

// The columns of a lane, with those of a turn in place.
fn placed(all: vec4<u32>, own: Cols, turn: u32) -> vec4<u32> {
    return select(vec4(own, all.zw), vec4(all.xy, own), turn == 1u);
}
