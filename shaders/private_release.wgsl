// sums over examples -> f32: noise is added on the grid, and the total divided by the size of a lot, rounded once.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> releasing: Releasing;
@group(0) @binding(2) var<storage, read> rows: array<ExampleRow>;
@group(0) @binding(3) var<storage, read> release: array<u32>;
//@each binding
@group(1) @binding(SLOT) var<storage, read_write> slot_SLOT: array<u32>;
//@end

// A quotient of as many further bits as are asked for, 11 at most: the divisor has 21.
fn further_digits(d: Digits, bits: u32, count: u32) -> Digits {
    let moved = (d.rest << count) | bits;
    let digit = moved / releasing.lot;
    return Digits((d.result << count) | digit, moved - digit * releasing.lot);
}

// total * 2^unit / lot, rounded to nearest-even, at most the largest f32.
fn mean_of(total: U64) -> u32 {
    let negative = (total.hi >> 31u) == 1u;
    let magnitude = signed64(total, negative);
    let up = leading_zeros64(magnitude);
    let whole = shl64(magnitude, min(up, 63u));
    let high = whole.hi / releasing.lot;
    var digits = Digits(0u, whole.hi - high * releasing.lot);
    digits = further_digits(digits, whole.lo >> 21u, 11u);
    digits = further_digits(digits, (whole.lo >> 10u) & 0x7ffu, 11u);
    digits = further_digits(digits, whole.lo & 0x3ffu, 10u);
    let quotient = normalised96(U96(digits.result, high, 0u), releasing.unit - i32(up));
    let exact = Real(quotient.mantissa, quotient.exponent, quotient.sticky | u32(digits.rest != 0u));
    let near = saturated(rounded(exact, F32_MIN_EXPONENT));
    return near | select(0u, 0x80000000u, negative);
}

@compute @workgroup_size(WORKGROUP)
fn private_release(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = index_in_grid(group, groups);
    if index >= job.rows {
        return;
    }
    let row = rows[job.first_row + index];
    let len = row.slot_len & ((1u << LEN_BITS) - 1u);
    let slot = row.slot_len >> LEN_BITS;
    let scale = U64(releasing.scale_low, releasing.scale_high);
    let keys = noise_keys(vec2(releasing.seed_low, releasing.seed_high), row.tensor, NOISE_OF_SUMS);
    for (var i = lane; i < len; i += WORKGROUP) {
        var total = U64(0u, 0u);
        if job.begins == 0u {
            switch slot {
                //@each slot
                case SLOTu: {
                    total = U64(OPERAND0[row.start + 2u * i], OPERAND0[row.start + 2u * i + 1u]);
                }
                //@end
                default: {}
            }
        }
        if scale.hi != 0u {
            let z = noise_at(keys, row.first + i, release[0]);
            total = add64(total, on_grid(z, scale, releasing.drop));
        }
        let mean = mean_of(total);
        switch slot {
            //@each slot
            case SLOTu: {
                OPERAND1[row.to + i] = mean;
            }
            //@end
            default: {}
        }
    }
}
