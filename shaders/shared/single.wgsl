// An element that is a column of its own, added to the sum of a chunk with that exponent.
fn with_single(total: U64, bits: u32, exponent: u32) -> U64 {
    let field = field_of(bits);
    return add64(total, shr64(term_of(mantissa_of(bits, field)), ALIGN * (exponent - field)));
}
