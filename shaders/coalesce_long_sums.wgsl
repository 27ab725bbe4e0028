// Long lists, values, their largest magnitudes -> the sum of each column.

fn take(at: u32, first: u32, end: u32, column: u32) {
    let values = values_so_far(at);
    if !is_sum_finite(values) {
        return;
    }
    let sum = sum_of(first, end, column, field_of_sum(values));
    // Whoever makes a word wrap carries into the next one.
    let lo = atomicAdd(&long[at].sum[0], sum.lo);
    let mid = atomicAdd(&long[at].sum[1], sum.mid);
    var carry = u32(lo + sum.lo < lo);
    let wrapped = mid + sum.mid < mid;
    if carry == 1u {
        carry = u32(atomicAdd(&long[at].sum[1], 1u) == 0xffffffffu);
    }
    atomicAdd(&long[at].sum[2], sum.hi + carry + u32(wrapped));
}
