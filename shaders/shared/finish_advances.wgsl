@group(0) @binding(10) var<storage, read_write> progress: Progress;

fn advance_all() {
    advance_step();
}
