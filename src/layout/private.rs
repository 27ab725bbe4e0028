//! What sums over examples and their noise share with WGSL.

use bytemuck::{Pod, Zeroable};

/// Neighbouring elements of a tensor without its first axis, that of examples: places in the slot's windows. Of a kernel that adds,
/// gradients go to sums of two words each; of one that releases, sums go to `f32`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ExampleRow {
    /// First element of the first example's gradient, or first word of the sums.
    pub start: u32,
    /// Number of elements in the low [`LEN_BITS`](super::LEN_BITS) bits, slot above.
    pub slot_len: u32,
    /// The same first element, counted in the tensor without its first axis.
    pub first: u32,
    /// Segment of the first example.
    pub segment: u32,
    /// First word of the sums, or first element of what is released.
    pub to: u32,
    /// Distance of neighbouring examples in elements.
    pub stride: u32,
    /// Number of examples.
    pub examples: u32,
    /// Number of the tensor in its set, of which its noise is.
    pub tensor: u32,
}

/// The constants of a private sum, see [`Private`](crate::Private).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Releasing {
    /// Exponent of the grid's unit: sums and noise are multiples of 2^unit.
    pub unit: i32,
    /// What totals are divided by, below 2^21.
    pub lot: u32,
    /// Standard deviation of the noise in units of the grid, times 2^(drop + 33): 64 bits of which the top one is set, or 0 for no noise.
    pub scale_low: u32,
    /// See above.
    pub scale_high: u32,
    /// See above.
    pub drop: i32,
    /// Key of the noise.
    pub seed_low: u32,
    /// See above.
    pub seed_high: u32,
}
