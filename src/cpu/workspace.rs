//! What lies between gradients and outcomes, kept from step to step: sets of one form allocate it once.

use std::ops::Range;

use bytemuck::Zeroable;

use crate::clip::{Clip, Summation};
use crate::history::History;
use crate::layout::{Outcome, Partial, Progress, Setting, Sum};
use crate::norm::sum_of_norm;
use crate::report::{self, Report};
use crate::segments::{Limit, Segments};
use crate::tensor::TensorInfo;

use super::block::{Block, Values};
use super::blockwise::{Piece, Rows};
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
    /// What is clipped block by block, and in no other stage.
    rows: Vec<Rows>,
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
    /// For outcomes that something else reads.
    pub(super) fn new(infos: &[TensorInfo], parts: &Segments) -> Workspace {
        Workspace::with(sources(infos, parts), Vec::new(), parts)
    }

    /// For gradients that are clipped in place at once.
    pub(super) fn in_place(infos: &[TensorInfo], parts: &Segments, clip: &Clip) -> Workspace {
        let mut sources = sources(infos, parts);
        let rows = match stages::direct(parts, clip, clip.norm.into()) {
            true => Rows::taken_from(&mut sources, parts),
            false => Vec::new(),
        };
        let mut first = 0;
        for source in &mut sources {
            source.partials = first..first + source.partials.len();
            first = source.partials.end;
        }
        Workspace::with(sources, rows, parts)
    }

    fn with(sources: Vec<Source>, rows: Vec<Rows>, parts: &Segments) -> Workspace {
        // Of numbers: tensors, then parameters.
        let numbers = parts.owners.len() * if parts.parameters { 2 } else { 1 };
        let mut own = vec![0..0; numbers];
        sources.iter().for_each(|s| own[s.number] = s.partials.clone());
        let reduction = Reduction::new(&sources, parts);
        Workspace {
            partials: vec![Partial::zeroed(); reduction.count],
            sources,
            own,
            reduction,
            rows,
            traced: false,
            blocks: Vec::new(),
            tensor_sums: Vec::new(),
            segment_sums: Vec::new(),
            settings: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// From here on every record of every segment is kept: something else reads them, or puts others there.
    pub(super) fn whole_records(&mut self, infos: &[TensorInfo], parts: &Segments) {
        if !self.rows.is_empty() {
            *self = Workspace::new(infos, parts);
        }
        self.traced = true;
    }

    /// Norms, thresholds and coefficients: everything before something uses them, of all but rows that are clipped block by block.
    /// `thresholds` are one a limit.
    pub(super) fn decide(
        &mut self,
        tensors: &[Values<'_>],
        parameters: &[Values<'_>],
        parts: &Segments,
        (clip, thresholds): (&Clip, &[f64]),
        history: &mut History,
    ) {
        self.measure(tensors, parameters, parts, clip, history);
        self.conclude(parts, (clip, thresholds), history);
    }

    /// The norm half: all sums.
    pub(super) fn measure(
        &mut self,
        tensors: &[Values<'_>],
        parameters: &[Values<'_>],
        parts: &Segments,
        clip: &Clip,
        history: &History,
    ) {
        let direct = self.decides_directly(parts, clip);
        let Workspace { sources, own, reduction, partials, blocks, tensor_sums, .. } = self;
        let summation = Summation::from(clip.norm);
        if !clip.use_norm {
            let given = Given::new(tensors, parameters, unscale_of(clip, history));
            reduction.run(On { parts, given, summation }, partials);
        }
        stages::tensor_sums(own, partials, parts, summation, blocks, tensor_sums);
        let units = Units::all(sources, partials, parts, summation);
        stages::segment_sums(units, direct, tensor_sums, parts, summation, &mut self.segment_sums);
        if let (true, Some(sum)) = (clip.use_norm, self.segment_sums.first_mut()) {
            *sum = sum_of_norm(history.inputs.norm, summation);
        }
    }

    /// What follows from the sums, whoever put them there.
    pub(super) fn conclude(
        &mut self,
        parts: &Segments,
        (clip, thresholds): (&Clip, &[f64]),
        history: &mut History,
    ) {
        let direct = self.decides_directly(parts, clip);
        let Workspace { sources, rows, partials, .. } = self;
        let summation = Summation::from(clip.norm);
        let clip = Clip { unscale: unscale_of(clip, history).into(), ..*clip };
        parts.settings_into(&clip, thresholds, &mut self.settings);
        if clip.skip.is_some() {
            stages::judge(history, parts, &mut self.settings, &self.segment_sums, summation);
        }
        stages::thresholds(history, parts, &self.settings, &self.segment_sums, summation);
        let units = Units::all(sources, partials, parts, summation).filter(|_| direct);
        let sums = (&self.segment_sums[..], units);
        let elsewhere = |limit: &Limit| rows.iter().any(|rows| rows.are_of(limit, parts));
        stages::outcomes(history, parts, &self.settings, sums, summation, elsewhere, &mut self.outcomes);
        if rows.is_empty() {
            stages::count_step(&mut history.tally);
        }
    }

    /// Whether units are decided from their partials at once, and have no sums.
    fn decides_directly(&self, parts: &Segments, clip: &Clip) -> bool {
        !self.traced && stages::direct(parts, clip, clip.norm.into())
    }

    /// Clips what is clipped block by block, once the rest is decided. `pieces` is room for the blocks.
    pub(super) fn clip_rows(
        &mut self,
        blocks: &mut [Block<'_>],
        (parts, summation): (&Segments, Summation),
        history: &mut History,
        pieces: &mut Vec<Piece<'static>>,
    ) {
        let Workspace { rows, settings, tensor_sums, .. } = self;
        for rows in &*rows {
            let counted = rows.clip(blocks, settings, (parts, summation), pieces, tensor_sums);
            stages::count(&mut history.tally, counted);
        }
        if !rows.is_empty() {
            stages::count_step(&mut history.tally);
        }
    }

    /// Whether a tensor is clipped by [`Workspace::clip_rows`].
    pub(super) fn clips(&self, tensor: usize) -> bool {
        self.rows.iter().any(|rows| rows.has(tensor))
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

/// What gradients are multiplied by in the next step. As the device has it: the product of two f32, which an infinity would make of every
/// element.
fn unscale_of(clip: &Clip, history: &History) -> f32 {
    let Progress { unscale, mean_correction, .. } = history.progress;
    let unscale = (clip.unscale as f32 * unscale).min(f32::MAX);
    (unscale * mean_correction).min(f32::MAX)
}
