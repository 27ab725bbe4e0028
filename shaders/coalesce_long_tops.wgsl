// Long lists, values -> the largest magnitudes of each column.

fn take(at: u32, first: u32, end: u32, column: u32) {
    let values = values_of(first, end, column);
    atomicMax(&long[at].top[0], values.top.x);
    atomicMax(&long[at].top[1], values.top.y);
    atomicOr(&long[at].not_in_all, ~values.in_all);
}
