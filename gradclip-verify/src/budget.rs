//! How much each set of checks may do, so that all of them together stay minutes on two cores and a software adapter.

/// Steps of a threshold that follows earlier norms, on a device and on the CPU path.
pub const COURSE_STEPS: usize = 12;
/// Steps of loss scales and counts: past the growth of the slowest, which takes seven.
pub const ADVANCE_STEPS: usize = 14;
/// Steps of an optimiser.
pub const TRAINING_STEPS: usize = 5;
/// Micro-batches, after two of which sums begin anew.
pub const BATCHES: usize = 6;
/// Tensors of a set of many small ones: more than any adapter binds at once.
pub const MANY: usize = 70;
/// Steps of a run with drift, noise and spikes, in which every window of the tests is filled.
pub const RUN_STEPS: usize = 500;
/// Elements that big integers add up with every range of exponents; longer sets meet two of the ranges.
pub const EXACT_ELEMENTS: usize = 20_000;
/// Random sets whose norms are compared with their limit in exact arithmetic, where integers of 128 bits do.
pub const EXACT_SETS: u32 = 100_000;
/// The same in big integers.
pub const EXACT_SETS_F64: u64 = 10_000;
/// An adapter meets one in so many of the sizes and kinds of data that the CPU path meets.
pub const ADAPTER_SHARE: usize = 3;
/// Random cases of a property of clips.
pub const PROPERTY_CASES: u32 = 500;
/// Random plans, whose every element is looked at.
pub const PLAN_CASES: u32 = 400;
/// Random plans of steps.
pub const JOINT_PLAN_CASES: u32 = 300;
/// Random plans whose every index is walked as the kernels do.
pub const INDEX_CASES: u32 = 150;
