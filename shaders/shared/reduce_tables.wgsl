// What kernels that read gradients chunk by chunk are told, and where their results go.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> rows: array<ChunkRow>;
@group(0) @binding(2) var<storage, read_write> partials: array<Partial>;
@group(0) @binding(3) var<uniform> progress: Progress;

fn put_partial(index: u32, partial: Partial) {
    partials[index] = partial;
}
