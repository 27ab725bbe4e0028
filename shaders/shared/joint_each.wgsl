// Element by element, as software adapters do it fastest.

@compute @workgroup_size(WORKGROUP)
fn joint(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    if index >= job.rows || idle() {
        return;
    }
    let row = rows[job.first_row + index];
    let tensor = tensors[row.tensor];
    let whole = tensor.kept * tensor.outer == 1u;
    var outcome = outcomes[row.segment];
    let len = row.slot_len & ((1u << LEN_BITS) - 1u);
    switch row.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            for (var i = lane; i < len; i += WORKGROUP) {
                if !whole {
                    outcome = outcomes[segment_of(row, tensor, i)];
                }
                if passes_over(outcome) {
                    continue;
                }
                let e = row.start + i;
                let gradient = applied(element_bits(ROLE0[word_of(e)], e), outcome);
                put_SLOT(row, i, stepped(own_SLOT(row, i), tensor, gradient, outcome));
            }
        }
        //@end
        default: {}
    }
}
