//! Kernels, what they bind, and files of WGSL.

/// A kernel: the place of its row in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    Reduce,
    ReduceShort,
    ReduceUnits,
    Partials,
    Sums,
    Given,
    Skip,
    Count,
    Threshold,
    Coefficient,
    Finish,
    ReduceFinish,
    Apply,
    ApplyUnits,
    Seams,
    Advance,
    CorrectNadam,
    CorrectRadam,
    CorrectSpam,
    MeasureAdam,
    MeasureLars,
    Ratio,
    UpdateSgd,
    UpdateMomentum,
    UpdateLars,
    UpdateAdam,
    UpdateAmsgrad,
    UpdateNadam,
    UpdateRadam,
    UpdateSpam,
    UpdateAdopt,
    UpdateLion,
    Accumulate,
    CoalesceCount,
    CoalesceBlocks,
    CoalescePlaces,
    CoalesceLists,
    CoalesceLongTops,
    CoalesceLongSums,
    CoalesceAdd,
    CoalesceLongRows,
    PrivateSum,
    PrivateRelease,
    PrivateNext,
}

/// How a buffer of bind group 0 is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    Uniform,
    Read,
    ReadWrite,
}

/// A file of `shaders/`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File {
    /// Its path without the ending.
    pub(super) stem: &'static str,
    pub(super) text: &'static str,
}
