// SPAM's rate after moments were forgotten.

const HALF_PI: u32 = 0x3fc90fdbu;
const LEAST_RATE: u32 = 0x3c23d70au; // 0.01
const REST_OF_RATE: u32 = 0x3f7d70a4u; // 0.99

// x from 0 to pi / 2: the series to x^13, whose truncation error is below 6e-10 there.
fn f_sin(x: u32) -> u32 {
    let square = f_mul(x, x);
    var e = ONE_BITS;
    for (var n = 12u; n > 0u; n -= 2u) {
        e = f_distance(ONE_BITS, f_mul(e, f_div(square, f_of(n * (n + 1u)))));
    }
    return f_mul(x, e);
}

fn correct_step() {
    if hyper.reset_interval == 0u || progress.updates < hyper.reset_interval {
        return;
    }
    let k = progress.updates % hyper.reset_interval;
    if k >= hyper.reset_warmup {
        return;
    }
    let sine = f_sin(f_mul(HALF_PI, f_div(f_of(k), f_of(hyper.reset_warmup + 1u))));
    let rate = f_add(LEAST_RATE, f_mul(REST_OF_RATE, f_mul(sine, sine)));
    progress.correction = f_mul(progress.correction, rate);
}
