//! Prepared passes, kept for as long as Burn puts the gradients where it did before.

use gradclip::{Clip, DType, Grad, Group, wgpu};

use crate::error::Error;
use crate::prepared::Prepared;
use crate::units::{self, OutputAxes, Parameter};

/// Where one gradient lies, and what else a prepared pass depends on.
#[derive(Clone, PartialEq)]
pub(crate) struct Place {
    pub(crate) path: String,
    /// Of the parameter, as Burn numbers them.
    pub(crate) id: u64,
    /// The kind of module that the parameter is a field of, such as `Linear`.
    pub(crate) module: String,
    pub(crate) shape: Box<[u64]>,
    pub(crate) gradient: Range,
    pub(crate) parameter: Option<Range>,
}

impl Place {
    /// As rules by kind see it.
    pub(crate) fn parameter_of(&self) -> Parameter<'_> {
        Parameter { path: &self.path, module: &self.module, shape: &self.shape }
    }
}

/// Part of a buffer.
#[derive(Clone, PartialEq)]
pub(crate) struct Range {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) offset: u64,
    pub(crate) dtype: DType,
}

/// Says which group the parameter of a path is in.
pub(crate) type Groups = Box<dyn Fn(&str) -> Option<Group> + Send + Sync>;

/// Says how fast the parameter moves.
pub(crate) type RatesOf = Box<dyn Fn(&Parameter<'_>) -> Rates + Send + Sync>;

/// How a parameter moves that is unlike the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Factor of the learning rate, 0 or more; 1 unless set.
    pub lr: f64,
    /// Weight decay in place of the optimiser's.
    pub weight_decay: Option<f64>,
}

/// Those of the optimiser.
impl Default for Rates {
    fn default() -> Rates {
        Rates { lr: 1.0, weight_decay: None }
    }
}

/// How often passes were prepared and found, and tensors copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls that found a prepared pass for the places where Burn had put the gradients.
    pub reused: u64,
    /// Calls that prepared one.
    pub prepared: u64,
    /// Gradients that were copied first: shared with another tensor, not contiguous, or expanded.
    pub copied: u64,
    /// Parameters that a step copied first, since something else saw them.
    pub copied_parameters: u64,
}

/// What was prepared for the last few placements.
pub(crate) struct Passes<P: Prepared> {
    clipper: gradclip::Clipper,
    pub(crate) clip: Clip,
    pub(crate) asked: P::Asked,
    pub(crate) groups: Option<Groups>,
    pub(crate) output_axes: Option<OutputAxes>,
    rates: Option<RatesOf>,
    latest: Option<Placed<P>>,
    /// Used before that, the newest last.
    older: Vec<Placed<P>>,
    most: usize,
    /// Whether the latest pass is of another clip: it only hands its history on.
    outdated: bool,
    /// The clip of the latest pass, and whether groups were the same: see [`Passes::remembering`].
    latest_clip: Clip,
    regrouped: bool,
    pub(crate) counts: Counts,
}

type Placed<P> = (Vec<Place>, P);

/// What was saved and is to be gone on from, and where it is written.
pub(crate) type Restored<'a, P> = Option<(&'a <P as Prepared>::Saved, &'a wgpu::Queue)>;

impl<P: Prepared> Passes<P> {
    pub(crate) fn new(clipper: gradclip::Clipper, clip: Clip, asked: P::Asked, most: usize) -> Passes<P> {
        Passes {
            clipper,
            clip,
            asked,
            groups: None,
            output_axes: None,
            rates: None,
            latest: None,
            older: Vec::new(),
            most,
            outdated: false,
            latest_clip: clip,
            regrouped: false,
            counts: Counts::default(),
        }
    }

    /// That of the latest call.
    pub(crate) fn latest(&self) -> Option<&P> {
        self.latest.as_ref().map(|(_, pass)| pass)
    }

    /// Where the gradients of the latest call lay.
    pub(crate) fn places(&self) -> &[Place] {
        self.latest.as_ref().map_or(&[], |(places, _)| places)
    }

    /// The pass whose history the next call goes on with. Known before the next is prepared: until then the loss
    /// scale has to be that of the next call.
    pub(crate) fn remembering(&self) -> Option<&P> {
        let (old, new) = (&self.latest_clip, &self.clip);
        let same_scaling = old.loss_scale.is_some() == new.loss_scale.is_some();
        // Other scopes and groups may be another number of adaptive thresholds.
        let same_limits = new.adapt.is_none() || (old.scope == new.scope && !self.regrouped);
        let same = old.adapt == new.adapt && same_scaling && same_limits;
        self.latest().filter(|_| same || !P::MAY_BEGIN_ANEW)
    }

