//! Which files of `shaders/` make a kernel.

use crate::layout::{
    ADAPT_ADAGC, ADAPT_AGGC, ADAPT_AVERAGE, ADAPT_MEAN, ADAPT_NOISY_QUANTILE, ADAPT_PERCENTILE, ADAPT_ZSCORE,
};
use crate::tensor::{DType, Precision};

use super::form::{Loads, is_any_p};
use super::kernel::{Binding, File};
use super::variant::Variant;

/// Scalars in integers.
pub(super) const NUMBERS: &[File] =
    wgsl!["shared/wide", "shared/element", "shared/fields", "shared/real", "shared/rounding"];

/// Noise in integers, which need [`NUMBERS`].
const NOISE: &[File] = wgsl!["shared/wide64", "shared/threefry", "shared/gaussian", "shared/noise"];

/// A workgroup a chunk.
pub(super) fn reduce(variant: &Variant) -> Vec<File> {
    let power: &[File] = match is_any_p(variant.summation) {
        true => wgsl!["shared/power", "shared/lanes"],
        false => &[],
    };
    let entry: &[File] = match variant.form.stays {
        true => wgsl!["shared/reduce_tables", "reduce_staying"],
        false => wgsl!["shared/reduce_tables", "shared/reduce_entry"],
    };
    read(&[power, &sums_of_chunks(variant), entry].concat())
}

pub(super) fn reduce_short(variant: &Variant) -> Vec<File> {
    let own: &[File] = match variant.form.loads {
        Loads::Few => wgsl!["shared/seen", "shared/single", "shared/short_each"],
        _ => wgsl!["shared/quads_of_chunk", "shared/short_quads"],
    };
    let all = wgsl!["shared/reduce_tables", "shared/chunk", "shared/teams", "reduce_short"];
    read(&[&quads(variant)[..], own, all].concat())
}

pub(super) fn reduce_units(variant: &Variant) -> Vec<File> {
    let own: &[File] = match variant.form.loads {
        _ if is_any_p(variant.summation) => wgsl!["shared/power", "shared/unit_power", "shared/units_alone"],
        Loads::Few => {
            wgsl!["shared/column", "shared/single", "shared/unit_integer", "shared/units_alone"]
        }
        _ => wgsl!["shared/column", "shared/teams", "shared/units_by_teams"],
    };
    read(&[&quads(variant)[..], own, wgsl!["reduce_units"]].concat())
}

/// What reads gradients.
fn read(own: &[File]) -> Vec<File> {
    let all = wgsl!["shared/unscale", "shared/largest", "shared/grid"];
    [NUMBERS, all, own].concat()
}

/// How a workgroup adds up a chunk, and where the kernel does not say otherwise, what it does with it.
pub(super) fn sums_of_chunks(variant: &Variant) -> Vec<File> {
    let any_p = is_any_p(variant.summation);
    let own: &[File] = match variant.form.loads {
        Loads::Few if any_p => wgsl!["shared/chunk", "shared/power_each", "reduce_power"],
        _ if any_p => {
            wgsl!["shared/chunk", "shared/quads_of_chunk", "shared/power_quads", "reduce_power"]
        }
        Loads::Few => {
            wgsl![
                "shared/chunk",
                "shared/chunk_sum",
                "shared/column",
                "shared/columns",
                "shared/columns_read",
                "shared/column_sums",
                "reduce"
            ]
        }
        _ if variant.form.stays => wgsl!["shared/chunk_sum", "shared/blocks", "shared/block_sums"],
        _ => wgsl!["shared/chunk_sum", "shared/blocks", "shared/block_sums", "reduce_blocks"],
    };
    let read = match variant.form.loads {
        Loads::Few => Vec::new(),
        _ if any_p => quads(variant),
        loads => blocks(variant.dtype, loads),
    };
    [&read[..], own].concat()
}

/// Sums of items.
pub(super) fn combine(variant: &Variant, own: &[File]) -> Vec<File> {
    let items: &[File] = match is_any_p(variant.summation) {
        true => {
            wgsl!["shared/fields", "shared/power", "shared/lanes", "shared/combine", "shared/combine_power"]
        }
        false => wgsl!["shared/wide", "shared/limbs", "shared/combine", "shared/combine_integer"],
    };
    [items, wgsl!["shared/combine_grid", "shared/grid"], own].concat()
}

/// What follows from the sums of a segment.
pub(super) fn decide(own: &[File]) -> Vec<File> {
    let all = wgsl!["shared/decide", "shared/unscale", "shared/leaves", "shared/step", "shared/grid"];
    [NUMBERS, all, own].concat()
}

/// The sum that a norm has.
pub(super) fn given() -> Vec<File> {
    [NUMBERS, wgsl!["given"]].concat()
}

