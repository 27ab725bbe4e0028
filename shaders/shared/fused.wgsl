// Gradients with the tensors updated with them. One workgroup a chunk; the gradient is read through the outcome of its segment and
// never written. Which tensors those are, and what becomes of them, each kernel says: `Own`, `own`, `stepped`, `put`.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> hyper: Hyper;
@group(0) @binding(2) var<uniform> progress: Progress;
@group(0) @binding(4) var<storage, read> tensors: array<FusedTensor>;
@group(0) @binding(5) var<storage, read> outcomes: array<Outcome>;
//@each binding
@group(1) @binding(SLOT) var<storage, read_write> slot_SLOT: array<u32>;
//@end

fn segment_of(row: FusedRow, tensor: FusedTensor, i: u32) -> u32 {
    let e = row.first + i;
    return row.segment + (e / tensor.low) % tensor.kept + (e / tensor.high) % tensor.outer * tensor.kept;
}

fn outcome_of(row: FusedRow, tensor: FusedTensor, i: u32) -> Outcome {
    if tensor.kept * tensor.outer == 1u {
        return outcomes[row.segment];
    }
    return outcomes[segment_of(row, tensor, i)];
}

@compute @workgroup_size(WORKGROUP)
fn fused(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = index_in_grid(group, groups);
    if index >= job.rows || idle() {
        return;
    }
    let row = row_at(job.first_row + index);
    let tensor = tensors[row.tensor];
    fused_chunk(row, tensor, lane);
}
