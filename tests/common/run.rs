//! Norms as a run has them: a drift down, noise, a spike now and then.
#![allow(dead_code, unreachable_pub)]

use super::Random;

/// What norms are about at a step.
pub fn drift(step: usize) -> f32 {
    3.0 / (1.0 + step as f32 / 100.0)
}

/// A power of ten once in so many steps, from the fifth on, else 1.
pub fn spike(random: &mut Random, step: usize, once_in: u64) -> f32 {
    match random.bits() % once_in {
        0 if step > 3 => 10f32.powi(1 + (random.bits() % 5) as i32),
        _ => 1.0,
    }
}

/// Tensors whose norms are about `size`, with noise of a fifth.
pub fn about(random: &mut Random, sizes: &[usize], size: f32) -> Vec<Vec<f32>> {
    let mut tensor = |&n: &usize| {
        let size = size * (1.0 + 0.3 * random.unit());
        (0..n).map(|_| random.unit() * size / (n as f32 / 3.0).sqrt()).collect()
    };
    sizes.iter().map(&mut tensor).collect()
}
