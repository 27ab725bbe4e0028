// A product of two factors, rounded, and finite.
fn factor_product(a: u32, b: u32) -> u32 {
    return min(to_f32(rounded(multiply(from_f32(a), from_f32(b)), F32_MIN_EXPONENT)), LARGEST_BITS);
}

// The unscale factor that holds: the clip's own times that of the loss scale, and where fewer micro-batches were summed than
// planned, times what their mean takes.
fn with_loss_scale(unscale: u32) -> u32 {
    let both = factor_product(unscale, progress.unscale);
    if progress.mean_correction == ONE_BITS {
        return both;
    }
    return factor_product(both, progress.mean_correction);
}
