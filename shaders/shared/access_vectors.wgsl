// Gradients by vectors: a lane takes four neighbouring columns. Rows of the table begin and end at whole vectors.

alias Cols = vec4<u32>;
alias Reals = vec4<f32>;

const TURNS: u32 = 1u;

fn first_column(lane: u32, turn: u32) -> u32 {
    return 4u * lane;
}

// Where a Row lies, and how far apart those of a column do.
fn place_of(element: u32) -> u32 {
    return element >> 2u;
}

const STEP: u32 = COLUMNS / 4u;

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
    return select(Row(0u), row, element <= last);
}

fn total_of(c: Cols) -> u32 {
    return c.x + c.y + c.z + c.w;
}

// The columns of a lane, with those of a turn in place.
fn placed(all: vec4<u32>, own: Cols, turn: u32) -> vec4<u32> {
    return own;
}
