var<workgroup> shared_powers: array<f32, WORKGROUP>;

// The sum over all lanes of a workgroup, by halves.
fn sum_of_lanes(mine: f32, lane: u32) -> f32 {
    shared_powers[lane] = mine;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half >>= 1u) {
        if lane < half {
            shared_powers[lane] += shared_powers[lane + half];
        }
        workgroupBarrier();
    }
    return shared_powers[0];
}
