// gradient, parameter, two moments -> parameter, moments: ADOPT.

// The gradient over the root of the second moment before it, each element within the bound of this step.
fn normalised_by(g: f32, second: f32, finite: bool) -> f32 {
    let size = max(within(sqrt(second), finite), bitcast<f32>(hyper.eps));
    let quotient = select(within(g / size, finite), 0.0, g == 0.0 && size == 0.0);
    let bound = sqrt(sqrt(f32(progress.updates - 1u)));
    let bits = bitcast<u32>(quotient);
    // NaN stays.
    let beyond = (bits & 0x7fffffffu) <= 0x7f800000u && abs(quotient) > bound;
    let limited = bitcast<f32>((bits & 0x80000000u) | bitcast<u32>(bound));
    return select(quotient, limited, beyond && (hyper.flags & CLIPS_UPDATE) != 0u);
}

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    let finite = is_finite(gradient) && is_finite(own.parameter);
    let g = penalised(gradient, own.parameter, tensor, finite);
    let square = within(g * g, finite);
    // Nothing is divided by before there is a second moment.
    if progress.updates == 1u {
        return Own(own.parameter, own.first, bitcast<u32>(square));
    }
    let second = bitcast<f32>(own.second);
    let along = normalised_by(g, second, finite);
    let kept = bitcast<f32>(hyper.decay) * bitcast<f32>(own.first);
    let first = within(kept + bitcast<f32>(hyper.share) * along, finite);
    let direction = decayed(first, own.parameter, tensor, finite);
    let parameter = moved(own.parameter, direction, tensor, finite);
    let second_kept = bitcast<f32>(hyper.second_decay) * second;
    let next = within(second_kept + bitcast<f32>(hyper.second_share) * g * g, finite);
    return Own(parameter, bitcast<u32>(first), bitcast<u32>(next));
}
