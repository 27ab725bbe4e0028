// A column of a chunk as software adapters read it, and what of it counts as finite.

// The magnitude bits of a column, rows 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
struct Column {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// The largest magnitude of the chunk's elements that counts as finite.
var<private> most: u32;

fn largest(c: Column) -> u32 {
    let m = max(max(c.a, c.b), max(c.c, c.d));
    return max(max(m.x, m.y), max(m.z, m.w));
}

fn finite_or_zero(bits: vec4<u32>) -> vec4<u32> {
    return select(bits, vec4(0u), bits > vec4(most));
}

fn count(marked: vec4<bool>) -> u32 {
    let ones = select(vec4(0u), vec4(1u), marked);
    return ones.x + ones.y + ones.z + ones.w;
}

// Rare: counts the non-finite elements of a column and returns it with zeros in their place.
fn without_non_finite(c: Column) -> Column {
    let limit = vec4(most);
    atomicAdd(&chunk_non_finite, count(c.a > limit) + count(c.b > limit) + count(c.c > limit) + count(c.d > limit));
    if largest(c) > INFINITY_BITS {
        atomicMax(&chunk_nan, 1u);
    }
    return Column(finite_or_zero(c.a), finite_or_zero(c.b), finite_or_zero(c.c), finite_or_zero(c.d));
}
