// The words of a chunk, sixteen an invocation and turn.

fn products_of(words: Sixteen, scale: vec4<f32>) -> Sixteen {
    return Sixteen(
        product_of(words.a, scale, scale), product_of(words.b, scale, scale),
        product_of(words.c, scale, scale), product_of(words.d, scale, scale)
    );
}

fn apply_chunk(row: ChunkRow, outcome: Outcome, lane: u32) {
    let slot = row.slot_len >> LEN_BITS;
    // Words that the chunk owns whole; a word shared with a neighbour is left to the seams kernel.
    let end = end_whole_word(row.start + (row.slot_len & ((1u << LEN_BITS) - 1u)));
    let field = outcome.scale >> 23u;
    let multiplies = outcome.action == MULTIPLY && outcome.rescale == ONE_BITS && field > 0u;
    for (var first = first_whole_word(row.start) + lane; first < end; first += 16u * WORKGROUP) {
        if multiplies {
            let i = sixteen_from(first, end);
            let words = fetch(slot, i);
            if all_plain(words, field, field) {
                put(slot, i, products_of(words, vec4(bitcast<f32>(outcome.scale))));
                continue;
            }
        }
        for (var k = first; k < min(first + 16u * WORKGROUP, end); k += WORKGROUP) {
            put_one(slot, k, applied_word(get_one(slot, k), outcome));
        }
    }
}
