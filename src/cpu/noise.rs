//! Gaussian noise keyed by the program: the twin of `shaders/shared/noise.wgsl`.

use super::gaussian::{Normal, normal};
use super::threefry::threefry;

/// Keys of one thing's noise: they follow from the program's seed, so that those of neighbouring seeds have nothing in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoiseKeys([[u32; 2]; 2]);

impl NoiseKeys {
    /// `purpose` is one of the `NOISE_OF_` constants.
    pub(super) fn new(seed: [u32; 2], thing: u32, purpose: u32) -> NoiseKeys {
        let [x, y] = threefry([[thing; 2], [2 * purpose, 2 * purpose + 1]], seed);
        NoiseKeys([[x[0], y[0]], [x[1], y[1]]])
    }

    /// The number at a place and a time.
    pub(super) fn at(self, place: u32, time: u32) -> Normal {
        normal(self.0.map(|key| {
            let [x, y] = threefry([[place], [time]], key);
            u64::from(y[0]) << 32 | u64::from(x[0])
        }))
    }
}
