//! Prepared passes, kept for as long as Burn puts the gradients where it did before.

use gradclip::{Clip, ClipError, DType, Grad, Group, Pass, PrepareError, wgpu};

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
    pub(crate) counts: Counts,
}

type Prepared = (Vec<Place>, Pass);

impl Passes {
    pub(crate) fn new(clipper: gradclip::Clipper, clip: Clip, most: usize) -> Passes {
        let (older, counts) = (Vec::new(), Counts::default());
        Passes { clipper, clip, groups: None, latest: None, older, most, outdated: false, counts }
    }

    /// The pass of the latest call.
    pub(crate) fn latest(&self) -> Option<&Pass> {
        self.latest.as_ref().map(|(_, pass)| pass)
    }

    /// Those that the next call may find.
    pub(crate) fn current_mut(&mut self) -> impl Iterator<Item = &mut Pass> {
        let latest = self.latest.as_mut().filter(|_| !self.outdated);
        self.older.iter_mut().chain(latest).map(|(_, pass)| pass)
    }

    /// From here on passes have to be prepared anew.
    pub(crate) fn outdate(&mut self) {
        self.older.clear();
        self.outdated = true;
    }

    /// The pass for these places: one that was prepared, or a new one that goes on where the latest is.
    pub(crate) fn pass_for(&mut self, places: Vec<Place>) -> Result<&Pass, PrepareError> {
        let next = match self.latest.take() {
            Some(same) if !self.outdated && same.0 == places => {
                self.counts.reused += 1;
                same
            }
            previous => match self.found_or_prepared(previous.as_ref(), places) {
                Ok(next) => {
                    self.keep(previous);
                    next
                }
                Err(error) => {
                    self.latest = previous;
                    return Err(error);
                }
            },
        };
        Ok(&self.latest.insert(next).1)
    }

    fn found_or_prepared(
        &mut self,
        previous: Option<&Prepared>,
        places: Vec<Place>,
    ) -> Result<Prepared, PrepareError> {
        if let Some(at) = self.older.iter().position(|(at, _)| *at == places) {
            self.counts.reused += 1;
            return Ok(self.older.remove(at));
        }
        let grads: Vec<Grad> = places.iter().map(|place| self.grad(place)).collect();
        let anew = || self.clipper.prepare(&grads, &self.clip);
        let pass = match previous {
            None => anew(),
            Some((_, pass)) => match self.clipper.prepare_after(pass, &grads, &self.clip) {
                // Another adaptive threshold was asked for: it begins at its beginning.
                Err(PrepareError::Clip(ClipError::State { .. })) if self.outdated => anew(),
                prepared => prepared,
            },
        }?;
        self.counts.prepared += 1;
        Ok((places, pass))
    }

    fn keep(&mut self, previous: Option<Prepared>) {
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
