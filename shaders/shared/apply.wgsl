// What an outcome does to one element, given and returned as f32 bits.
fn applied(bits: u32, outcome: Outcome) -> u32 {
    if outcome.action == FILL {
        return outcome.scale;
    }
    if outcome.action == SANITIZE && (bits & 0x7fffffffu) >= INFINITY_BITS {
        return 0u;
    }
    var value = bitcast<f32>(bits) * bitcast<f32>(outcome.scale);
    if outcome.rescale != ONE_BITS {
        value = value * bitcast<f32>(outcome.rescale) * bitcast<f32>(outcome.rescale);
    }
    return bitcast<u32>(value);
}
