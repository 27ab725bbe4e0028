//! The CPU arm of `bench`.

use std::hint::black_box;

use gradclip::cpu::{self, GradMut};
use rayon::prelude::*;

use crate::commands::bench::arm::{Arm, Regime, Times};
use crate::commands::bench::time::seconds;
use crate::commands::bench::work::Work;
use crate::failure::Failure;

/// Elements that a thread copies at once.
const BLOCK: usize = 1 << 16;

pub(crate) struct Cpu<'w> {
    work: &'w Work,
    /// The gradients that are clipped, and room to measure bandwidth in.
    values: Vec<f32>,
    error: f64,
    norm: Option<f64>,
    copies: Vec<f64>,
    regimes: [(Regime, Times); 2],
}

impl<'w> Cpu<'w> {
    /// Checks the answer before anything is timed.
    pub(crate) fn new(work: &'w Work) -> Result<Cpu<'w>, Failure> {
        let values = vec![0.0; work.room as usize];
        let regimes = Regime::BOTH.map(|r| (r, Times::default()));
        let mut cpu = Cpu { work, values, error: 0.0, norm: None, copies: Vec::new(), regimes };
        cpu.restore();
        let trace = cpu::clip_traced(&mut cpu.grads(), &work.clip(Regime::Clipped))?;
        cpu.error = work.error("cpu", &trace.outcomes)?;
        cpu.norm = trace.report.norm();
        work.check("cpu", 0, &cpu.values[..work.elements as usize])?;
        Ok(cpu)
    }

    fn restore(&mut self) {
        let own = self.values.par_chunks_mut(BLOCK);
        own.zip(self.work.pristine.par_chunks(BLOCK))
            .for_each(|(to, from)| to[..from.len()].copy_from_slice(from));
    }

    fn grads(&mut self) -> Vec<GradMut<'_>> {
        let mut rest = self.values.as_mut_slice();
        let grad = |(i, size): (usize, u64)| {
            let (own, after) = std::mem::take(&mut rest).split_at_mut(size as usize);
            rest = after;
            GradMut::new(format!("t{i}"), own).shape(&self.work.shapes[i])
        };
        self.work.sizes().enumerate().map(grad).collect()
    }

    pub(crate) fn time(&mut self, work: &Work, regime: Regime, keep: bool) -> Result<(), Failure> {
        let copied = seconds(|| {
            // The compiler must not know that nothing changes.
            let factor = black_box(1.0f32);
            self.values.par_chunks_mut(BLOCK).for_each(|block| block.iter_mut().for_each(|v| *v *= factor));
            Ok(())
        })?;
        self.restore();
        let clip = work.clip(regime);
        let mut grads = self.grads();
        let mut clipped = false;
        let total = seconds(|| {
            clipped = cpu::clip(&mut grads, &clip)?.clipped();
            Ok(())
        })?;
        drop(grads);
        if clipped != (regime == Regime::Clipped) {
            return Err(Failure::Check("bench: cpu: clipped when it should not, or the reverse".into()));
        }
        if keep {
            self.copies.push(copied);
            self.regimes.iter_mut().filter(|(r, _)| *r == regime).for_each(|(_, t)| t.total.push(total));
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Arm {
        Arm {
            adapter: None,
            error: self.error,
            norm: self.norm,
            dispatches: None,
            copied: 8 * self.values.len() as u64,
            copies: self.copies,
            regimes: self.regimes,
        }
    }
}