/// Whether a step is left out.
pub(super) fn skip() -> Vec<File> {
    let all = wgsl!["shared/decide", "shared/unscale", "shared/leaves", "shared/float", "skip"];
    [NUMBERS, all].concat()
}

pub(super) fn threshold(variant: &Variant) -> Vec<File> {
    let own = wgsl!["shared/float", "shared/limbs", "threshold"];
    [decide(own), thresholds(variant)].concat()
}

/// The frame of thresholds that adapt, and the part of a rule.
pub(super) fn thresholds(variant: &Variant) -> Vec<File> {
    let rule: &[File] = match variant.adapt {
        ADAPT_MEAN => wgsl!["shared/window_mean", "shared/threshold_mean"],
        ADAPT_PERCENTILE => wgsl!["shared/threshold_percentile"],
        ADAPT_ZSCORE => wgsl!["shared/window_mean", "shared/threshold_zscore"],
        ADAPT_AVERAGE => wgsl!["shared/found_nothing", "shared/averaged", "shared/threshold_average"],
        ADAPT_ADAGC => wgsl!["shared/found_nothing", "shared/averaged", "shared/threshold_adagc"],
        ADAPT_AGGC => wgsl!["shared/found_nothing", "shared/threshold_aggc"],
        ADAPT_NOISY_QUANTILE => {
            let rule =
                wgsl!["shared/found_nothing", "shared/follows_quantile", "shared/threshold_noisy_quantile"];
            return [NOISE, wgsl!["shared/thresholds"], rule].concat();
        }
        _ => wgsl!["shared/found_nothing", "shared/follows_quantile", "shared/threshold_quantile"],
    };
    [wgsl!["shared/thresholds"], rule].concat()
}

pub(super) fn advance(_: &Variant) -> Vec<File> {
    [NUMBERS, wgsl!["shared/float", "shared/complement", "shared/advances", "advance"]].concat()
}

/// What optimisers correct beyond Adam.
pub(super) fn correct(own: &[File]) -> Vec<File> {
    [NUMBERS, wgsl!["shared/float", "shared/correct"], own].concat()
}

/// What numbers the rows that a sparse gradient names.
pub(super) fn coalesce(own: &[File]) -> Vec<File> {
    [wgsl!["shared/grid"], own].concat()
}

/// What knows of sums of duplicates.
pub(super) fn duplicates(own: &[File]) -> Vec<File> {
    [NUMBERS, wgsl!["shared/duplicates"], &coalesce(own)].concat()
}

/// What adds entries of a sparse gradient.
pub(super) fn add_entries(own: &[File]) -> Vec<File> {
    duplicates(&[wgsl!["shared/entries"], own].concat())
}

/// What adds parts of long lists.
pub(super) fn add_long_lists(own: &[File]) -> Vec<File> {
    add_entries(&[wgsl!["shared/long_sum", "shared/long_lists", "shared/long_blocks"], own].concat())
}

/// What writes gradients.
pub(super) fn write(own: &[File]) -> Vec<File> {
    [NUMBERS, wgsl!["shared/apply", "shared/grid"], own].concat()
}

pub(super) fn apply(variant: &Variant) -> Vec<File> {
    let own: &[File] = match variant.form.loads {
        Loads::Few => wgsl!["shared/run", "shared/apply_words"],
        Loads::Words => wgsl!["shared/sixteen", "shared/apply_sixteen"],
        Loads::Vectors => wgsl!["shared/apply_vectors"],
    };
    write(&[vectors(variant), own, wgsl!["apply"]].concat())
}

pub(super) fn apply_units(variant: &Variant) -> Vec<File> {
    let own: &[File] = match variant.form.loads {
        Loads::Few => wgsl!["shared/run", "shared/apply_units_each"],
        _ => wgsl!["shared/sixteen", "shared/apply_units_sixteen"],
    };
    write(&[vectors(variant), own, wgsl!["apply_units"]].concat())
}

/// Tables of kernels over gradients with the tensors updated with them.
pub(super) fn fused_bindings(variant: &Variant) -> Vec<Binding> {
    use Binding::{Read, Uniform};
    let of_rows: &[Binding] = if variant.pattern.is_by_rows() { &[Read, Uniform] } else { &[] };
    [&[Uniform, Uniform, Uniform, Read, Read, Read], of_rows].concat()
}

/// Gradients with the tensors updated with them.
pub(super) fn fused(variant: &Variant, own: &[File]) -> Vec<File> {
    let single = variant.pattern.precision() == Precision::Single;
    let turns: &[File] = match (variant.form.loads, single) {
        _ if variant.pattern.is_by_rows() => wgsl!["shared/fused_rows"],
        (Loads::Few, true) => wgsl!["shared/fused_each"],
        (Loads::Few, false) => wgsl!["shared/fused_pairs"],
        (_, true) => wgsl!["shared/four", "shared/turns_apart", "shared/fused_four"],
        (_, false) => wgsl!["shared/four", "shared/turns_of_pairs", "shared/fused_four"],
    };
    write(&[wgsl!["shared/finite", "shared/chunk_rows", "shared/fused"], own, turns].concat())
}

