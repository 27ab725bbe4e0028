// The sum of 96-bit integers over all lanes of a workgroup, of which each adds one.
var<workgroup> shared_limbs: array<atomic<u32>, 4>; // 24 bits each, room for 256 lanes

fn reset_limbs() {
    for (var k = 0u; k < 4u; k++) {
        atomicStore(&shared_limbs[k], 0u);
    }
}

fn gather_limbs(mine: U96) {
    atomicAdd(&shared_limbs[0], mine.lo & 0xffffffu);
    atomicAdd(&shared_limbs[1], (mine.lo >> 24u) | ((mine.mid & 0xffffu) << 8u));
    atomicAdd(&shared_limbs[2], (mine.mid >> 16u) | ((mine.hi & 0xffu) << 16u));
    atomicAdd(&shared_limbs[3], mine.hi >> 8u);
}

fn gathered_limbs() -> U96 {
    let limb1 = atomicLoad(&shared_limbs[1]);
    let limb2 = atomicLoad(&shared_limbs[2]);
    let limb3 = atomicLoad(&shared_limbs[3]);
    let low = add96(U96(atomicLoad(&shared_limbs[0]), 0u, 0u), U96(limb1 << 24u, limb1 >> 8u, 0u));
    return add96(add96(low, U96(0u, limb2 << 16u, limb2 >> 16u)), U96(0u, 0u, limb3 << 8u));
}
