// Gradients by words, wherever they begin: a lane takes one column of f32 a turn, its neighbour the next.

alias Row = u32;
alias Cols = u32;
alias Reals = f32;

const TURNS: u32 = 4u;

fn first_column(lane: u32, turn: u32) -> u32 {
    return lane + turn * WORKGROUP;
}

// Where a Row lies, and how far apart those of a column do.
fn place_of(element: u32) -> u32 {
    return element;
}

const STEP: u32 = COLUMNS;

// In how many places Rows lie, at most and from an element on.
const MOST_PLACES: u32 = 1u;

fn places_of_row(start: u32) -> u32 {
    return 1u;
}

fn concatenated(row: Row, next: Row) -> Row {
    return row;
}

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
