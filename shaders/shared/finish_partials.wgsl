@group(0) @binding(4) var<storage, read> partials: array<Partial>;

fn reduce_all(lane: u32) {}
