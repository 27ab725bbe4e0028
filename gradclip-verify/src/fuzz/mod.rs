//! What a fuzzer calls with bytes of its own, a function a target; tests call the same with a few. Each panics where something is wrong, and
//! says whether the bytes made something that could be checked.

mod clips;
mod plans;
mod saved;

pub use saved::round_trip;

use arbitrary::{Result, Unstructured};

/// A target: its name, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// Every target, but for checkpoints, which not every build of the library has: [`round_trip`] is theirs.
pub const TARGETS: [Target; 3] = [
    ("plans", |bytes| done(plans::whatever_is_asked_for(&mut Unstructured::new(bytes)))),
    ("clips", |bytes| done(clips::any_set_under_any_rule(&mut Unstructured::new(bytes)))),
    ("histories", saved::histories),
];

/// Too few bytes are nothing to check.
fn done(result: Result<bool>) -> bool {
    result.unwrap_or(false)
}
