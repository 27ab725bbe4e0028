// The chunks that a dispatch works on. Each row has room for sums, too: those of another row's chunk, since pairs lie in the order of
// tensors.

@group(0) @binding(3) var<storage, read_write> rows: array<MeasuredRow>;

fn row_at(index: u32) -> FusedRow {
    return rows[index].row;
}

fn put_partial(index: u32, partial: Partial) {
    if (index & 1u) == 0u {
        rows[index >> 1u].update = partial;
    } else {
        rows[index >> 1u].parameter = partial;
    }
}
