//! What is decided with, limit by limit: the record that the kernel reads.

use super::Segments;
use crate::clip::{Clip, NonFinite, Rule};
use crate::layout::{
    POLICY_KEEP, POLICY_NAN, POLICY_SANITIZE, POLICY_SKIP, POLICY_ZERO, RULE_AGC, RULE_FREE, RULE_NORM,
    RULE_NORMALIZE, RULE_SIGN, RULE_VALUE, Setting,
};

impl Segments {
    /// The settings of all limits, that of the whole set last.
    pub(crate) fn settings(&self, clip: &Clip, thresholds: &[f64]) -> Vec<Setting> {
        let mut settings = Vec::new();
        self.settings_into(clip, thresholds, &mut settings);
        settings
    }

    /// The same, in the place of what was there.
    pub(crate) fn settings_into(&self, clip: &Clip, thresholds: &[f64], settings: &mut Vec<Setting>) {
        settings.clear();
        settings.extend(self.limits.iter().zip(thresholds).map(|(limit, &threshold)| match limit.excluded {
            // Measured and unscaled, whatever the rule.
            true => Setting {
                policy: POLICY_SKIP,
                rule: RULE_FREE,
                total: 0,
                below: 0,
                ..setting(clip, f64::INFINITY, limit.elements)
            },
            false => setting(clip, threshold, limit.elements),
        }));
        if self.total {
            let plain = Clip { rule: Rule::Norm, ..*clip };
            settings.push(Setting { total: 0, ..setting(&plain, clip.total.unwrap_or(f64::INFINITY), 1) });
        }
    }
}

fn setting(clip: &Clip, threshold: f64, elements: u64) -> Setting {
    // Elements are limited by value and sign, not norms.
    let below = clip.is_never_above() && !matches!(clip.rule, Rule::Value | Rule::Sign);
    let (threshold, lift) = limit_of(clip, threshold, elements, below);
    let eps = |eps: f64| eps.abs() as f32;
    Setting {
        threshold,
        lift,
        unscale: clip.unscale as f32,
        eps: eps(clip.eps),
        floor: if let Rule::Agc { eps: floor } = clip.rule { eps(floor) } else { 0.0 },
        policy: match clip.non_finite {
            NonFinite::Skip => POLICY_SKIP,
            NonFinite::Zero => POLICY_ZERO,
            NonFinite::Sanitize => POLICY_SANITIZE,
            NonFinite::Nan => POLICY_NAN,
            NonFinite::Keep => POLICY_KEEP,
        },
        rule: match clip.rule {
            Rule::Norm | Rule::Rms | Rule::Average => RULE_NORM,
            Rule::Value => RULE_VALUE,
            Rule::Agc { .. } => RULE_AGC,
            Rule::Sign => RULE_SIGN,
            Rule::Normalize => RULE_NORMALIZE,
        },
        total: clip.limits_total().into(),
        below: below.into(),
        raised: 0.0,
    }
}

/// The largest norm allowed, and the power of two that it is to be multiplied by: a mean over many
/// elements may allow a norm above `f32::MAX`, which an `f64` holds.
fn limit_of(clip: &Clip, threshold: f64, elements: u64, below: bool) -> (f32, i32) {
    let n = elements.max(1) as f64;
    // -0 passes validation, and compares as a huge integer.
    let limit = match clip.rule {
        Rule::Rms => threshold.abs() * n.sqrt(),
        Rule::Average => threshold.abs() * n,
        _ => threshold.abs(),
    };
    if limit > f64::from(f32::MAX) * 2f64.powi(64) {
        // No norm is that large: elements are fewer than 2^64.
        return (f32::INFINITY, 0);
    }
    // Histories hold no norm above f32::MAX.
    let limit = if clip.adapt.is_some() { limit.min(f32::MAX.into()) } else { limit };
    let lift = if limit > f64::from(f32::MAX) { 64 } else { 0 };
    let (exact, scaled) = (limit == threshold.abs(), limit / 2f64.powi(lift));
    let nearest = scaled as f32;
    if !below {
        return (nearest, lift);
    }
    // Root and product of an f64 are off by less than two units of its last place.
    let least = if exact { scaled } else { scaled * (1.0 - 2.0 * f64::EPSILON) };
    (if f64::from(nearest) > least { nearest.next_down() } else { nearest }, lift)
}
