// The chunks that a dispatch works on.

@group(0) @binding(3) var<storage, read> rows: array<FusedRow>;

fn row_at(index: u32) -> FusedRow {
    return rows[index];
}
