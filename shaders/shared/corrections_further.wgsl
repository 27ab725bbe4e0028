// What NAdam and RAdam correct besides: in kernels for these alone, since software adapters compile it for minutes.

// NAdam's factors of the gradient and of the first moment, from the product of all momenta so far:
// mu_t = b / 2 (1 + c_t) and 1 - mu_t = (1 - b) + b / 2 (1 - c_t) with c_t = 1 - 0.96^(t psi).
fn look_ahead() {
    let half_decay = f_mul(hyper.decay, HALF_BITS);
    let grown = complement_of_power(hyper.momentum_share, progress.updates);
    let grown_next = complement_of_power(hyper.momentum_share, progress.updates + 1u);
    let momentum = f_mul(half_decay, f_add(ONE_BITS, grown));
    let momentum_next = f_mul(half_decay, f_add(ONE_BITS, grown_next));
    let product = f_mul(progress.momentum_product, momentum);
    let product_next = f_mul(product, momentum_next);
    let share = f_add(hyper.share, f_mul(half_decay, f_distance(ONE_BITS, grown)));
    progress.momentum_product = product;
    progress.gradient_correction = f_div(share, f_distance(ONE_BITS, product));
    progress.correction = f_div(momentum_next, f_distance(ONE_BITS, product_next));
}

// RAdam's rho_t = 2 m - 1, m the mean of the k from 1 to t, each weighing (1 - s)^(k - 1). The sums of k and of 1 with
// weights s (1 - s)^(k - 1) are doubled and go on by one, bit after bit of t: only positive terms are added.
fn averaged_steps(s: u32, t: u32) -> u32 {
    var n = 0u;
    var ranks = 0u;
    var weights = 0u;
    for (var bit = 32u - countLeadingZeros(t); bit > 0u; bit -= 1u) {
        // (1 - s)^n
        let left = f_distance(ONE_BITS, weights);
        ranks = f_add(ranks, f_mul(left, f_add(ranks, f_mul(f_of(n), weights))));
        weights = f_add(weights, f_mul(left, weights));
        n *= 2u;
        if ((t >> (bit - 1u)) & 1u) == 1u {
            n += 1u;
            let weight = f_mul(s, f_distance(ONE_BITS, weights));
            ranks = f_add(ranks, f_mul(f_of(n), weight));
            weights = f_add(weights, weight);
        }
    }
    return f_distance(f_mul(TWO_BITS, f_div(ranks, weights)), ONE_BITS);
}

// (rho - 4) (rho - 2) / rho, which RAdam's variance falls with; rho above 5.
fn certainty_of(rho: u32) -> u32 {
    return f_div(f_mul(f_distance(rho, FOUR_BITS), f_distance(rho, TWO_BITS)), rho);
}

// Steps that are not rectified divide by nothing. rho_t is at most t, however both are rounded.
fn rectify() {
    let rho = averaged_steps(hyper.second_share, progress.updates);
    if progress.updates <= 5u || rho <= FIVE_BITS {
        progress.second_correction = 0u;
        return;
    }
    let most = f_distance(f_div(TWO_BITS, hyper.second_share), ONE_BITS);
    let share = f_div(certainty_of(rho), certainty_of(most));
    progress.correction = f_mul(progress.correction, f_sqrt(share));
}

fn further_corrections() {
    if (hyper.flags & NADAM) != 0u {
        look_ahead();
    }
    if (hyper.flags & RADAM) != 0u {
        rectify();
    }
}
