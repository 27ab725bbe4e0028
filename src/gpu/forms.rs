//! Which form of the kernels a device runs: one table, so that a measurement on a card changes a row.
//!
//! | device | loads | units side by side | products of 32 bits | workgroups | slots | why |
//! |---|---|---|---|---|---|---|
//! | software | few at a time | an invocation each | - | 128, one a chunk | as many as windows | measured: `benches/records/*-plain-software.csv`, ARCHITECTURE.md |
//! | NVIDIA | 16 bytes, a chunk in flight | teams of 16 | yes | 256, one a chunk | rounded up | counted, not measured: IMAD runs at full rate |
//! | others | 16 bytes, a chunk in flight | teams of 16 | no | 256, one a chunk | rounded up | counted, not measured: 24-bit products run at full rate |
//!
//! Kernels with slots to spare are the same for more placings of tensors, so that a new one rarely compiles. A branch on the slot
//! that a workgroup takes alike costs hardware nothing; software adapters run every case under a mask.
//!
//! Every form has the same bits. [`ClipperOptions`](super::ClipperOptions) overrides each column.

use crate::kernels::{Form, Loads};
use crate::plan::Dispatch;

use super::options::ClipperOptions;

/// Its vendor number on PCI.
const NVIDIA: u32 = 0x10de;
/// The block kernels give a lane four columns of 1,024.
const BLOCKS_WORKGROUP: u32 = 256;
/// Numbers of slots that kernels are made for where those are rounded up.
const SLOT_COUNTS: [u32; 6] = [1, 2, 4, 8, 16, 30];

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forms {
    /// Whether gradients are read by 16 bytes, and a whole chunk at once; what lies apart, sixteen elements at once, units by
    /// teams.
    pub(crate) vectors: bool,
    pub(crate) full_multiply: bool,
    /// Workgroups of the norm that stay for more than one chunk; 0 for one a chunk.
    pub(crate) resident: u32,
    /// Whether kernels have slots to spare.
    pub(crate) rounded_slots: bool,
}

impl Forms {
    /// The row of a device, where options do not say otherwise.
    pub(crate) fn new(info: &wgpu::AdapterInfo, options: &ClipperOptions, workgroup_size: u32) -> Forms {
        let software = info.device_type == wgpu::DeviceType::Cpu;
        Forms {
            vectors: options.vector_loads.unwrap_or(!software) && workgroup_size == BLOCKS_WORKGROUP,
            full_multiply: options.full_multiply.unwrap_or(info.vendor == NVIDIA),
            resident: options.resident_workgroups.unwrap_or(0),
            rounded_slots: options.rounded_slots.unwrap_or(!software),
        }
    }

    /// Slots of the kernel for a dispatch that uses so many, of at most `most`.
    pub(crate) fn slots(&self, used: u32, most: u32) -> u32 {
        let rounded = SLOT_COUNTS.into_iter().find(|&count| self.rounded_slots && count >= used);
        rounded.unwrap_or(used).min(most).max(used)
    }

    /// The form of the kernels over a dispatch.
    pub(crate) fn of(&self, dispatch: &Dispatch) -> Form {
        if !self.vectors {
            return Form::default();
        }
        let loads = if dispatch.vectors { Loads::Vectors } else { Loads::Words };
        Form { loads, full_multiply: self.full_multiply, stays: self.resident > 0 }
    }
}
