// Norm of the whole set, loss, and those of earlier steps -> whether the step is left out; src/cpu/skip.rs is the twin, to the bit.
// One workgroup.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> skipping: Skipping;
@group(0) @binding(2) var<storage, read> sums: array<Sum>;
@group(0) @binding(3) var<storage, read> settings: array<Setting>;
@group(0) @binding(4) var<storage, read> inputs: Inputs;
@group(0) @binding(5) var<storage, read_write> progress: Progress;
// The norms that are kept, then the losses.
@group(0) @binding(6) var<storage, read_write> watched: array<u32>;

// Of norms, then of losses: the exponent of the largest magnitude, and the sums of values and of squares in pieces of 16 bits.
var<workgroup> shared_fields: array<atomic<u32>, 2>;
var<workgroup> shared_pieces: array<atomic<u32>, 16>;

fn is_finite_bits(bits: u32) -> bool {
    return (bits & 0x7fffffffu) < INFINITY_BITS;
}

// Units of 2^-22 of the power of two below the largest magnitude of all, towards 0, and so many more that none is negative:
// nothing depends on where 0 lies.
fn units(value: u32, largest: u32) -> u32 {
    let bits = value & 0x7fffffffu;
    let field = field_of(bits);
    let down = 1u + largest - field;
    let magnitude = select(mantissa_of(bits, field) >> (down & 31u), 0u, down > 31u);
    return select(0x800000u + magnitude, 0x800000u - magnitude, (value >> 31u) == 1u);
}

fn add_pieces(first: u32, value: U64) {
    atomicAdd(&shared_pieces[first], value.lo & 0xffffu);
    atomicAdd(&shared_pieces[first + 1u], value.lo >> 16u);
    atomicAdd(&shared_pieces[first + 2u], value.hi & 0xffffu);
    atomicAdd(&shared_pieces[first + 3u], value.hi >> 16u);
}

fn added_pieces(first: u32) -> U64 {
    let p1 = atomicLoad(&shared_pieces[first + 1u]);
    let p3 = atomicLoad(&shared_pieces[first + 3u]);
    let low = add64(U64(atomicLoad(&shared_pieces[first]), 0u), U64(p1 << 16u, p1 >> 16u));
    return add64(low, U64(0u, atomicLoad(&shared_pieces[first + 2u]) + (p3 << 16u)));
}

fn f_of_96(value: U96) -> u32 {
    return saturated(rounded(normalised96(value, 0), F32_MIN_EXPONENT));
}

// Whether x - mean > sigma * deviation: with n values of sum S and squares Q, n x - S > sigma sqrt((n Q - S^2) n / (n - 1)).
fn is_spike(series: u32, x: u32, n: u32) -> bool {
    let largest = atomicLoad(&shared_fields[series]);
    if largest == 255u {
        return true;
    }
    let sum = added_pieces(series * 8u);
    let squares = added_pieces(series * 8u + 4u);
    let all = mul32(n, units(x, largest));
    if !less64(sum, all) {
        return false;
    }
    let above = sub64(all, sum);
    let low = mul32(n, squares.lo);
    let high = mul32(n, squares.hi);
    let first = mul32(sum.lo, sum.lo);
    let cross = mul32(sum.lo, sum.hi << 1u);
    let of_squares = add96(U96(low.lo, low.hi, 0u), U96(0u, high.lo, high.hi));
    let of_sum = add96(U96(first.lo, first.hi, sum.hi * sum.hi), U96(0u, cross.lo, cross.hi));
    let spread = f_of_96(sub96(of_squares, of_sum));
    let variance = f_div(f_mul(spread, f_of(n)), f_of(n - 1u));
    return f_of_96(U96(above.lo, above.hi, 0u)) > f_mul(skipping.sigma, f_sqrt(variance));
}

fn has(flag: u32) -> bool {
    return (skipping.flags & flag) != 0u;
}

