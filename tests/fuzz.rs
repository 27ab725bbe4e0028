//! The bodies of fuzz targets, with bytes of a generator of random numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use gradclip_verify::fuzz::TARGETS;
use gradclip_verify::inputs::Random;

/// How many a target is called with.
const CALLS: u64 = 2_000;

#[test]
fn targets_hold_for_random_bytes() {
    for (name, target) in TARGETS {
        let mut checked = 0;
        for seed in 0..CALLS {
            let mut random = Random(seed);
            let len = random.below(6_000);
            let bytes: Vec<u8> = (0..len).map(|_| random.bits() as u8).collect();
            checked += u64::from(target(&bytes));
        }
        // Random bytes are neither a history nor a checkpoint.
        let least = if matches!(name, "plans" | "clips") { CALLS / 4 } else { 0 };
        assert!(checked >= least, "{name}: {checked} of {CALLS} made something to check");
    }
}
