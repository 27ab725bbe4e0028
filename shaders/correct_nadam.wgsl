// NAdam's factors of the gradient and of the first moment, from the product of all momenta so far:
// mu_t = b / 2 (1 + c_t) and 1 - mu_t = (1 - b) + b / 2 (1 - c_t) with c_t = 1 - 0.96^(t psi).

const HALF_BITS: u32 = 0x3f000000u;

fn correct_step() {
    let half_decay = f_mul(hyper.decay, HALF_BITS);
    let grown = complement_of_power(hyper.momentum_share, progress.updates);
    let left = f_distance(ONE_BITS, grown);
    let grown_next = f_add(grown, f_mul(hyper.momentum_share, left));
    let product = f_mul(progress.momentum_product, f_mul(half_decay, f_add(ONE_BITS, grown)));
    let momentum_next = f_mul(half_decay, f_add(ONE_BITS, grown_next));
    let product_next = f_mul(product, momentum_next);
    let share = f_add(hyper.share, f_mul(half_decay, left));
    progress.momentum_product = product;
    progress.gradient_correction = f_div(share, f_distance(ONE_BITS, product));
    progress.correction = f_div(momentum_next, f_distance(ONE_BITS, product_next));
}
