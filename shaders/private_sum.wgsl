// gradients, outcomes -> sums over examples: each element's clipped gradients, cut towards zero to a multiple of the grid's unit
// and added as integers of 64 bits. Nothing is written but the sums.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<uniform> releasing: Releasing;
@group(0) @binding(2) var<storage, read> rows: array<ExampleRow>;
@group(0) @binding(3) var<storage, read> outcomes: array<Outcome>;
//@each binding
@group(1) @binding(SLOT) var<storage, read_write> slot_SLOT: array<u32>;
//@end

// What an example adds: its element times its factor, in units of the grid, in two's complement.
fn term_of_example(bits: u32, outcome: Outcome) -> U64 {
    let magnitude = bits & 0x7fffffffu;
    let filled = (outcome.action & ~(SANITIZE | TOWARD_ZERO)) == FILL;
    if filled || (outcome.flags & (LEFT_OUT | SKIPPED)) != 0u {
        return U64(0u, 0u);
    }
    if (outcome.action & SANITIZE) != 0u && !unscales_finitely(magnitude, outcome.unscale) {
        return U64(0u, 0u);
    }
    let field = field_of(magnitude);
    let factor = field_of(outcome.scale);
    let product = mul32(mantissa_of(magnitude, field), mantissa_of(outcome.scale, factor));
    let power = i32(field + factor) - 300 + 2 * (i32(outcome.rescale >> 23u) - 127) - releasing.unit;
    if power >= 0 {
        return signed64(shl64(product, u32(power)), (bits >> 31u) == 1u);
    }
    return signed64(shr64(product, u32(-power)), (bits >> 31u) == 1u);
}

@compute @workgroup_size(WORKGROUP)
fn private_sum(
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
    switch row.slot_len >> LEN_BITS {
        //@each slot
        case SLOTu: {
            for (var i = lane; i < len; i += WORKGROUP) {
                let to = row.to + 2u * i;
                var sum = U64(0u, 0u);
                if job.begins == 0u {
                    sum = U64(OPERAND1[to], OPERAND1[to + 1u]);
                }
                var e = row.start + i;
                for (var example = 0u; example < row.examples; example++) {
                    let bits = element_bits(OPERAND0[word_of(e)], e);
                    sum = add64(sum, term_of_example(bits, outcomes[row.segment + example]));
                    e += row.stride;
                }
                OPERAND1[to] = sum.lo;
                OPERAND1[to + 1u] = sum.hi;
            }
        }
        //@end
        default: {}
    }
}
