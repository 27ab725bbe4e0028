// The four elements of a turn are two words of the parameter, two workgroups apart.

fn first_of_turns(lane: u32) -> u32 {
    return 2u * lane;
}

fn elements_of_turn(first: u32) -> vec4<u32> {
    return vec4(first) + vec4(0u, 1u, 2u * WORKGROUP, 2u * WORKGROUP + 1u);
}

//@each slot
fn put_words_SLOT(row: FusedRow, tensor: FusedTensor, i: vec4<u32>, four: Four, puts: vec4<bool>) {
    let near = halves_of(row, tensor, i.x, four.a.own.parameter, four.b.own.parameter);
    put_halves_SLOT(row, i.x, near, puts.xy);
    let far = halves_of(row, tensor, i.z, four.c.own.parameter, four.d.own.parameter);
    put_halves_SLOT(row, i.z, far, puts.zw);
}
//@end
