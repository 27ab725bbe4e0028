// The unscale factor that holds: the clip's own times that of the loss scale, rounded, and finite.
fn with_loss_scale(unscale: u32) -> u32 {
    let both = to_f32(rounded(multiply(from_f32(unscale), from_f32(progress.unscale)), F32_MIN_EXPONENT));
    return min(both, LARGEST_BITS);
}
