// Lists of entries, values -> added rows, but for those with long lists. An invocation an element.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> sizes: Coalescing;
@group(0) @binding(2) var<storage, read> list: array<u32>;
@group(0) @binding(3) var<storage, read> starts: array<u32>;
@group(0) @binding(4) var<storage, read> entries: array<u32>;
// Those from element `job.first_row` on, as bits of f32.
@group(0) @binding(5) var<storage, read_write> added: array<u32>;

// What the entries of a list add up to in a column. One alone keeps its bits.
fn added_of(first: u32, end: u32, column: u32) -> u32 {
    if end - first == 1u {
        return value_of(entries[first], column);
    }
    let values = values_of(first, end, column);
    if !is_sum_finite(values) {
        return sum_not_finite(values);
    }
    let field = field_of_sum(values);
    return rounded_sum(sum_of(first, end, column, field), field, values);
}

@compute @workgroup_size(WORKGROUP)
fn add_entries(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let place = index_in_grid(group, groups) * WORKGROUP + lane;
    if place >= job.rows {
        return;
    }
    let element = job.first_row + place;
    let row = element / sizes.width;
    let column = element - row * sizes.width;
    if row < list[0] {
        let first = starts[row];
        let end = starts[row + 1u];
        if end - first <= LONG_LIST {
            added[place] = added_of(first, end, column);
        }
        return;
    }
    // Not finite where an entry was left out, in the first element of the last row, which no entry has.
    let tells = list[1] != 0u && row + 1u == sizes.added && column == 0u;
    added[place] = select(0u, QUIET_NAN_BITS, tells);
}
