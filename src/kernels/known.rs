//! What is known of kernels and their variants: their rows of the table, read.

use crate::clip::Summation;

use super::form::{Form, Loads};
use super::kernel::{Binding, File, Kernel};
use super::parts::{applied_elements, elements};
use super::row::{Norms, Row, Tables};
use super::table::TABLE;
use super::variant::Variant;

impl Kernel {
    pub(super) fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Stem of the file in `shaders/`; also the debug label.
    pub(crate) fn stem(self) -> &'static str {
        self.row().stem
    }

    /// Name of the entry point.
    pub(crate) fn entry(self) -> &'static str {
        self.row().entry
    }

    /// Whether its text depends on the norm.
    pub(crate) fn has_norm(self) -> bool {
        self.row().norms != Norms::Same
    }

    /// Whether its text depends on the rule of thresholds that adapt.
    pub(crate) fn has_rule(self) -> bool {
        !self.row().rules.is_empty()
    }

    /// Whether it works on gradients together with the tensors updated with them.
    pub(super) fn is_fused(self) -> bool {
        self.row().operands > 1
    }

    /// How the gradients in group 1 are bound, for kernels that touch them.
    pub(crate) fn slots(self) -> Option<Binding> {
        self.row().slots
    }

    /// Whether it reads gradients chunk by chunk.
    pub(crate) fn reduces(self) -> bool {
        self.slots() == Some(Binding::Read) && self.has_norm()
    }

    /// Whether it does what lies between partials and gradients.
    pub(crate) fn finishes(self) -> bool {
        self.row().finishes
    }

    /// Whether it leaves out segments from `Job::until` on.
    pub(crate) fn leaves_out(self) -> bool {
        self.row().leaves_out
    }

    /// The form in which it exists nearest to the one wanted.
    pub(crate) fn form(self, summation: Summation, wanted: Form) -> Form {
        (self.row().form)(summation, wanted)
    }

    /// Rows that a workgroup of this size takes.
    pub(crate) fn rows_each(self, workgroup_size: u32) -> u32 {
        (self.row().rows_each)(workgroup_size)
    }

    /// Whether it has sixteen elements of an invocation in flight, each by its own word.
    pub(super) fn has_quads(self, summation: Summation, form: Form) -> bool {
        (self.row().has_quads)(summation) && form.loads != Loads::Few
    }
}

impl Variant {
    /// Whether wgpu's checks of indices and loops can be left out: the argument of `gpu/trusted.rs` holds for it. It does not for
    /// indices that follow from what lies on the device.
    pub(crate) fn needs_no_checks(&self) -> bool {
        self.kernel.row().needs_no_checks == Some(self.kernel) && !self.pattern.is_by_rows()
    }

    /// The bindings of group 0 in order.
    pub(crate) fn bindings(&self) -> Vec<Binding> {
        match self.kernel.row().tables {
            Tables::Same(all) => all.to_vec(),
            Tables::Of(of) => of(self),
        }
    }

    /// The texts in order, without the constants.
    pub(super) fn parts(&self) -> Vec<File> {
        let row = self.kernel.row();
        let elements = if row.slots.is_some() { elements(self.dtype) } else { &[] };
        let applied = if row.slots == Some(Binding::ReadWrite) { applied_elements(self.dtype) } else { &[] };
        let records = wgsl!["shared/rows", "shared/records"];
        [elements, applied, records, &(row.parts)(self)].concat()
    }
}
