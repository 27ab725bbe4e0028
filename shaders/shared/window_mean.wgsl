var<workgroup> shared_largest: atomic<u32>;

// The mean of the norms, summed as integers in units of the largest one's exponent: in any order the same.
fn mean_of(window: Window, lane: u32) -> u32 {
    workgroupBarrier();
    if lane == 0u {
        atomicStore(&shared_largest, 0u);
        reset_limbs();
    }
    workgroupBarrier();
    var top = 0u;
    for (var i = lane; i < window.filled; i += WORKGROUP) {
        top = max(top, norm_in(window, i));
    }
    atomicMax(&shared_largest, top);
    workgroupBarrier();
    let exponent = field_of(atomicLoad(&shared_largest));
    var mine = U96(0u, 0u, 0u);
    for (var i = lane; i < window.filled; i += WORKGROUP) {
        let bits = norm_in(window, i);
        let field = field_of(bits);
        let moved = shr64(U64(0u, mantissa_of(bits, field)), exponent - field);
        mine = add96(mine, U96(moved.lo, moved.hi, 0u));
    }
    gather_limbs(mine);
    workgroupBarrier();
    let sum = normalised96(gathered_limbs(), i32(exponent) - 182);
    return f_div(saturated(rounded(sum, F32_MIN_EXPONENT)), f_of(max(window.filled, 1u)));
}
