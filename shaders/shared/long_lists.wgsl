// Lists of more than LONG_LIST entries, by blocks of that many places: a block has parts of two of them at most. What is known of a
// list's sum lies with the first block that begins in it, which no other list has.

// The row whose list has an entry in this place.
fn row_at(place: u32) -> u32 {
    var row = 0u;
    var end = list[0];
    while end - row > 1u {
        let middle = row + (end - row) / 2u;
        if starts[middle] <= place {
            row = middle;
        } else {
            end = middle;
        }
    }
    return row;
}

fn is_long(row: u32) -> bool {
    return starts[row + 1u] - starts[row] > LONG_LIST;
}

// Where what is known of a list's sums begins.
fn sums_of(row: u32) -> u32 {
    return (starts[row] + LONG_LIST - 1u) / LONG_LIST * sizes.width;
}

fn values_so_far(at: u32) -> Values {
    let top = vec2(atomicLoad(&long[at].top[0]), atomicLoad(&long[at].top[1]));
    return Values(top, ~atomicLoad(&long[at].not_in_all));
}
