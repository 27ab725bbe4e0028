// RAdam's factor of the first moment.

const TWO_BITS: u32 = 0x40000000u;
const FOUR_BITS: u32 = 0x40800000u;
const FIVE_BITS: u32 = 0x40a00000u;

// rho_t = 2 m - 1, m the mean of the k from 1 to t, each weighing (1 - s)^(k - 1). The sums of k and of 1 with weights
// s (1 - s)^(k - 1) over n of them go on by n more or by one, bit after bit of t: only positive terms are added.
fn averaged_steps(s: u32, t: u32) -> u32 {
    var n = 0u;
    var ranks = 0u;
    var weights = 0u;
    var more = vec3(0u); // steps, ranks and weights that the sums go on by
    var term = 0u;
    // One product and one sum a turn: a software adapter compiles a loop the longer, the more they are.
    for (var turn = 6u * (32u - countLeadingZeros(t)); turn > 0u; turn -= 1u) {
        let part = (turn - 1u) % 3u;
        let step = (turn - 1u) / 3u;
        if part == 2u {
            let one = (t >> (step >> 1u)) & 1u;
            more = select(vec3(one, s * one, s * one), vec3(n, ranks, weights), (step & 1u) == 1u);
        }
        // (1 - s)^n
        let left = f_distance(ONE_BITS, weights);
        let sums = vec3(weights, ranks, more.y);
        let factors = vec3(more.z, term, more.z);
        let sum = f_add(sums[part], f_mul(select(left, f_of(n), part == 2u), factors[part]));
        term = select(term, sum, part == 2u);
        ranks = select(ranks, sum, part == 1u);
        weights = select(weights, sum, part == 0u);
        n += select(0u, more.x, part == 0u);
    }
    return f_distance(f_mul(TWO_BITS, f_div(ranks, weights)), ONE_BITS);
}

// Steps that are not rectified divide by nothing. rho_t is at most t, however both are rounded.
fn correct_step() {
    let rho = averaged_steps(hyper.second_share, progress.updates);
    if progress.updates <= 5u || rho <= FIVE_BITS {
        progress.second_correction = 0u;
        return;
    }
    let certainty = f_div(f_mul(f_distance(rho, FOUR_BITS), f_distance(rho, TWO_BITS)), rho);
    progress.correction = f_mul(progress.correction, f_sqrt(f_mul(certainty, hyper.rectification)));
}
