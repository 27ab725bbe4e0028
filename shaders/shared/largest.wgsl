// The largest magnitude that counts as finite: what unscaling takes above the largest f32 does not.

fn most_of(segment: u32) -> u32 {
    if segment >= job.parameters {
        return LARGEST_BITS;
    }
    if SCALED {
        return largest_unscaled(with_loss_scale(job.unscale));
    }
    return job.largest;
}

// Below (2^25 - 1) * 2^103 / unscale, from which products round to infinity: largest_unscaled of
// src/real.rs.
fn largest_unscaled(unscale: u32) -> u32 {
    if unscale <= ONE_BITS {
        return LARGEST_BITS;
    }
    let divisor = normal_mantissa_of(unscale);
    let dividend = 0x1ffffffu;
    var digits = Digits(dividend / divisor, dividend % divisor);
    digits = more_digits(digits, divisor, 7u);
    digits = more_digits(digits, divisor, 7u);
    digits = more_digits(digits, divisor, 8u);
    digits = more_digits(digits, divisor, 8u);
    let below = (digits.result & 0xffu) != 0u || digits.rest != 0u;
    let found = ((381u - (unscale >> 23u)) << 23u) + ((digits.result >> 8u) & 0x7fffffu);
    return found - u32(!below);
}
