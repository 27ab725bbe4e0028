//! What lies between gradients and outcomes, kept from step to step: sets of one form allocate it once.

use std::ops::Range;

use bytemuck::Zeroable;

use crate::clip::{Clip, Summation};
use crate::history::History;
use crate::layout::{Outcome, Partial, Progress, Setting, Sum};
use crate::report::{self, Report};
use crate::segments::Segments;
use crate::tensor::TensorInfo;

use super::block::Values;
use super::partials::{On, Reduction};
use super::sources::{Given, Source, sources};
use super::stages;
use super::unit_sums::Units;

/// The records of every stage, and how the work is cut.
#[derive(Debug)]
pub(super) struct Workspace {
    sources: Vec<Source>,
    /// The partials of each tensor, then of each parameter.
    own: Vec<Range<usize>>,
    reduction: Reduction,
    /// Whether every record of every segment is asked for.
    pub(super) traced: bool,
    pub(super) partials: Vec<Partial>,
    blocks: Vec<Sum>,
    pub(super) tensor_sums: Vec<Sum>,
    pub(super) segment_sums: Vec<Sum>,
    settings: Vec<Setting>,
    pub(super) outcomes: Vec<Outcome>,
}

impl Workspace {
    pub(super) fn new(infos: &[TensorInfo], parts: &Segments) -> Workspace {
        let sources = sources(infos, parts);
        let mut own = vec![0..0; sources.len()];
        sources.iter().for_each(|s| own[s.number] = s.partials.clone());
        let reduction = Reduction::new(&sources, parts);
        Workspace {
            partials: vec![Partial::zeroed(); reduction.count],
            sources,
            own,
            reduction,
            traced: false,
            blocks: Vec::new(),
            tensor_sums: Vec::new(),
            segment_sums: Vec::new(),
            settings: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// Norms, thresholds and coefficients: everything before something uses them. `thresholds` are one a limit.
    pub(super) fn decide(
        &mut self,
        tensors: &[Values<'_>],
        parameters: &[Values<'_>],
        parts: &Segments,
        (clip, thresholds): (&Clip, &[f64]),
        history: &mut History,
    ) {
        let Workspace { sources, own, reduction, partials, blocks, tensor_sums, .. } = self;
        let summation = Summation::from(clip.norm);
        // As the device has it: the product of two f32, which an infinity would make of every element.
        let Progress { unscale, mean_correction, .. } = history.progress;
        let unscale = (clip.unscale as f32 * unscale).min(f32::MAX);
        let unscale = (unscale * mean_correction).min(f32::MAX);
        let given = Given::new(tensors, parameters, unscale);
        reduction.run(On { parts, given, summation }, partials);
        stages::tensor_sums(own, partials, parts, summation, blocks, tensor_sums);
        let direct = !self.traced && stages::direct(parts, history, summation);
        let units = || Units::all(sources, partials, parts, summation);
        stages::segment_sums(units(), direct, tensor_sums, parts, summation, &mut self.segment_sums);
        let clip = Clip { unscale: unscale.into(), ..*clip };
        parts.settings_into(&clip, thresholds, &mut self.settings);
        stages::thresholds(history, parts, &self.settings, &self.segment_sums, summation);
        let sums = (&self.segment_sums[..], units().filter(|_| direct));
        stages::outcomes(history, parts, &self.settings, sums, summation, &mut self.outcomes);
    }

    /// What the last step measured and did. `lr` is its learning rate, if it had one.
    pub(super) fn report(
        &self,
        infos: &[TensorInfo],
        parts: &Segments,
        clip: &Clip,
        history: &History,
        lr: Option<f32>,
    ) -> Report {
        let (sums, outcomes) = (&self.tensor_sums, self.reported(parts));
        let report = report::report(clip, infos, parts, sums, outcomes, &history.tally);
        report.advanced(clip, &history.progress, lr)
    }

    /// Those of which a report tells: of units and rows only the whole set.
    pub(super) fn reported(&self, parts: &Segments) -> &[Outcome] {
        let first = if parts.cut() { parts.count as usize } else { 0 };
        // None before the first step.
        self.outcomes.get(first..).unwrap_or_default()
    }
}
