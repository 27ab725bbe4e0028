@group(0) @binding(10) var<uniform> progress: Progress;

fn advance_all() {}
