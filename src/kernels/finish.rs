//! The kernel that does what several others do, of small sets: put together from their parts.

use crate::clip::Kind;
use crate::layout::{ADAPT_MEAN, ADAPT_NONE, ADAPT_PERCENTILE, ADAPT_ZSCORE};

use super::kernel::Kernel;
use super::variant::Variant;

/// The files that make it.
pub(super) fn parts(variant: &Variant) -> Vec<&'static str> {
    let numbers: &[&str] = wgsl!["shared/wide", "shared/element", "shared/real", "shared/limbs"];
    let combining: &[&str] = match variant.kind {
        Kind::P(_) => wgsl!["shared/power", "shared/lanes", "shared/combine", "shared/combine_power"],
        _ => wgsl!["shared/combine", "shared/combine_integer"],
    };
    let deciding: &[&str] =
        wgsl!["shared/partial_item", "shared/decide", "shared/unscale", "shared/step", "shared/outcomes",];
    let float: &[&str] =
        if variant.adapt != ADAPT_NONE || variant.advances { wgsl!["shared/float"] } else { &[] };
    let adapting: &[&str] = match variant.adapt {
        ADAPT_NONE => wgsl!["shared/fixed", "shared/finish_fixed"],
        ADAPT_MEAN | ADAPT_PERCENTILE | ADAPT_ZSCORE => {
            wgsl!["shared/adapting", "shared/thresholds", "shared/finish_window"]
        }
        _ => wgsl!["shared/adapting", "shared/thresholds", "shared/finish_limits"],
    };
    let advancing: &[&str] = match variant.advances {
        true => wgsl!["shared/advances", "shared/finish_advances"],
        false => wgsl!["shared/finish_stays"],
    };
    let only: &[&str] = match variant.kernel {
        Kernel::ReduceFinish => &[],
        _ => wgsl!["shared/finish_partials"],
    };
    [numbers, combining, deciding, float, adapting, advancing, only, wgsl!["finish"]].concat()
}
