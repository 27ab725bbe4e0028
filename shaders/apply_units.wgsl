// outcome -> gradients, in place, for tensors that are cut into units. One workgroup a run of
// neighbouring elements, whatever unit each belongs to; where no segment is changed it returns at once. How it writes,
// shared/apply_units_each.wgsl or shared/apply_units_sixteen.wgsl tells.

// A Tally as plain words, since atomics cannot lie in a uniform buffer.
struct TallyWords {
    steps_and_clipped: vec4<u32>,
    skipped: u32,
    changed: u32,
    pad: vec2<u32>,
}

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> rows: array<MapRow>;
@group(0) @binding(2) var<storage, read> outcomes: array<Outcome>;
@group(0) @binding(3) var<uniform> tally: TallyWords;

// Which unit an element belongs to, by two digits, each with the elements since it last changed.
struct Place {
    low_rest: u32,
    low: u32,
    high_rest: u32,
    high: u32,
}

fn place_of(row: MapRow, e: u32) -> Place {
    return Place(e % row.low, (e / row.low) % row.kept, e % row.high, (e / row.high) % row.outer);
}

// As place_of the sum of both elements, without a division.
fn moved(row: MapRow, place: Place, by: Place) -> Place {
    var next = Place(0u, 0u, place.high_rest, place.high);
    let low_rest = place.low_rest + by.low_rest;
    let low = place.low + by.low + u32(low_rest >= row.low);
    next.low_rest = min(low_rest, low_rest - row.low); // the difference wraps where it is below 0
    next.low = min(low, low - row.kept);
    // Most units need one digit, and a workgroup's elements need the same.
    if row.outer > 1u {
        let high_rest = place.high_rest + by.high_rest;
        let high = place.high + by.high + u32(high_rest >= row.high);
        next.high_rest = min(high_rest, high_rest - row.high);
        next.high = min(high, high - row.outer);
    }
    return next;
}

@compute @workgroup_size(WORKGROUP)
fn apply_units(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = index_in_grid(group, groups);
    if index >= job.rows || tally.changed == 0u {
        return;
    }
    let row = rows[job.first_row + index];
    apply_row(row, lane);
}
