// Which workgroup of a dispatch this is: there may be more than one dimension holds.
fn index_in_grid(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}
