//! One row per kernel.

use crate::layout::{ADAPT_NONE, TEAM};

use super::base::{
    ADD_LONG, APPLY, COALESCE, COEFFICIENT, CORRECT, FINISH, MEASURE, PARTIALS, REDUCE, RULES, UPDATE,
};
use super::kernel::Binding::{Read, ReadWrite, Uniform};
use super::kernel::Kernel;
use super::row::{Norms, Row, Tables};
use super::{finish, form, parts};

/// The row of each kernel, at the place of its variant.
pub(super) static TABLE: &[Row] = &[
    REDUCE,
    // Gradients -> partials of short chunks; cpu/reduce.rs.
    Row {
        kernel: Kernel::ReduceShort,
        stem: "reduce_short",
        entry: "reduce_short",
        parts: parts::reduce_short,
        norms: Norms::Integer,
        form: form::by_words,
        has_quads: |_| true,
        rows_each: |size| size / TEAM,
        takes_chunks: false,
        needs_no_checks: Some(Kernel::ReduceShort),
        ..REDUCE
    },
    // Gradients -> partial of each chunk of short units; cpu/units.rs.
    Row {
        kernel: Kernel::ReduceUnits,
        stem: "reduce_units",
        entry: "reduce_units",
        parts: parts::reduce_units,
        form: form::by_words_but_any_p,
        has_quads: |_| true,
        takes_chunks: false,
        needs_no_checks: Some(Kernel::ReduceUnits),
        ..REDUCE
    },
    PARTIALS,
    // Sums of tensors or blocks -> sum of each segment or tensor; cpu/combine.rs.
    Row {
        kernel: Kernel::Sums,
        stem: "segments",
        parts: |variant| parts::combine(variant, wgsl!["segments"]),
        tables: Tables::Same(&[Uniform, Read, Read, ReadWrite]),
        needs_no_checks: Some(Kernel::Sums),
        ..PARTIALS
    },
    // A norm from the program -> sum of the set; norm.rs.
    Row {
        kernel: Kernel::Given,
        stem: "given",
        entry: "given",
        parts: |_| parts::given(),
        tables: Tables::Same(&[Uniform, Read, ReadWrite]),
        leaves_out: false,
        ..COEFFICIENT
    },
    // Sums, loss, those of earlier steps -> whether the step is left out; cpu/skip.rs.
    Row {
        kernel: Kernel::Skip,
        stem: "skip",
        entry: "skip",
        parts: |_| parts::skip(),
        tables: Tables::Same(&[Uniform, Uniform, Read, Read, Read, ReadWrite, ReadWrite]),
        leaves_out: false,
        ..COEFFICIENT
    },
    // Whether a micro-batch is left out, their count -> workgroups of sums and step; cpu/step/trainer.rs.
    Row {
        kernel: Kernel::Count,
        stem: "count",
        entry: "count",
        parts: |_| wgsl!["count"].to_vec(),
        tables: Tables::Same(&[Uniform, Uniform, Read, Read, ReadWrite, ReadWrite, ReadWrite, ReadWrite]),
        norms: Norms::Same,
        leaves_out: false,
        ..COEFFICIENT
    },
    // Sums, history -> threshold of each limit that adapts; cpu/threshold.rs.
    Row {
        kernel: Kernel::Threshold,
        stem: "threshold",
        entry: "threshold",
        parts: parts::threshold,
        tables: Tables::Same(&[Uniform, Uniform, Read, Read, ReadWrite, ReadWrite, ReadWrite, Uniform]),
        rules: RULES.split_at(1).1,
        leaves_out: false,
        ..COEFFICIENT
    },
    COEFFICIENT,
    FINISH,
    // The only chunk of a set, settings -> what REDUCE and FINISH write.
    Row {
        kernel: Kernel::ReduceFinish,
        stem: "reduce_finish",
        parts: finish::with_sum_of_chunk,
        slots: Some(Read),
        rules: &[ADAPT_NONE],
        form: form::by_words,
        has_quads: form::is_any_p,
        ..FINISH
    },
    APPLY,
    // Outcomes -> gradients of tensors cut into units; cpu/apply.rs.
    Row {
        kernel: Kernel::ApplyUnits,
        stem: "apply_units",
        entry: "apply_units",
        parts: parts::apply_units,
        tables: Tables::Same(&[Uniform, Read, Read, Uniform]),
        form: form::by_words,
        takes_chunks: false,
        needs_no_checks: Some(Kernel::ApplyUnits),
        ..APPLY
    },
    // Outcomes -> words shared by two 16-bit gradients; cpu/apply.rs.
    Row {
        kernel: Kernel::Seams,
        stem: "seams",
        entry: "seams",
        parts: |_| parts::write(wgsl!["seams"]),
        form: form::one,
        rows_each: |size| size,
        takes_chunks: false,
        needs_no_checks: Some(Kernel::Seams),
        ..APPLY
    },
    // Tally -> loss scale, corrections of the step; cpu/advance.rs.
    Row {
        kernel: Kernel::Advance,
        stem: "advance",
        entry: "advance",
        parts: parts::advance,
        tables: Tables::Same(&[Uniform, Uniform, ReadWrite, ReadWrite]),
        norms: Norms::Same,
        leaves_out: false,
        ..COEFFICIENT
    },
    // The step's number, constants -> its other corrections; cpu/advance.rs.
    CORRECT,
    Row {
        kernel: Kernel::CorrectRadam,
        stem: "correct_radam",
        parts: |_| parts::correct(wgsl!["correct_radam"]),
        ..CORRECT
    },
    Row {
        kernel: Kernel::CorrectSpam,
        stem: "correct_spam",
        parts: |_| parts::correct(wgsl!["correct_spam"]),
        ..CORRECT
    },
    // Gradients, outcomes, parameters, moments -> squares of updates and parameters; cpu/ratio.rs.
    MEASURE,
    Row {
        kernel: Kernel::MeasureLars,
        stem: "measure_lars",
        parts: |variant| parts::measure(variant, wgsl!["shared/own_momentum", "measure_lars"]),
        operands: 3,
        ..MEASURE
    },
    // Sums of these squares -> factor of each tensor's update; cpu/ratio.rs.
    Row {
        kernel: Kernel::Ratio,
        stem: "ratio",
        entry: "ratio",
        parts: |_| parts::ratio(),
        tables: Tables::Same(&[Uniform, Uniform, Uniform, Read, ReadWrite]),
        norms: Norms::Same,
        leaves_out: false,
        ..COEFFICIENT
    },
    UPDATE,
    // Likewise, and moments.
    Row {
        kernel: Kernel::UpdateMomentum,
        stem: "update_momentum",
        parts: |variant| parts::update(variant, wgsl!["shared/own_momentum", "update_momentum"]),
        operands: 3,
        needs_no_checks: Some(Kernel::UpdateMomentum),
        ..UPDATE
    },
    Row {
        kernel: Kernel::UpdateLars,
        stem: "update_lars",
        parts: |variant| parts::update(variant, wgsl!["shared/own_momentum", "update_lars"]),
        operands: 3,
        needs_no_checks: Some(Kernel::UpdateLars),
        ..UPDATE
    },
    Row {
        kernel: Kernel::UpdateAdam,
        stem: "update_adam",
        parts: |variant| parts::update(variant, wgsl!["shared/adam", "shared/own_moments", "update_adam"]),
        operands: 4,
        needs_no_checks: Some(Kernel::UpdateAdam),
        ..UPDATE
    },
    Row {
        kernel: Kernel::UpdateAmsgrad,
        stem: "update_amsgrad",
        parts: |variant| parts::update(variant, wgsl!["shared/adam", "update_amsgrad"]),
        operands: 5,
        needs_no_checks: Some(Kernel::UpdateAmsgrad),
        ..UPDATE
    },
    Row {
        kernel: Kernel::UpdateNadam,
        stem: "update_nadam",
        parts: |variant| parts::update(variant, wgsl!["shared/adam", "shared/own_moments", "update_nadam"]),
        operands: 4,
        needs_no_checks: Some(Kernel::UpdateNadam),
        ..UPDATE
    },
    Row {
        kernel: Kernel::UpdateRadam,
        stem: "update_radam",
        parts: |variant| parts::update(variant, wgsl!["shared/adam", "shared/own_moments", "update_radam"]),
        operands: 4,
        needs_no_checks: Some(Kernel::UpdateRadam),
        ..UPDATE
    },
    Row {
        kernel: Kernel::UpdateSpam,
        stem: "update_spam",
        parts: |variant| parts::update(variant, wgsl!["shared/adam", "shared/own_moments", "update_spam"]),
        operands: 4,
        needs_no_checks: Some(Kernel::UpdateSpam),
        ..UPDATE
    },
    Row {
        kernel: Kernel::UpdateAdopt,
        stem: "update_adopt",
        parts: |variant| parts::update(variant, wgsl!["shared/own_moments", "update_adopt"]),
        operands: 4,
        needs_no_checks: Some(Kernel::UpdateAdopt),
        ..UPDATE
    },
    Row {
        kernel: Kernel::UpdateLion,
        stem: "update_lion",
        parts: |variant| parts::update(variant, wgsl!["shared/own_momentum", "update_lion"]),
        operands: 3,
        needs_no_checks: Some(Kernel::UpdateLion),
        ..UPDATE
    },
    // Gradients, outcomes -> accumulators; cpu/accumulate.rs.
    Row {
        kernel: Kernel::Accumulate,
        stem: "accumulate",
        parts: |variant| parts::fused(variant, wgsl!["accumulate"]),
        needs_no_checks: Some(Kernel::Accumulate),
        ..UPDATE
    },
    COALESCE,
    // How often each row occurs -> sums of blocks of rows.
    Row {
        kernel: Kernel::CoalesceBlocks,
        stem: "coalesce_blocks",
        entry: "sum_blocks",
        parts: |_| parts::coalesce(wgsl!["coalesce_blocks"]),
        tables: Tables::Same(&[Uniform, Uniform, Read, ReadWrite]),
        ..COALESCE
    },
    // Sums of blocks -> the rows that occur, and where the list of each one's entries begins.
    Row {
        kernel: Kernel::CoalescePlaces,
        stem: "coalesce_places",
        entry: "number_rows",
        parts: |_| parts::coalesce(wgsl!["coalesce_places"]),
        tables: Tables::Same(&[Uniform, Uniform, Read, ReadWrite, ReadWrite, ReadWrite]),
        ..COALESCE
    },
    // Indices, where lists begin -> lists.
    Row {
        kernel: Kernel::CoalesceLists,
        stem: "coalesce_lists",
        entry: "list_entries",
        parts: |_| parts::coalesce(wgsl!["coalesce_lists"]),
        tables: Tables::Same(&[Uniform, Uniform, Read, Read, ReadWrite, ReadWrite]),
        ..COALESCE
    },
    // Values, long lists -> largest magnitudes of each.
    ADD_LONG,
    // The same, those magnitudes -> sums.
    Row {
        kernel: Kernel::CoalesceLongSums,
        stem: "coalesce_long_sums",
        parts: |_| parts::add_long_lists(wgsl!["coalesce_long_sums"]),
        ..ADD_LONG
    },
    // Values, other lists -> added rows; cpu/coalesce/sum.rs.
    Row {
        kernel: Kernel::CoalesceAdd,
        stem: "coalesce_add",
        entry: "add_entries",
        parts: |_| parts::add_entries(wgsl!["coalesce_add"]),
        ..ADD_LONG
    },
    // Sums of long lists -> added rows.
    Row {
        kernel: Kernel::CoalesceLongRows,
        stem: "coalesce_long_rows",
        entry: "write_rows",
        parts: |_| parts::duplicates(wgsl!["shared/long_sum", "shared/long_lists", "coalesce_long_rows"]),
        tables: Tables::Same(&[Uniform, Uniform, Read, Read, ReadWrite, ReadWrite]),
        ..COALESCE
    },
    // Gradients of examples, outcomes -> sums over examples; cpu/private.rs.
    Row {
        kernel: Kernel::PrivateSum,
        stem: "private_sum",
        entry: "private_sum",
        parts: parts::private_sum,
        tables: Tables::Same(&[Uniform, Uniform, Read, Read]),
        form: form::one,
        takes_chunks: false,
        ..UPDATE
    },
    // Sums over examples -> what is released of them; cpu/private.rs.
    Row {
        kernel: Kernel::PrivateRelease,
        stem: "private_release",
        entry: "private_release",
        parts: parts::private_release,
        tables: Tables::Same(&[Uniform, Uniform, Read, Read]),
        form: form::one,
        takes_chunks: false,
        ..UPDATE
    },
    // The number of a release -> that of the next one; cpu/private.rs.
    Row {
        kernel: Kernel::PrivateNext,
        stem: "private_next",
        entry: "private_next",
        parts: |_| wgsl!["private_next"].to_vec(),
        tables: Tables::Same(&[Uniform, ReadWrite]),
        norms: Norms::Same,
        leaves_out: false,
        ..COEFFICIENT
    },
];
