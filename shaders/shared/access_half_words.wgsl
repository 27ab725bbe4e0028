// Gradients by words, wherever they begin: a lane takes two neighbouring columns of 16-bit elements a turn, its
// neighbour the next two. Where a chunk begins in the middle of a word, each pair lies in two of them.

alias Row = u32;
alias Cols = vec2<u32>;
alias Reals = vec2<f32>;

const TURNS: u32 = 2u;

fn first_column(lane: u32, turn: u32) -> u32 {
    return 2u * (lane + turn * WORKGROUP);
}

// Where a Row lies, and how far apart those of a column do.
fn place_of(element: u32) -> u32 {
    return element >> 1u;
}

const STEP: u32 = COLUMNS / 2u;

// In how many places Rows lie, at most and from an element on.
const MOST_PLACES: u32 = 2u;

fn places_of_row(start: u32) -> u32 {
    return 1u + (start & 1u);
}

fn concatenated(row: Row, next: Row) -> Row {
    return (row >> 16u) | (next << 16u);
}

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
