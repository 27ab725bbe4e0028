// What the optimisers share.

fn idle() -> bool {
    return progress.moves == 0u;
}

// Whether what belongs to a gradient with this outcome stays as it is.
fn passes_over(outcome: Outcome) -> bool {
    return (outcome.flags & LEFT_OUT) != 0u;
}

// What is stepped against: the gradient, of what is maximised its negative, with the L2 penalty where there is one.
fn penalised(gradient: u32, parameter: u32, tensor: FusedTensor, finite: bool) -> f32 {
    let g = gradient ^ select(0u, 0x80000000u, (hyper.flags & MAXIMIZE) != 0u);
    if tensor.weight_decay == 0u || (hyper.flags & DECOUPLED) != 0u {
        return bitcast<f32>(g);
    }
    return within(bitcast<f32>(g) + bitcast<f32>(tensor.weight_decay) * bitcast<f32>(parameter), finite);
}

// The direction with the decay of the parameter, where there is one.
fn decayed(direction: f32, parameter: u32, tensor: FusedTensor, finite: bool) -> f32 {
    if tensor.weight_decay == 0u || (hyper.flags & DECOUPLED) == 0u {
        return direction;
    }
    return within(direction + bitcast<f32>(tensor.weight_decay) * bitcast<f32>(parameter), finite);
}

fn rate_of(tensor: FusedTensor) -> f32 {
    return bitcast<f32>(hyper.lr) * bitcast<f32>(tensor.lr_scale);
}

// parameter - lr * direction.
fn moved(parameter: u32, direction: f32, tensor: FusedTensor, finite: bool) -> u32 {
    return moved_by(parameter, within(rate_of(tensor) * direction, finite), finite);
}

// What does not move keeps every bit: a driver may flush subnormals.
fn moved_by(parameter: u32, by: f32, finite: bool) -> u32 {
    let to = bitcast<u32>(within(bitcast<f32>(parameter) - by, finite));
    return select(to, parameter, (bitcast<u32>(by) & 0x7fffffffu) == 0u);
}
