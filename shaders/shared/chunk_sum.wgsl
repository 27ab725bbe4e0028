// What the lanes of a workgroup add up to, for the partial of a chunk.

var<workgroup> chunk_exponent: atomic<u32>;
var<workgroup> chunk_limbs: array<atomic<u32>, 3>;
var<workgroup> chunk_non_finite: atomic<u32>;
var<workgroup> chunk_nan: atomic<u32>;

fn reset_chunk() {
    atomicStore(&chunk_exponent, 0u);
    atomicStore(&chunk_limbs[0], 0u);
    atomicStore(&chunk_limbs[1], 0u);
    atomicStore(&chunk_limbs[2], 0u);
    atomicStore(&chunk_non_finite, 0u);
    atomicStore(&chunk_nan, 0u);
}

fn add_to_chunk(total: U64) {
    let limbs = limbs21_of(total);
    atomicAdd(&chunk_limbs[0], limbs.x);
    atomicAdd(&chunk_limbs[1], limbs.y);
    atomicAdd(&chunk_limbs[2], limbs.z);
}

fn partial_of_chunk() -> Partial {
    let total = from_limbs21(vec3(
        atomicLoad(&chunk_limbs[0]), atomicLoad(&chunk_limbs[1]), atomicLoad(&chunk_limbs[2])
    ));
    let nan = atomicLoad(&chunk_nan) << 31u;
    return Partial(total.lo, total.hi, atomicLoad(&chunk_exponent), atomicLoad(&chunk_non_finite) | nan);
}
