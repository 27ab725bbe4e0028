//! Cuts a sparse gradient into windows and dispatches: what adds its duplicates.
//!
//! Values are read from any place at any time, so that all of them are bound at once, in windows of one size. Added rows
//! take a dispatch a window.

use crate::error::PlanError;
use crate::layout::{Coalescing, LONG_LIST, TABLE_ROWS};
use crate::tensor::DType;

use super::check::{self, BoundRange};
use super::dispatch::{LARGEST_WINDOW, Window, grid};
use super::limits::PlanLimits;
use super::placement::Placement;

/// Storage buffers of the kernel that adds, besides values.
const OTHER_STORAGE: u32 = 4;
/// Windows of values that one dispatch binds: as many as the least storage buffers of any browser leave.
const MOST_WINDOWS: u32 = 4;

/// Where a sparse gradient lies.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// A row each, as words.
    pub indices: Placement,
    /// How many hold, as a word, if not all.
    pub count: Option<Placement>,
    /// Elements of them, entry by entry.
    pub values: Placement,
    /// Rows of the table.
    pub rows: u64,
    /// Elements of a row.
    pub width: u64,
}

/// A window of added rows, with the dispatch that writes it.
#[derive(Clone, Debug, PartialEq)]
pub struct AddedWindow {
    /// First byte and bytes.
    pub window: Window,
    /// First element.
    pub first: u32,
    /// Elements.
    pub len: u32,
    /// Workgroups.
    pub grid: [u32; 2],
}

/// Dispatches that add duplicates. There are none where there is nothing to add.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CoalescePlan {
    /// Sizes and places for the kernels.
    pub sizes: Coalescing,
    /// Indices.
    pub indices: Option<Window>,
    /// The number of entries, where there is one.
    pub count: Option<Window>,
    /// Windows of values, all of one size but the last.
    pub values: Vec<Window>,
    /// Windows of what is written.
    pub added: Vec<AddedWindow>,
    /// Workgroups of kernels that take an invocation an entry.
    pub entry_grid: [u32; 2],
    /// Workgroups of kernels that take a block of places in lists each, where a list may be long.
    pub long_grid: Option<[u32; 2]>,
    /// Blocks of rows of the table.
    pub blocks: u32,
    /// Workgroups that take one each.
    pub block_grid: [u32; 2],
}

impl Entries {
    fn check(&self, limits: &PlanLimits) -> Result<(), PlanError> {
        let values = &self.values;
        if values.dtype == DType::F64 {
            return Err(PlanError::DType { tensor: values.name.clone(), given: values.dtype });
        }
        let all = [Some(&self.indices), Some(values), self.count.as_ref()];
        let apart = |at| BoundRange { at, may_share: false };
        check::ranges(&all.into_iter().flatten().map(apart).collect::<Vec<_>>())?;
        let largest = limits.max_binding.min(LARGEST_WINDOW);
        let words = (largest - limits.alignment) / 4 - 2;
        let entries = u128::from(self.indices.elements);
        let checks = [
            ("entries of a sparse gradient", entries, words),
            ("rows of a table", self.rows.into(), words),
            // Places of elements are counted from the beginning of a binding.
            (
                "elements of a sparse gradient",
                entries * u128::from(self.width),
                u64::from(u32::MAX) - limits.alignment,
            ),
            ("elements of a table", u128::from(self.rows) * u128::from(self.width), u32::MAX.into()),
        ];
        for (what, given, required) in checks {
            if given > u128::from(required) {
                let given = u64::try_from(given).unwrap_or(u64::MAX);
                return Err(PlanError::TooLarge { what, required, given });
            }
        }
        Ok(())
    }

    /// Rows that entries are added to: one for each entry or each row of the table, whichever are fewer, and one that no
    /// entry has where all rows may be named, which tells of entries that were left out.
    pub fn added(&self) -> u64 {
        self.indices.elements.min(self.rows.saturating_add(1))
    }
}

