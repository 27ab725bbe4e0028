//! `gradclip::cpu::clip` on rayon's threads; every tensor is an allocation of its own, as gradients are.

use std::hint::black_box;
use std::time::Instant;

use gradclip::cpu::{self, GradMut, Moments, StepMut};
use gradclip::{Adam, Clip, History, Optimizer};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::prepared::Prepared;
use crate::values::{BLOCK, fill, sum_of_squares};
use crate::{Arm, Result, check, judged, threshold};

/// Elements of the buffer that bandwidth is measured on: 256 MiB, more than caches hold.
const LARGE: usize = 1 << 26;

#[derive(Default)]
pub(crate) struct Cpu {
    /// The gradients that are clipped, and what they are restored from.
    tensors: Vec<Vec<f32>>,
    pristine: Vec<Vec<f32>>,
    reference: f64,
    large: Vec<f32>,
    way: Way,
    /// Kept and clipped.
    prepared: [Option<Prepared>; 2],
    stepped: Stepped,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) enum Way {
    #[default]
    Clip,
    Prepared,
    /// A step of AdamW follows in the same call.
    Step,
}

/// Parameters, which begin as ones, with what their optimiser remembers.
#[derive(Default)]
struct Stepped {
    parameters: Vec<Vec<f32>>,
    moments: Moments,
    history: History,
}

/// Of AdamW, as benches/peers/torch_clip.py has it.
const RATE: f64 = 1e-3;
const DECAY: f64 = 0.01;

impl Cpu {
    pub(crate) fn new(way: Way) -> Cpu {
        Cpu { way, ..Cpu::default() }
    }

    /// Seconds of clip and step in one, and the norm that was reported. Gradients are only read.
    fn step(&mut self, clip: &Clip) -> Result<(f64, f64)> {
        let Stepped { parameters, moments, history } = &mut self.stepped;
        let pairs = self.tensors.iter().zip(parameters);
        let mut steps: Vec<_> = pairs.map(|(g, p)| StepMut::new("g", g.as_slice(), p)).collect();
        let adam: Optimizer = Adam::adamw(RATE).weight_decay(DECAY).into();
        let start = Instant::now();
        let report = cpu::step(&mut steps, clip, adam, history, moments);
        let seconds = start.elapsed().as_secs_f64();
        Ok((seconds, report.map_err(|e| e.to_string())?.norm().ok_or("no norm")?))
    }

    fn restore(&mut self) {
        for (to, from) in self.tensors.iter_mut().zip(&self.pristine) {
            if to.len() <= BLOCK {
                to.copy_from_slice(from);
            } else {
                let blocks = to.par_chunks_mut(BLOCK).zip(from.par_chunks(BLOCK));
                blocks.for_each(|(to, from)| to.copy_from_slice(from));
            }
        }
    }

    /// Seconds, and the norm that was reported.
    fn clip(&mut self, clipped: bool) -> Result<(f64, f64)> {
        self.restore();
        let clip = Clip::global_norm(threshold(self.reference, clipped));
        if self.way == Way::Step {
            return self.step(&clip);
        }
        if self.way == Way::Prepared {
            let prepared = match &mut self.prepared[usize::from(clipped)] {
                Some(prepared) => prepared,
                empty => empty.insert(Prepared::new(&mut self.tensors, &clip)?),
            };
            let start = Instant::now();
            let norm = prepared.clip(&mut self.tensors);
            return Ok((start.elapsed().as_secs_f64(), norm?));
        }
        let mut grads: Vec<_> =
            self.tensors.iter_mut().map(|t| GradMut::new("g", t.as_mut_slice())).collect();
        let start = Instant::now();
        let report = cpu::clip(&mut grads, &clip);
        let seconds = start.elapsed().as_secs_f64();
        let report = report.map_err(|e| e.to_string())?;
        Ok((seconds, report.norm().ok_or("no norm")?))
    }

    fn check(&self, clipped: bool) -> Result<()> {
        if self.way == Way::Step {
            return self.check_step();
        }
        let mut first = 0;
        for tensor in &self.tensors {
            check(first, &tensor[..tensor.len().min(16)], clipped, false)?;
            first += tensor.len() as u64;
        }
        Ok(())
    }
    /// A first step moves by the rate against the gradient, whatever its size.
    fn check_step(&self) -> Result<()> {
        for (tensor, parameter) in self.tensors.iter().zip(&self.stepped.parameters) {
            for (g, p) in tensor.iter().zip(parameter).take(16).filter(|(g, _)| g.abs() > 1e-2) {
                let want = 1.0 - RATE * DECAY - RATE * f64::from(g.signum());
                if (f64::from(*p) - want).abs() > 1e-6 {
                    return Err(format!("a parameter is {p} after a step, not {want}"));
                }
            }
        }
        Ok(())
    }
}

impl Arm for Cpu {
    fn hello(&self) -> Value {
        json!({ "device": "cpu", "driver": null, "threads": rayon::current_num_threads() })
    }

    fn load(&mut self, sizes: &[usize], bf16: bool) -> Result<Value> {
        self.unload();
        if bf16 {
            return Err("only f32 on the CPU".into());
        }
        let mut first = 0;
        for &size in sizes {
            let mut tensor = vec![0.0; size];
            fill(&mut tensor, first, false);
            first += size as u64;
            self.pristine.push(tensor.clone());
            self.tensors.push(tensor);
        }
        if self.way == Way::Step {
            self.stepped.parameters = sizes.iter().map(|&size| vec![1.0; size]).collect();
        }
        self.reference = self.pristine.iter().map(|t| sum_of_squares(t)).sum::<f64>().sqrt();
        let (_, norm) = self.clip(false)?;
        self.check(false)?;
        self.clip(true)?;
        if self.way != Way::Step {
            self.check(true)?;
        }
        judged(sizes.len(), first, norm, self.reference)
    }

    fn time(&mut self, clipped: bool, repetitions: usize) -> Result<Value> {
        self.clip(clipped)?;
        let seconds: Result<Vec<f64>> = (0..repetitions).map(|_| Ok(self.clip(clipped)?.0)).collect();
        Ok(json!({ "seconds": seconds? }))
    }

    fn bandwidth(&mut self) -> Result<Value> {
        // Zeros from the system are pages that do not exist yet.
        self.large.resize(LARGE, 1.0);
        let read = best(4 * LARGE, || {
            // An integer sum: the compiler may not reorder one of floats.
            let sum = |block: &[f32]| block.iter().fold(0u32, |sum, x| sum.wrapping_add(x.to_bits()));
            black_box(self.large.par_chunks(BLOCK).map(sum).reduce(|| 0, u32::wrapping_add));
        });
        let multiply = best(8 * LARGE, || {
            // The compiler must not know that nothing changes.
            let factor = black_box(1.0f32);
            self.large.par_chunks_mut(BLOCK).for_each(|block| block.iter_mut().for_each(|x| *x *= factor));
        });
        Ok(json!({ "read": read, "multiply": multiply }))
    }

    fn unload(&mut self) {
        self.tensors.clear();
        self.pristine.clear();
        self.prepared = [None, None];
        self.stepped = Stepped::default();
    }
}

/// GB/s of the best of three.
fn best(bytes: usize, mut work: impl FnMut()) -> f64 {
    let mut one = || {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    bytes as f64 / (0..3).map(|_| one()).fold(f64::INFINITY, f64::min) / 1e9
}
