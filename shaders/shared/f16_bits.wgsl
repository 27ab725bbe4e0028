// Magnitudes of f16 as f32 bits, without a branch: an integer of 10 bits, which a subnormal is, converts to a normal f32 exactly.

fn f32_bits_of_finite(half: Cols) -> Cols {
    let subnormal = select(bitcast<Cols>(Reals(half)) - Cols(24u << 23u), Cols(0u), half == Cols(0u));
    let normal = (half << Cols(13u)) + Cols(112u << 23u);
    return select(normal, subnormal, half < Cols(0x400u));
}

fn f32_bits_of(half: Cols) -> Cols {
    let special = Cols(INFINITY_BITS) | ((half & Cols(0x3ffu)) << Cols(13u));
    return select(f32_bits_of_finite(half), special, half >= Cols(0x7c00u));
}
