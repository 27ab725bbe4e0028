//! Prepared passes, kept for as long as Burn puts the gradients where it did before.

use gradclip::{Clip, DType, Grad, Group, History, Pass, wgpu};

use crate::error::Error;

/// Where one gradient lies, and what else a prepared pass depends on.
#[derive(Clone, PartialEq)]
pub(crate) struct Place {
    pub(crate) path: String,
    pub(crate) shape: Box<[u64]>,
    pub(crate) gradient: Range,
    pub(crate) parameter: Option<Range>,
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

/// How often passes were prepared and found, and gradients copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls that found a prepared pass for the places where Burn had put the gradients.
    pub reused: u64,
    /// Calls that prepared one.
    pub prepared: u64,
    /// Gradients that were copied first: shared with another tensor, not contiguous, or expanded.
    pub copied: u64,
}

/// The passes of the last few placements.
pub(crate) struct Passes {
    clipper: gradclip::Clipper,
    pub(crate) clip: Clip,
    pub(crate) groups: Option<Groups>,
    latest: Option<Prepared>,
    /// Used before that, the newest last.
    older: Vec<Prepared>,
    most: usize,
    /// Whether the latest pass is of another clip: it only hands its history on.
    outdated: bool,
    /// The clip of the latest pass, and whether groups were the same: see [`Passes::remembering`].
    latest_clip: Clip,
    regrouped: bool,
    pub(crate) counts: Counts,
}

type Prepared = (Vec<Place>, Pass);

impl Passes {
    pub(crate) fn new(clipper: gradclip::Clipper, clip: Clip, most: usize) -> Passes {
        let (older, counts) = (Vec::new(), Counts::default());
        let (latest, latest_clip, outdated, regrouped) = (None, clip, false, false);
        Passes { clipper, clip, groups: None, latest, older, most, outdated, latest_clip, regrouped, counts }
    }

    /// The pass of the latest call.
    pub(crate) fn latest(&self) -> Option<&Pass> {
        self.latest.as_ref().map(|(_, pass)| pass)
    }

    /// The pass whose history the next call goes on with. Known before the next is prepared: until then the loss
    /// scale has to be that of the next call.
    pub(crate) fn remembering(&self) -> Option<&Pass> {
        let (old, new) = (&self.latest_clip, &self.clip);
        let same_scaling = old.loss_scale.is_some() == new.loss_scale.is_some();
        // Other scopes and groups may be another number of adaptive thresholds.
        let same_limits = new.adapt.is_none() || (old.scope == new.scope && !self.regrouped);
        self.latest().filter(|_| old.adapt == new.adapt && same_scaling && same_limits)
    }

    /// Those that the next call may find.
    pub(crate) fn current(&self) -> impl Iterator<Item = &Pass> {
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

    pub(crate) fn set_clip(&mut self, clip: Clip) {
        self.clip = clip;
        self.outdate();
    }

    /// The pass for these places: one that was prepared, or a new one that goes on where the latest is, or from
    /// the restored history on.
    ///
    /// # Errors
    ///
    /// What cannot be prepared, a history of another clip. The latest pass is then the one it was.
    pub(crate) fn pass_for(
        &mut self,
        places: Vec<Place>,
        restored: Option<(&History, &wgpu::Queue)>,
    ) -> Result<&Pass, Error> {
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

    fn found(&mut self, places: &[Place]) -> Option<Prepared> {
        if let Some(same) = self.latest.take_if(|latest| !self.outdated && latest.0 == places) {
            return Some(same);
        }
        let at = self.older.iter().position(|older| older.0 == places)?;
        Some(self.older.remove(at))
    }

    fn prepared(
        &mut self,
        places: &[Place],
        restored: Option<(&History, &wgpu::Queue)>,
    ) -> Result<Pass, Error> {
        let grads: Vec<Grad> = places.iter().map(|place| self.grad(place)).collect();
        if let Some((history, queue)) = restored {
            // With nothing behind it: where it fails, what the latest pass remembers is left as it was.
            let pass = self.clipper.prepare(&grads, &self.clip)?;
            pass.restore_history(queue, history)?;
            self.outdate();
            return Ok(pass);
        }
        Ok(match self.remembering() {
            None => self.clipper.prepare(&grads, &self.clip),
            Some(latest) => self.clipper.prepare_after(latest, &grads, &self.clip),
        }?)
    }

    fn keep(&mut self, previous: Option<Prepared>) {
        (self.latest_clip, self.regrouped) = (self.clip, false);
        if std::mem::take(&mut self.outdated) {
            return;
        }
        self.older.extend(previous);
        if self.older.len() >= self.most.max(1) {
            self.older.remove(0);
        }
    }

    fn grad(&self, place: &Place) -> Grad {
        let Place { path, shape, gradient, parameter } = place;
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
        grad
    }
}
