// Gradients by words, wherever they begin: a lane takes one column of f32 a turn, its neighbour the next.

alias Row = u32;
alias Cols = u32;
alias Reals = f32;

//@each slot
@group(1) @binding(SLOT) var<storage, read> slot_SLOT: array<u32>;
//@end

const TURNS: u32 = 4u;

fn first_column(lane: u32, turn: u32) -> u32 {
    return lane + turn * WORKGROUP;
}

//@each slot
fn whole_SLOT(element: u32) -> Block {
    var b: Block;
    //@each row
    b.rROW = slot_SLOT[element + ROWu * COLUMNS];
    //@end row
    return b;
}

fn part_SLOT(start: u32, column: u32, last: u32) -> Block {
    var b: Block;
    b.r0 = slot_SLOT[start + min(column, last)];
    if last >= COLUMNS {
        //@each further row
        b.rROW = slot_SLOT[start + min(ROWu * COLUMNS + column, last)];
        //@end row
    }
    return b;
}
//@end

// What lies before the end of the chunk.
fn within_chunk(row: Row, element: u32, last: u32) -> Row {
    return select(0u, row, element <= last);
}

fn total_of(c: Cols) -> u32 {
    return c;
}

// The columns of a lane, with those of a turn in place.
fn placed(all: vec4<u32>, own: Cols, turn: u32) -> vec4<u32> {
    return select(all, vec4(own), vec4(0u, 1u, 2u, 3u) == vec4(turn));
}
