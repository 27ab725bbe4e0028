// A norm that the program hands in -> the sum that has it; src/norm.rs is the twin, to the bit. One invocation.

@group(0) @binding(0) var<uniform> job: Job;
@group(0) @binding(1) var<storage, read> inputs: Inputs;
@group(0) @binding(2) var<storage, read_write> sums: array<Sum>;

@compute @workgroup_size(1)
fn given() {
    var sum = Sum();
    sum.first = NONE;
    let bits = select(inputs.norm, 0u, inputs.norm == 0x80000000u);
    if bits >= INFINITY_BITS {
        // What is negative is no norm.
        sum.non_finite = 1u;
        sum.nan = u32(bits != INFINITY_BITS);
        sums[0] = sum;
        return;
    }
    let field = field_of(bits);
    let mantissa = mantissa_of(bits, field);
    sum.exponent = field;
    if NORM == NORM_ONE {
        sum.mantissa = array(0u, mantissa, 0u);
    } else if NORM == NORM_INF || NORM == NORM_P {
        sum.mantissa = array(select(0u, ONE_BITS, NORM == NORM_P && bits != 0u), 0u, 0u);
        sum.exponent = bits;
    } else {
        let square = mul32(mantissa, mantissa);
        let moved = shl96(U96(square.lo, square.hi, 0u), GUARD);
        sum.mantissa = array(moved.lo, moved.mid, moved.hi);
    }
    sums[0] = sum;
}