// The largest exponents of what is kept and of this step's values, then the sums of what is kept.
fn sum_series(norm: u32, loss: u32, filled: u32, lane: u32) {
    for (var k = lane; k < 16u; k += WORKGROUP) {
        atomicStore(&shared_pieces[k], 0u);
    }
    if lane == 0u {
        atomicStore(&shared_fields[0], select(1u, field_of(norm), is_finite_bits(norm)));
        let magnitude = loss & 0x7fffffffu;
        atomicStore(&shared_fields[1], select(1u, field_of(magnitude), is_finite_bits(magnitude)));
    }
    workgroupBarrier();
    if lane < filled {
        var fields = vec2(1u);
        for (var i = lane; i < filled; i += WORKGROUP) {
            fields = max(fields, (vec2(watched[i], watched[skipping.window + i]) & vec2(0x7fffffffu)) >> vec2(23u));
        }
        atomicMax(&shared_fields[0], fields.x);
        atomicMax(&shared_fields[1], fields.y);
    }
    workgroupBarrier();
    if lane < filled {
        for (var series = 0u; series < select(1u, 2u, has(SKIP_LOSS)); series++) {
            let largest = atomicLoad(&shared_fields[series]);
            var added = U64(0u, 0u);
            var squares = U64(0u, 0u);
            for (var i = lane; i < filled; i += WORKGROUP) {
                let value = units(watched[series * skipping.window + i], largest);
                added = add64(added, U64(value, 0u));
                squares = add64(squares, mul32(value, value));
            }
            add_pieces(series * 8u, added);
            add_pieces(series * 8u + 4u, squares);
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(WORKGROUP)
fn skip(@builtin(local_invocation_index) lane: u32) {
    let filled = min(progress.watched, skipping.window);
    let whole = select(job.total, 0u, job.total == NONE);
    let setting = select(arrayLength(&settings) - 1u, 0u, job.total == NONE);
    let sum = sums[whole];
    let policy = settings[setting].policy;
    // What was recorded only to measure unscales nothing, whatever was set since.
    let unscale = select(with_loss_scale(settings[setting].unscale), ONE_BITS, job.measures == 1u);
    let measured = unscaled_norm(sum, unscale);
    let not_finite = sum.non_finite != 0u;
    let norm = select(saturated(measured), INFINITY_BITS, not_finite && policy != POLICY_SANITIZE);
    let loss = select(0u, inputs.loss, has(SKIP_LOSS));
    if skipping.window > 0u {
        sum_series(norm, loss, filled, lane);
    }
    if lane == 0u {
        let over = skipping.above < INFINITY_BITS && exceeds(measured, exactly(skipping.above));
        judge(norm, loss, filled, vec2(not_finite, not_finite && policy == POLICY_SKIP), over);
    }
}

// `not_finite` says whether a gradient is not, and whether that is skipped.
fn judge(norm: u32, loss: u32, filled: u32, not_finite: vec2<bool>, over: bool) {
    let counts = progress.watched;
    let decides = skipping.window > 0u && min(counts, 0xfffffffeu) + 1u >= skipping.first;
    var reasons = select(0u, REASON_NON_FINITE, not_finite.y);
    if is_finite_bits(norm) {
        reasons |= select(0u, REASON_ABOVE, over);
        if decides && is_spike(0u, norm, filled) {
            reasons |= REASON_NORM;
        }
    }
    if !is_finite_bits(loss) {
        reasons |= REASON_LOSS_NON_FINITE;
    } else if decides && has(SKIP_LOSS) && is_spike(1u, loss, filled) {
        reasons |= REASON_LOSS;
    }
    progress.strikes = select(0u, min(progress.strikes, 0xfffffffeu) + 1u, reasons != 0u);
    if has(SKIP_GIVES_UP) && progress.strikes > skipping.most {
        let lets = has(SKIP_LETS_ALL) || (has(SKIP_LETS_THROUGH) && !not_finite.y);
        reasons |= GAVE_UP | select(0u, LET_THROUGH, lets);
    }
    progress.reasons = reasons;
    let leaves = leaves_out();
    progress.spikes = min(progress.spikes, 0xfffffffeu) + u32(leaves);
    let finite = !not_finite.x && is_finite_bits(loss);
    let keeps = has(SKIP_NON_FINITE) || (finite && !(has(SKIP_FORGETS) && leaves));
    if skipping.window > 0u && keeps {
        let place = counts % skipping.window;
        watched[place] = select(norm, INFINITY_BITS, not_finite.x);
        watched[skipping.window + place] = select(INFINITY_BITS, loss, is_finite_bits(loss));
        progress.watched = counts + 1u;
    }
}
