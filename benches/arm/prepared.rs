//! The CPU path prepared for tensors that come again. Commits that have no such thing get another file in place of this one:
//! `timing/build.py`.

use gradclip::Clip;
use gradclip::cpu::{self, GradMut};

use crate::Result;

pub(crate) struct Prepared(cpu::Prepared);

impl Prepared {
    pub(crate) fn new(tensors: &mut [Vec<f32>], clip: &Clip) -> Result<Prepared> {
        let like: Vec<_> = tensors.iter_mut().map(|t| GradMut::new("g", t.as_mut_slice())).collect();
        cpu::prepare(&like, clip).map(Prepared).map_err(|e| e.to_string())
    }

    /// Returns the norm.
    pub(crate) fn clip(&mut self, tensors: &mut [Vec<f32>]) -> Result<f64> {
        self.0.clip(tensors.iter_mut().map(Vec::as_mut_slice)).map_err(|e| e.to_string())?;
        self.0.norm().ok_or("no norm".into())
    }
}