impl CoalescePlan {
    /// Sums of long lists that there may be.
    pub fn long_sums(&self) -> usize {
        let blocks = long_blocks(self.sizes.entries.into()).unwrap_or_default();
        blocks as usize * self.sizes.width as usize
    }

    /// Plans the addition.
    ///
    /// # Errors
    ///
    /// Ranges that are unaligned or leave their buffers, values of `f64`, or more than the limits can hold.
    pub fn new(entries: &Entries, limits: &PlanLimits) -> Result<CoalescePlan, PlanError> {
        entries.check(limits)?;
        let (added, width) = (entries.added(), entries.width);
        if added * width == 0 {
            return Ok(CoalescePlan::default());
        }
        let window_bits = limits.max_binding.min(LARGEST_WINDOW).ilog2();
        let (values, first_value) = windows(&entries.values, window_bits, limits)?;
        let (indices, first_index) = window(&entries.indices, limits);
        let count = entries.count.as_ref().map(|count| window(count, limits));
        let block = u64::from(limits.workgroup_size * TABLE_ROWS);
        let blocks = entries.rows.div_ceil(block).max(1);
        let invocations = |count: u64| grid(count.div_ceil(limits.workgroup_size.into()), limits);
        let elements = 1u64 << (window_bits - 2);
        let each = (0..added * width).step_by(elements as usize).map(|first| {
            let len = elements.min(added * width - first);
            let window = Window { buffer: 0, offset: first * 4, size: len * 4 };
            Ok(AddedWindow { window, first: first as u32, len: len as u32, grid: invocations(len)? })
        });
        Ok(CoalescePlan {
            sizes: Coalescing {
                rows: entries.rows as u32,
                width: width as u32,
                entries: entries.indices.elements as u32,
                added: added as u32,
                first_index,
                count: count.map_or(0, |(_, first)| first),
                first_value,
                window_bits: window_bits - 2,
            },
            indices: Some(indices),
            count: count.map(|(window, _)| window),
            values,
            added: each.collect::<Result<_, PlanError>>()?,
            entry_grid: invocations(entries.indices.elements)?,
            long_grid: long_blocks(entries.indices.elements)
                .map(|blocks| grid(blocks, limits))
                .transpose()?,
            blocks: blocks as u32,
            block_grid: grid(blocks, limits)?,
        })
    }
}

/// Blocks of places in lists of so many entries, where one may be long.
fn long_blocks(entries: u64) -> Option<u64> {
    let block = u64::from(LONG_LIST);
    (entries > block).then(|| entries.div_ceil(block))
}

/// The window of words, and the place of the first of them in it.
fn window(at: &Placement, limits: &PlanLimits) -> (Window, u32) {
    let offset = at.offset - at.offset % limits.alignment;
    let size = at.offset + at.elements * 4 - offset;
    (Window { buffer: at.buffer, offset, size }, ((at.offset - offset) / 4) as u32)
}

/// Windows of two to the power of `bits` bytes, and the place of the first element in the first of them.
fn windows(at: &Placement, bits: u32, limits: &PlanLimits) -> Result<(Vec<Window>, u32), PlanError> {
    let size = at.dtype.size();
    let begin = at.offset - at.offset % limits.alignment;
    let end = (at.offset + at.elements * size).next_multiple_of(4);
    let most = u64::from(limits.storage.saturating_sub(OTHER_STORAGE).min(MOST_WINDOWS));
    if (end - begin).div_ceil(1 << bits) > most {
        let what = "bytes of values of a sparse gradient";
        return Err(PlanError::TooLarge { what, required: most << bits, given: end - begin });
    }
    let each = (begin..end).step_by(1 << bits);
    let window = |offset: u64| Window { buffer: at.buffer, offset, size: (1 << bits).min(end - offset) };
    Ok((each.map(window).collect(), ((at.offset - begin) / size) as u32))
}
