//! Records of sparse gradients: what duplicates are added of, and the part of a table that a step moves.

use bytemuck::{Pod, Zeroable};

/// Rows of a table that an invocation numbers.
pub const TABLE_ROWS: u32 = 16;
/// Entries of the longest list that one invocation adds.
pub const LONG_LIST: u32 = 128;
/// Words of a list of rows before the first row: how many rows there are, and how many entries were left out.
pub const LIST_HEADER: u32 = 2;

/// The sizes of a sparse gradient, and where it lies in its bindings.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Coalescing {
    /// Rows of the table.
    pub rows: u32,
    /// Elements of a row.
    pub width: u32,
    /// Entries that there are at most.
    pub entries: u32,
    /// Rows that entries are added to: those beyond the named ones are zeros.
    pub added: u32,
    /// Word of the first index in its binding.
    pub first_index: u32,
    /// Word of the number of entries in its binding.
    pub count: u32,
    /// Element of the first value in the first window of values.
    pub first_value: u32,
    /// Windows of values have two to the power of this many words.
    pub window_bits: u32,
}

/// What is known of a sum of many entries, of which parts are added side by side.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct LongSum {
    /// The largest magnitudes of values that are not negative, and of those that are.
    pub top: [u32; 2],
    /// The bits that not all values have.
    pub not_in_all: u32,
    /// The sum in two's complement, least significant word first.
    pub sum: [u32; 3],
}

/// The elements of a table that a dispatch of a row-wise step binds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct TablePart {
    /// The first, counted in the table.
    pub first: u32,
    /// How many.
    pub len: u32,
    /// Elements of a row.
    pub width: u32,
}