/// Gradients with the parameters that they move, and the state that belongs to these.
pub(super) fn update(variant: &Variant, own: &[File]) -> Vec<File> {
    fused(variant, &[wgsl!["shared/update"], parameters(variant), own].concat())
}

/// The same read alone, and added up by chunks.
pub(super) fn measure(variant: &Variant, own: &[File]) -> Vec<File> {
    let turns: &[File] = match variant.form.loads {
        Loads::Few => wgsl!["shared/measure_each"],
        _ => wgsl!["shared/four", "shared/measure_four"],
    };
    let sums =
        wgsl!["shared/chunk_sum", "shared/column", "shared/columns", "shared/column_sums", "shared/measure"];
    let fused = wgsl!["shared/finite", "shared/measured_rows", "shared/fused", "shared/update"];
    write(&[fused, parameters(variant), own, turns, sums].concat())
}

/// What follows from the sums of that.
pub(super) fn ratio() -> Vec<File> {
    [NUMBERS, wgsl!["shared/grid", "ratio"]].concat()
}

/// How a parameter is kept.
fn parameters(variant: &Variant) -> &'static [File] {
    match variant.pattern.precision() {
        Precision::Single => wgsl!["shared/parameter_single"],
        Precision::Mixed(DType::F16) => {
            wgsl!["shared/halves", "shared/parameter_f16", "shared/parameter_mixed"]
        }
        Precision::Mixed(_) => wgsl!["shared/halves", "shared/parameter_bf16", "shared/parameter_mixed"],
        Precision::Stochastic => {
            wgsl!["shared/halves", "shared/parameter_bf16", "shared/threefry", "shared/parameter_stochastic"]
        }
    }
}

/// Sums over examples of what outcomes leave of gradients.
pub(super) fn private_sum(_: &Variant) -> Vec<File> {
    write(wgsl!["shared/wide64", "private_sum"])
}

/// Sums over examples with noise.
pub(super) fn private_release(_: &Variant) -> Vec<File> {
    write(&[NOISE, wgsl!["shared/float", "private_release"]].concat())
}

/// What elements are.
pub(super) fn elements(dtype: DType) -> &'static [File] {
    match dtype {
        // There is no plan with f64.
        DType::F32 | DType::F64 => wgsl!["shared/dtype_f32"],
        DType::F16 => wgsl!["shared/dtype_half", "shared/f16"],
        DType::Bf16 => wgsl!["shared/dtype_half", "shared/bf16"],
    }
}

/// What an outcome does to one word of gradients.
pub(super) fn applied_elements(dtype: DType) -> &'static [File] {
    match dtype {
        DType::F32 | DType::F64 => wgsl!["shared/applied_f32"],
        DType::F16 | DType::Bf16 => wgsl!["shared/applied_half"],
    }
}

/// How blocks of elements are read, and what they are.
fn blocks(dtype: DType, loads: Loads) -> Vec<File> {
    let access: &[File] = match (dtype.size(), loads) {
        (4, Loads::Vectors) => wgsl!["shared/access_f32_vectors", "shared/access_vectors"],
        (4, _) => wgsl!["shared/access_f32_words"],
        (_, Loads::Vectors) => wgsl!["shared/access_half_vectors", "shared/access_vectors"],
        _ => wgsl!["shared/access_half_words"],
    };
    let own: &[File] = match dtype {
        DType::F32 | DType::F64 => wgsl!["shared/block_f32", "shared/block_conversion"],
        DType::Bf16 => wgsl!["shared/block_bf16", "shared/block_conversion"],
        DType::F16 => wgsl!["shared/f16_bits", "shared/block_f16"],
    };
    [access, own].concat()
}

/// What vectors of elements are where floats are multiplied by vectors.
fn vectors(variant: &Variant) -> &'static [File] {
    match variant.dtype {
        _ if variant.form.loads == Loads::Few => &[],
        DType::F32 | DType::F64 => wgsl!["shared/vector_f32"],
        DType::Bf16 => wgsl!["shared/vector_bf16"],
        DType::F16 => wgsl!["shared/f16_bits", "shared/vector_f16"],
    }
}

/// Sixteen elements in flight, each by its own word, and what they are, where loads are not few.
fn quads(variant: &Variant) -> Vec<File> {
    let own: &[File] = match variant.dtype {
        _ if variant.form.loads == Loads::Few => return Vec::new(),
        DType::F32 | DType::F64 => wgsl!["shared/quad_f32"],
        DType::Bf16 => wgsl!["shared/quad_bf16"],
        DType::F16 => wgsl!["shared/f16_bits", "shared/quad_f16"],
    };
    [wgsl!["shared/seen", "shared/single", "shared/quads"], own].concat()
}
