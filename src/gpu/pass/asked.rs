//! What can be changed between steps.

use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// What is asked now, which setters may change from any thread.
#[derive(Debug)]
pub(super) struct Current(Mutex<Asked>);

impl Current {
    pub(super) fn new(asked: Asked) -> Current {
        Current(Mutex::new(asked))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Asked> {
        // A thread that panicked while holding the lock left a whole value behind: it is replaced by assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
