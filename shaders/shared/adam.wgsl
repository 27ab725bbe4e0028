// What Adam and those derived from it do with moments.

// The first moment and the second one that a gradient leaves.
fn moments_of(first: u32, second: u32, g: f32, finite: bool) -> vec2<f32> {
    let kept = bitcast<f32>(hyper.decay) * bitcast<f32>(first);
    let second_kept = bitcast<f32>(hyper.second_decay) * bitcast<f32>(second);
    return vec2(
        within(kept + bitcast<f32>(progress.share) * g, finite),
        within(second_kept + bitcast<f32>(hyper.second_share) * g * g, finite)
    );
}

// The root of the second moment, corrected, with eps; before that where rows of a table are stepped, as SparseAdam has it.
fn size_of(second: f32, finite: bool) -> f32 {
    let correction = bitcast<f32>(progress.second_correction);
    let eps = bitcast<f32>(hyper.eps) * select(1.0, correction, BY_ROWS || (hyper.flags & EPS_HAT) != 0u);
    return within(sqrt(second) * correction + eps, finite);
}

// Of what is still the quotient would be 0 / 0: nothing has ever moved this element.
fn quotient_of(corrected: f32, size: f32, still: bool, finite: bool) -> f32 {
    return select(within(corrected / size, finite), 0.0, still);
}

fn direction_of(first: f32, second: f32, finite: bool) -> f32 {
    let size = size_of(second, finite);
    let corrected = within(first * bitcast<f32>(progress.correction), finite);
    return quotient_of(corrected, size, first == 0.0 && size == 0.0, finite);
}

// The parameter after a step along the moments.
fn moved_along(moments: vec2<f32>, parameter: u32, tensor: FusedTensor, finite: bool) -> u32 {
    let direction = direction_of(moments.x, moments.y, finite);
    return moved(parameter, limited(direction, parameter, tensor, finite), tensor, finite);
}

// The direction with the decay and the tensor's ratio, which is 1 where nothing limits updates. A limit of the root of a mean square is one
// of the direction alone.
fn limited(direction: f32, parameter: u32, tensor: FusedTensor, finite: bool) -> f32 {
    let ratio = bitcast<f32>(tensor.ratio);
    let alone = (hyper.flags & LIMITS_RMS) != 0u;
    let own = within(direction * select(1.0, ratio, alone), finite);
    return within(decayed(own, parameter, tensor, finite) * select(ratio, 1.0, alone), finite);
}
