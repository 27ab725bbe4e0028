// What the lanes of a workgroup add up to, for the partial of a chunk.

var<workgroup> shared_exponent: atomic<u32>;
var<workgroup> shared_limbs: array<atomic<u32>, 3>;
var<workgroup> shared_non_finite: atomic<u32>;
var<workgroup> shared_nan: atomic<u32>;

fn reset() {
    atomicStore(&shared_exponent, 0u);
    atomicStore(&shared_limbs[0], 0u);
    atomicStore(&shared_limbs[1], 0u);
    atomicStore(&shared_limbs[2], 0u);
    atomicStore(&shared_non_finite, 0u);
    atomicStore(&shared_nan, 0u);
}

fn add_to_chunk(total: U64) {
    let limbs = limbs21_of(total);
    atomicAdd(&shared_limbs[0], limbs.x);
    atomicAdd(&shared_limbs[1], limbs.y);
    atomicAdd(&shared_limbs[2], limbs.z);
}

fn gathered() -> Partial {
    let total = from_limbs21(vec3(
        atomicLoad(&shared_limbs[0]), atomicLoad(&shared_limbs[1]), atomicLoad(&shared_limbs[2])
    ));
    let nan = atomicLoad(&shared_nan) << 31u;
    return Partial(total.lo, total.hi, atomicLoad(&shared_exponent), atomicLoad(&shared_non_finite) | nan);
}
