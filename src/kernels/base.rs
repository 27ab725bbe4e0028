//! Rows that others take over from: a kernel of each kind.

use crate::layout::{
    ADAPT_ADAGC, ADAPT_AGGC, ADAPT_AVERAGE, ADAPT_MEAN, ADAPT_NOISY_QUANTILE, ADAPT_NONE, ADAPT_PERCENTILE,
    ADAPT_QUANTILE, ADAPT_ZSCORE,
};

use super::kernel::Binding::{Read, ReadWrite, Uniform};
use super::kernel::Kernel;
use super::row::{Norms, Row, Tables};
use super::{finish, form, parts};

/// Gradients -> partial of each chunk; `cpu/reduce.rs`, for any p `cpu/power.rs`.
pub(super) const REDUCE: Row = Row {
    kernel: Kernel::Reduce,
    stem: "reduce",
    entry: "reduce",
    parts: parts::reduce,
    tables: Tables::Same(&[Uniform, Read, ReadWrite, Uniform]),
    slots: Some(Read),
    operands: 1,
    norms: Norms::All,
    rules: &[],
    form: form::of_chunks,
    has_quads: form::is_any_p,
    rows_each: |_| 1,
    takes_chunks: true,
    finishes: false,
    leaves_out: true,
    needs_no_checks: Some(Kernel::Reduce),
};

/// Partials -> sum of each tensor, block or unit; `cpu/combine.rs`.
pub(super) const PARTIALS: Row = Row {
    kernel: Kernel::Partials,
    stem: "tensors",
    entry: "combine",
    parts: |variant| parts::combine(variant, wgsl!["shared/partial_item", "shared/step", "tensors"]),
    tables: Tables::Same(&[Uniform, Read, Read, ReadWrite, ReadWrite, ReadWrite]),
    slots: None,
    form: form::one,
    has_quads: |_| false,
    takes_chunks: false,
    leaves_out: false,
    needs_no_checks: Some(Kernel::Partials),
    ..REDUCE
};

/// Sums, settings -> outcome of each segment; `cpu/coefficient.rs`.
pub(super) const COEFFICIENT: Row = Row {
    kernel: Kernel::Coefficient,
    stem: "coefficient",
    entry: "coefficient",
    parts: |_| parts::decide(wgsl!["shared/adapting", "shared/outcomes", "coefficient"]),
    tables: Tables::Same(&[Uniform, Read, Read, Read, ReadWrite, ReadWrite, ReadWrite, Uniform]),
    leaves_out: true,
    ..PARTIALS
};

/// The rules of thresholds: the fixed one, then those that adapt.
pub(super) const RULES: &[u32] = &[
    ADAPT_NONE,
    ADAPT_MEAN,
    ADAPT_AVERAGE,
    ADAPT_PERCENTILE,
    ADAPT_ZSCORE,
    ADAPT_ADAGC,
    ADAPT_QUANTILE,
    ADAPT_AGGC,
    ADAPT_NOISY_QUANTILE,
];

/// For small sets, what `PARTIALS`, `Sums`, `Threshold`, `COEFFICIENT` and `Advance` write.
pub(super) const FINISH: Row = Row {
    kernel: Kernel::Finish,
    stem: "finish",
    entry: "finish",
    parts: finish::parts,
    tables: Tables::Of(finish::bindings),
    rules: RULES,
    finishes: true,
    ..COEFFICIENT
};

/// Outcomes -> gradients, in place; `cpu/apply.rs`.
pub(super) const APPLY: Row = Row {
    kernel: Kernel::Apply,
    stem: "apply",
    entry: "apply",
    parts: parts::apply,
    tables: Tables::Same(&[Uniform, Read, Read]),
    slots: Some(ReadWrite),
    norms: Norms::Same,
    form: form::by_loads,
    has_quads: |_| false,
    leaves_out: false,
    needs_no_checks: Some(Kernel::Apply),
    ..REDUCE
};

/// What NAdam corrects beyond Adam.
pub(super) const CORRECT: Row = Row {
    kernel: Kernel::CorrectNadam,
    stem: "correct_nadam",
    entry: "correct",
    parts: |_| parts::correct(wgsl!["shared/complement", "correct_nadam"]),
    tables: Tables::Same(&[Uniform, Uniform, ReadWrite]),
    norms: Norms::Same,
    leaves_out: false,
    ..COEFFICIENT
};

/// Gradients, outcomes -> parameters; `cpu/update.rs`. One buffer may hold gradients too, and cannot be bound in two
/// ways at once: hence what is bound as for [`APPLY`].
pub(super) const UPDATE: Row = Row {
    kernel: Kernel::UpdateSgd,
    stem: "update_sgd",
    entry: "fused",
    parts: |variant| parts::update(variant, wgsl!["update_sgd"]),
    tables: Tables::Of(parts::fused_bindings),
    operands: 2,
    form: form::by_words,
    needs_no_checks: Some(Kernel::UpdateSgd),
    ..APPLY
};

/// Gradients, outcomes -> squares of what an update would be and of its parameters; `cpu/ratio.rs`. Bound as for [`UPDATE`].
pub(super) const MEASURE: Row = Row {
    kernel: Kernel::MeasureAdam,
    stem: "measure_adam",
    parts: |variant| parts::measure(variant, wgsl!["shared/adam", "shared/own_moments", "measure_adam"]),
    tables: Tables::Same(&[Uniform, Uniform, Uniform, ReadWrite, Read, Read]),
    operands: 4,
    ..UPDATE
};

/// Indices of a sparse gradient -> how often each row occurs; `cpu/coalesce.rs`, whose lists need no numbers.
pub(super) const COALESCE: Row = Row {
    kernel: Kernel::CoalesceCount,
    stem: "coalesce_count",
    entry: "count_entries",
    parts: |_| parts::coalesce(wgsl!["coalesce_count"]),
    tables: Tables::Same(&[Uniform, Uniform, Read, Read, ReadWrite]),
    norms: Norms::Same,
    leaves_out: false,
    ..COEFFICIENT
};

/// What adds values of a sparse gradient; `cpu/coalesce/sum.rs`.
pub(super) const ADD_LONG: Row = Row {
    kernel: Kernel::CoalesceLongTops,
    stem: "coalesce_long_tops",
    entry: "take_block",
    parts: |_| parts::add_long_lists(wgsl!["coalesce_long_tops"]),
    tables: Tables::Same(&[Uniform, Uniform, Read, Read, Read, ReadWrite]),
    slots: Some(Read),
    ..COALESCE
};
