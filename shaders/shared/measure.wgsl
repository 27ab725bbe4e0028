// A chunk's updates, which nothing is written of, and the parameters that they are for -> the squares of both. What an update is, each
// kernel says: `Own`, `own`, `update_of`. How elements are read, measure_each.wgsl or measure_four.wgsl does.

// The chunk, and the tensor that it belongs to.
var<private> chunk: FusedRow;
var<private> owner: FusedTensor;

// The magnitude of an element's update; none where a step passes over it.
fn measured(own: Own, word: u32, i: u32) -> u32 {
    let outcome = outcome_of(chunk, owner, i);
    if passes_over(outcome) {
        return 0u;
    }
    let gradient = applied(element_bits(word, chunk.start + i), outcome);
    return bitcast<u32>(update_of(own, owner, gradient)) & 0x7fffffffu;
}

fn begin_chunk(lane: u32) {
    if lane == 0u {
        reset_chunk();
    }
    workgroupBarrier();
}

// Chunks of at most COLUMNS elements have columns of one.
fn sum_of_either(c: Column, last: u32) -> ColumnSum {
    if last < COLUMNS {
        return sum_of_single(c.a.x);
    }
    return sum_of_column(c, last);
}

fn fused_chunk(row: FusedRow, tensor: FusedTensor, lane: u32) {
    chunk = row;
    owner = tensor;
    most = LARGEST_BITS;
    begin_chunk(lane);
    let last = (row.slot_len & ((1u << LEN_BITS) - 1u)) - 1u;
    var sums: array<ColumnSum, COLUMNS_PER_LANE>;
    // Not a constant, as in reduce.wgsl.
    let used = min(COLUMNS_PER_LANE, last / WORKGROUP + 1u);
    for (var k = 0u; k < used; k++) {
        sums[k] = sum_of_either(updates_at(k * WORKGROUP + lane, last), last);
    }
    let pair = tensor.pair + row.first / CHUNK;
    put_sums(&sums, used, 2u * pair, lane);
    if (hyper.flags & TRUST_RATIO) == 0u {
        return;
    }
    workgroupBarrier();
    begin_chunk(lane);
    // Read once more, which is out of a cache: kept from above they would take more registers than there are.
    for (var k = 0u; k < used; k++) {
        sums[k] = sum_of_either(parameters_at(k * WORKGROUP + lane, last), last);
    }
    put_sums(&sums, used, 2u * pair + 1u, lane);
}

// Four rows of a column in the place of those from row 4 q on.
fn with_rows(c: Column, q: u32, rows: vec4<u32>) -> Column {
    return Column(
        select(c.a, rows, q == 0u), select(c.b, rows, q == 1u), select(c.c, rows, q == 2u), select(c.d, rows, q == 3u)
    );
}
