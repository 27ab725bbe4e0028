// The words of a chunk, one an invocation and turn.

//@each slot
@group(1) @binding(SLOT) var<storage, read_write> slot_SLOT: array<u32>;
//@end

fn apply_chunk(row: ChunkRow, outcome: Outcome, lane: u32) {
    let end = row.start + (row.slot_len & ((1u << LEN_BITS) - 1u));
    // Words that the chunk owns whole; a word shared with a neighbour is left to the seams kernel.
    let first_word = first_whole_word(row.start);
    let end_word = end_whole_word(end);
    switch row.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            apply_run_SLOT(first_word + lane, end_word, outcome);
        }
        //@end
        default: {}
    }
}
