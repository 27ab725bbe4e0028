//! What is known of a kernel.

use crate::clip::Summation;

use super::form::Form;
use super::kernel::{Binding, File, Kernel};
use super::variant::Variant;

/// What is known of a kernel.
pub(super) struct Row {
    pub(super) kernel: Kernel,
    /// Stem of the file in `shaders/`; also the debug label.
    pub(super) stem: &'static str,
    /// Name of the entry point.
    pub(super) entry: &'static str,
    /// The files that make a variant of it, but for records and what elements are.
    pub(super) parts: fn(&Variant) -> Vec<File>,
    /// The bindings of group 0.
    pub(super) tables: Tables,
    /// How the gradients in group 1 are bound, for kernels that touch them.
    pub(super) slots: Option<Binding>,
    /// Operands that it takes element by element: gradients, and the tensors of 4 bytes an element updated with them.
    pub(super) operands: usize,
    pub(super) norms: Norms,
    /// The rules of thresholds it is made for, where its text depends on them.
    pub(super) rules: &'static [u32],
    /// The form in which it exists nearest to the one wanted.
    pub(super) form: fn(Summation, Form) -> Form,
    /// Whether it has sixteen elements of an invocation in flight, each by its own word, where loads are not few.
    pub(super) has_quads: fn(Summation) -> bool,
    /// Rows that a workgroup of so many invocations takes.
    pub(super) rows_each: fn(u32) -> u32,
    /// Whether a workgroup takes a chunk, its invocations equal shares of it.
    pub(super) takes_chunks: bool,
    /// Whether it does what lies between partials and gradients.
    pub(super) finishes: bool,
    /// Whether it leaves out segments from `Job::until` on.
    pub(super) leaves_out: bool,
    /// The kernel itself, where the argument of `gpu/trusted.rs` holds for it. What a row takes over from another names
    /// that one, and does not count: the argument is made for each kernel.
    pub(super) needs_no_checks: Option<Kernel>,
}

/// Bindings of group 0 in order.
pub(super) enum Tables {
    Same(&'static [Binding]),
    Of(fn(&Variant) -> Vec<Binding>),
}

/// The norms that set variants of a kernel apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Norms {
    /// Its text does not depend on the norm.
    Same,
    /// Those that are summed in integers: `PlanLimits::for_norm` makes no plan with it for others.
    Integer,
    All,
}
