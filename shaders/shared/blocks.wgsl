// The elements of a chunk as hardware wants them read: a lane takes four columns, with all loads of a turn in flight before the
// first is used. How rows are read, access_*.wgsl tells.

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
                b.rROW = concatenated(b.rROW, next.rROW);
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
