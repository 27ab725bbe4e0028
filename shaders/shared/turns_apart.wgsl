// The four elements of a turn lie a workgroup apart.

fn first_of_turns(lane: u32) -> u32 {
    return lane;
}

fn elements_of_turn(first: u32) -> vec4<u32> {
    return vec4(first) + vec4(0u, WORKGROUP, 2u * WORKGROUP, 3u * WORKGROUP);
}

//@each slot
fn put_words_SLOT(row: FusedRow, tensor: FusedTensor, i: vec4<u32>, four: Four, puts: vec4<bool>) {}
//@end
