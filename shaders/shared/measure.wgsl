// A chunk's updates, which nothing is written of, and the parameters that they are for -> the squares of both. What an update is, each
// kernel says: `Own`, `own`, `update_of`. How elements are read, measure_each.wgsl or measure_four.wgsl does.

// Columns of updates, and of their parameters.
struct Columns {
    update: Column,
    parameter: Column,
}

// The chunk, and the tensor that it belongs to.
var<private> chunk: FusedRow;
var<private> owner: FusedTensor;

// The magnitudes of an element's update and of its parameter; none of what a step passes over.
fn measured(own: Own, word: u32, i: u32) -> vec2<u32> {
    let outcome = outcome_of(chunk, owner, i);
    if passes_over(outcome) {
        return vec2(0u);
    }
    let gradient = applied(element_bits(word, chunk.start + i), outcome);
    return vec2(bitcast<u32>(update_of(own, owner, gradient)), own.parameter) & vec2(0x7fffffffu);
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
    var parameters: array<Column, COLUMNS_PER_LANE>;
    // Not a constant, as in reduce.wgsl.
    let used = min(COLUMNS_PER_LANE, last / WORKGROUP + 1u);
    for (var k = 0u; k < used; k++) {
        let both = columns_at(k * WORKGROUP + lane, last);
        sums[k] = sum_of_either(both.update, last);
        parameters[k] = both.parameter;
    }
    let pair = tensor.pair + row.first / CHUNK;
    put_sums(&sums, used, 2u * pair, lane);
    if (hyper.flags & TRUST_RATIO) == 0u {
        return;
    }
    workgroupBarrier();
    begin_chunk(lane);
    for (var k = 0u; k < used; k++) {
        sums[k] = sum_of_either(parameters[k], last);
    }
    put_sums(&sums, used, 2u * pair + 1u, lane);
}
