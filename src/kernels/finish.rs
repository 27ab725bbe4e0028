//! The kernel that does what several others do, of small sets: put together from their parts.

use crate::layout::{ADAPT_MEAN, ADAPT_NONE, ADAPT_PERCENTILE, ADAPT_ZSCORE};

use super::form::is_any_p;
use super::kernel::{Binding, File, Kernel};
use super::parts::{NUMBERS, sums_of_chunks, thresholds};
use super::variant::Variant;

/// Its bindings of group 0: states and norms last, where thresholds adapt.
pub(super) fn bindings(variant: &Variant) -> Vec<Binding> {
    use Binding::{Read, ReadWrite, Uniform};
    let partials = if variant.kernel == Kernel::ReduceFinish { ReadWrite } else { Read };
    let mut all =
        vec![Uniform, Uniform, Uniform, Read, partials, ReadWrite, ReadWrite, Read, ReadWrite, ReadWrite];
    all.push(if variant.advances { ReadWrite } else { Uniform });
    if variant.adapt != ADAPT_NONE {
        all.extend([ReadWrite, ReadWrite]);
    }
    all
}

pub(super) fn parts(variant: &Variant) -> Vec<File> {
    let combining: &[File] = match is_any_p(variant.summation) {
        true => wgsl!["shared/power", "shared/lanes", "shared/combine", "shared/combine_power"],
        false => wgsl!["shared/combine", "shared/combine_integer"],
    };
    let float: &[File] =
        if variant.adapt != ADAPT_NONE || variant.advances { wgsl!["shared/float"] } else { &[] };
    let advancing: &[File] = match variant.advances {
        true => wgsl!["shared/complement", "shared/advances", "shared/finish_advances"],
        false => wgsl!["shared/finish_stays"],
    };
    let only: &[File] = match variant.kernel {
        Kernel::ReduceFinish => &[],
        _ => wgsl!["shared/finish_partials"],
    };
    let deciding = wgsl![
        "shared/partial_item",
        "shared/decide",
        "shared/unscale",
        "shared/leaves",
        "shared/step",
        "shared/outcomes"
    ];
    [
        NUMBERS,
        wgsl!["shared/limbs"],
        combining,
        deciding,
        float,
        &adapting(variant),
        advancing,
        only,
        wgsl!["finish"],
    ]
    .concat()
}

fn adapting(variant: &Variant) -> Vec<File> {
    let own: &[File] = match variant.adapt {
        ADAPT_NONE => return wgsl!["shared/fixed", "shared/finish_fixed"].to_vec(),
        ADAPT_MEAN | ADAPT_PERCENTILE | ADAPT_ZSCORE => wgsl!["shared/adapting", "shared/finish_window"],
        _ => wgsl!["shared/adapting", "shared/finish_limits"],
    };
    [&thresholds(variant)[..], own].concat()
}

/// With the sum of the only chunk before it.
pub(super) fn with_sum_of_chunk(variant: &Variant) -> Vec<File> {
    let all = wgsl!["shared/largest", "reduce_finish"];
    [&parts(variant)[..], &sums_of_chunks(variant), all].concat()
}
