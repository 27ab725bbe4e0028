// A chunk's updates, which nothing is written of, and the parameters that they are for -> the squares of both. What an update is, each
// kernel says: `Own`, `own`, `update_of`. How elements are read, measure_each.wgsl or measure_four.wgsl does.

// What add_chunk of reduce.wgsl reads.
var<private> chunk: FusedRow;
var<private> owner: FusedTensor;
var<private> of_parameter: bool;

fn most_of(segment: u32) -> u32 {
    return LARGEST_BITS;
}

// The magnitude of what is measured of an element; none of what a step passes over.
fn measured(own: Own, word: u32, i: u32) -> u32 {
    let outcome = outcome_of(chunk, owner, i);
    if passes_over(outcome) {
        return 0u;
    }
    if of_parameter {
        return own.parameter & 0x7fffffffu;
    }
    let gradient = applied(element_bits(word, chunk.start + i), outcome);
    return bitcast<u32>(update_of(own, owner, gradient)) & 0x7fffffffu;
}

fn fused_chunk(row: FusedRow, tensor: FusedTensor, lane: u32) {
    chunk = row;
    owner = tensor;
    let pair = tensor.pair + row.first / CHUNK;
    of_parameter = false;
    add_chunk(ChunkRow(0u, row.slot_len, 2u * pair, 0u), lane);
    if (hyper.flags & TRUST_RATIO) != 0u {
        workgroupBarrier();
        of_parameter = true;
        add_chunk(ChunkRow(0u, row.slot_len, 2u * pair + 1u, 0u), lane);
    }
}