    /// Those that the next call may find.
    pub(crate) fn current(&self) -> impl Iterator<Item = &P> {
        let latest = self.latest.as_ref().filter(|_| !self.outdated);
        self.older.iter().chain(latest).map(|(_, pass)| pass)
    }

    /// From here on passes have to be prepared anew.
    pub(crate) fn outdate(&mut self) {
        self.older.clear();
        self.outdated = true;
    }

    pub(crate) fn set_groups(&mut self, groups: Groups) {
        self.groups = Some(groups);
        self.regrouped = true;
        self.outdate();
    }

    pub(crate) fn set_output_axes(&mut self, output_axes: OutputAxes) {
        self.output_axes = Some(output_axes);
        self.regrouped = true;
        self.outdate();
    }

    pub(crate) fn set_rates(&mut self, rates: RatesOf) {
        self.rates = Some(rates);
        self.outdate();
    }

    pub(crate) fn set_clip(&mut self, clip: Clip) {
        self.clip = clip;
        self.outdate();
    }

    /// The pass for these places: one that was prepared, or a new one that goes on where the latest is, or from
    /// what was saved on.
    ///
    /// # Errors
    ///
    /// What cannot be prepared, a history of another clip. The latest pass is then the one it was.
    pub(crate) fn pass_for(&mut self, places: Vec<Place>, restored: Restored<'_, P>) -> Result<&P, Error> {
        let found = if restored.is_none() { self.found(&places) } else { None };
        let next = match found {
            Some(found) => {
                self.counts.reused += 1;
                found
            }
            None => {
                let pass = self.prepared(&places, restored)?;
                self.counts.prepared += 1;
                (places, pass)
            }
        };
        let previous = self.latest.take();
        self.keep(previous);
        Ok(&self.latest.insert(next).1)
    }

    fn found(&mut self, places: &[Place]) -> Option<Placed<P>> {
        if let Some(same) = self.latest.take_if(|latest| !self.outdated && latest.0 == places) {
            return Some(same);
        }
        let at = self.older.iter().position(|older| older.0 == places)?;
        Some(self.older.remove(at))
    }

    fn prepared(&mut self, places: &[Place], restored: Restored<'_, P>) -> Result<P, Error> {
        let (clip, grads) = self.asked_of(places)?;
        if let Some((saved, queue)) = restored {
            // With nothing behind it: where it fails, what the latest pass remembers is left as it was.
            let pass = P::prepare(&self.clipper, None, &grads, &clip, self.asked)?;
            let ids: Vec<u64> = places.iter().map(|place| place.id).collect();
            pass.restore(queue, saved, &ids)?;
            self.outdate();
            return Ok(pass);
        }
        Ok(P::prepare(&self.clipper, self.remembering(), &grads, &clip, self.asked)?)
    }

    /// The clip and the gradients, each cut into the units of its own kind where that is asked for.
    fn asked_of(&self, places: &[Place]) -> Result<(Clip, Vec<Grad>), Error> {
        let Some(output_axes) = &self.output_axes else {
            return Ok((self.clip, places.iter().map(|place| self.grad(place, &place.shape)).collect()));
        };
        let mut grads = Vec::with_capacity(places.len());
        for place in places {
            let shape = units::shape_of(place, &self.clip, output_axes)?;
            grads.push(self.grad(place, shape.as_ref().map_or(&place.shape[..], |s| &s[..])));
        }
        Ok((units::clip_of(self.clip), grads))
    }

    fn keep(&mut self, previous: Option<Placed<P>>) {
        (self.latest_clip, self.regrouped) = (self.clip, false);
        if std::mem::take(&mut self.outdated) {
            return;
        }
        self.older.extend(previous);
        if self.older.len() >= self.most.max(1) {
            self.older.remove(0);
        }
    }

    fn grad(&self, place: &Place, shape: &[u64]) -> Grad {
        let Place { path, gradient, parameter, .. } = place;
        let elements = shape.iter().product();
        let mut grad = Grad::range(path.as_str(), &gradient.buffer, gradient.offset, elements)
            .dtype(gradient.dtype)
            .shape(shape);
        if let Some(group) = self.groups.as_ref().and_then(|group_of| group_of(path)) {
            grad = grad.group(&group);
        }
        if let Some(Range { buffer, offset, dtype }) = parameter {
            grad = grad.parameter(buffer, *offset, *dtype);
        }
        if let Some(rates) = self.rates.as_ref().map(|rates_of| rates_of(&place.parameter_of())) {
            grad = grad.lr_scale(rates.lr);
            if let Some(decay) = rates.weight_decay {
                grad = grad.weight_decay(decay);
            }
        }
        grad
    }
}
