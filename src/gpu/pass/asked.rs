//! What can be changed between steps.

use crate::clip::Clip;
use crate::layout::{JobSetting, NONE, Setting};
use crate::real::largest_unscaled;
use crate::segments::Segments;

/// All that setters change, of which the settings on the device are a pure function.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    /// As prepared, but for its unscale factor and total.
    pub(super) clip: Clip,
    /// One a limit.
    pub(super) thresholds: Vec<f64>,
    /// Rows that are clipped, where not all are.
    pub(super) rows: Option<u32>,
}

impl Asked {
    pub(super) fn new(clip: &Clip, parts: &Segments) -> Asked {
        Asked { clip: *clip, thresholds: parts.thresholds(clip), rows: None }
    }

    /// One a limit, that of the whole set last; and what the jobs of single dispatches need.
    pub(super) fn settings(&self, parts: &Segments) -> (Vec<Setting>, JobSetting) {
        let until = self.rows.map_or(NONE, |rows| parts.rows().0 + rows);
        let unscale = self.clip.unscale as f32;
        let job = JobSetting { until, unscale: unscale.to_bits(), largest: largest_unscaled(unscale) };
        (parts.settings(&self.clip, &self.thresholds), job)
    }
}
