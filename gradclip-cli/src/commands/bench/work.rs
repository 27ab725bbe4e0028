//! What the arms of `bench` work on, and what their answers should be.

use gradclip::layout::Outcome;
use gradclip::{Clip, Scope};
use rayon::prelude::*;

use crate::commands::bench::arm::Regime;
use crate::failure::Failure;
use gradclip_verify::inputs::Random;
use gradclip_verify::sets::scope::Cut;
use gradclip_verify::tolerance::{NORM, SCALED_BY_PARAMETERS as SCALED};

pub(crate) struct Work {
    pub(crate) shapes: Vec<Vec<u64>>,
    pub(crate) elements: u64,
    pub(crate) scope: Scope,
    /// The gradients, never changed.
    pub(crate) pristine: Vec<f32>,
    /// The norm of each segment in f64.
    pub(crate) norms: Vec<f64>,
    /// Elements that there is room for, to measure copies over more than the gradients.
    pub(crate) room: u64,
    cut: Cut,
}

impl Work {
    pub(crate) fn new(shapes: Vec<Vec<u64>>, scope: Scope, cut: Cut, room: u64) -> Work {
        let elements = shapes.iter().map(|shape| shape.iter().product::<u64>()).sum();
        let mut pristine = vec![0.0f32; elements as usize];
        // A seed for each block, so that the values do not depend on the number of threads.
        pristine.par_chunks_mut(1 << 16).enumerate().for_each(|(block, values)| {
            let mut random = Random(block as u64);
            values.iter_mut().for_each(|v| *v = bell(random.bits()) * 0.01);
        });
        let norms = cut.norms(&pristine);
        Work { shapes, elements, scope, pristine, norms, room, cut }
    }

    pub(crate) fn sizes(&self) -> impl Iterator<Item = u64> {
        self.shapes.iter().map(|shape| shape.iter().product())
    }

    /// Every segment is clipped, or none.
    pub(crate) fn clip(&self, regime: Regime) -> Clip {
        let (least, most) =
            self.norms.iter().fold((f64::MAX, 0.0f64), |(least, most), &n| (least.min(n), most.max(n)));
        let threshold = match regime {
            Regime::Clipped => least * 0.5,
            Regime::NotClipped => most * 2.0,
        };
        Clip::global_norm(threshold as f32).scope(self.scope)
    }

    /// The largest relative error of the segments' norms.
    pub(crate) fn error(&self, arm: &str, outcomes: &[Outcome]) -> Result<f64, Failure> {
        let mut worst = 0.0;
        for (outcome, &exact) in outcomes.iter().zip(&self.norms) {
            let error = (f64::from(outcome.norm) - exact).abs() / exact.max(f64::MIN_POSITIVE);
            if error.is_nan() || error > NORM {
                let problem = format!("a norm is {}, and in f64 {exact}", outcome.norm);
                return Err(Failure::Check(format!("bench: {arm}: {problem}")));
            }
            worst = error.max(worst);
        }
        Ok(worst)
    }

    /// Checks clipped gradients that begin at element `first`, before anything is timed.
    pub(crate) fn check(&self, arm: &str, first: usize, clipped: &[f32]) -> Result<(), Failure> {
        let threshold = self.clip(Regime::Clipped).threshold;
        let segments = self.cut.segments(first, clipped.len());
        let values = self.pristine[first..].iter().zip(clipped).enumerate();
        for ((i, (&from, &to)), segment) in values.zip(segments) {
            let factor = (threshold / self.norms[segment]).min(1.0);
            let expected = f64::from(from) * factor;
            let error = (f64::from(to) - expected).abs();
            if error.is_nan() || error > expected.abs() * SCALED + f64::from(f32::MIN_POSITIVE) {
                let problem = format!("element {} is {to} from {from}, factor {factor}", first + i);
                return Err(Failure::Check(format!("bench: {arm}: {problem}")));
            }
        }
        Ok(())
    }
}

/// About a normal distribution: four uniform numbers added up.
fn bell(bits: u64) -> f32 {
    let lanes = [bits, bits >> 16, bits >> 32, bits >> 48].map(|lane| (lane & 0xffff) as f32);
    (lanes.iter().sum::<f32>() / 65_536.0 - 2.0) * 1.732
}
