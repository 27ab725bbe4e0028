//! Sums of micro-batches: as they are and clipped one by one, against f64, GPU against CPU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::tolerance::{SCALED_BY_PARAMETERS, SUM_OF_FIVE};
use common::{
    Data, Distribution, Element, Gpu, Operands, Placed, Placing, Tensor, assert_close, bits, data, floats,
    gpu, named, traced,
};
use gradclip::cpu::{self, SumMut};
use gradclip::{Clip, ClipError, Grad, Group, History, NonFinite, PlanError, PrepareError, Scope, Units};
use gradclip_verify::gpu::MicroBatch;

const SIZES: [usize; 4] = [3, 20_001, 1, 700];
const BATCHES: usize = 5;

fn micro(batch: usize) -> Vec<Vec<f32>> {
    SIZES
        .iter()
        .zip(batch as u64 * 10..)
        .map(|(&n, seed)| data(Distribution::Uniform(1.0), n, seed))
        .collect()
}

/// Sums on the CPU path, clipped where a clip is given. What was there before does not matter.
struct Here {
    sums: Vec<Vec<f32>>,
    clip: Option<Clip>,
    history: History,
}

impl Here {
    fn new(tensors: &[Tensor], clip: Option<Clip>) -> Here {
        let sums = tensors.iter().map(|t| vec![f32::NAN; t.data.len()]).collect();
        Here { sums, clip, history: History::default() }
    }

    fn add(&mut self, tensors: &[Tensor], batch: usize) {
        let mut sums: Vec<_> = tensors.iter().zip(&mut self.sums).map(|(t, sum)| t.sum(sum)).collect();
        match &self.clip {
            None => cpu::accumulate(&mut sums, batch == 0).unwrap(),
            Some(clip) => {
                drop(cpu::accumulate_clipped(&mut sums, batch == 0, clip, &mut self.history).unwrap())
            }
        }
    }
}

/// The same on a device.
struct There<'g> {
    gpu: &'g Gpu,
    placed: Placed,
    sums: Operands,
    accumulator: MicroBatch,
}

impl<'g> There<'g> {
    fn new(gpu: &'g Gpu, mut placed: Placed, here: &Here) -> There<'g> {
        let data: Vec<Data> = here.sums.iter().map(Data::from).collect();
        let sums = Operands::upload(gpu, data.iter(), Placing::arena(4, 0));
        for (i, grad) in placed.grads.iter_mut().enumerate() {
            let (buffer, offset) = sums.at(i);
            *grad = grad.clone().accumulator(buffer, offset);
        }
        let accumulator = gpu.accumulation(&placed.grads, here.clip.as_ref()).unwrap();
        There { gpu, placed, sums, accumulator }
    }

    /// Gradients are only read.
    fn add(&mut self, tensors: &[Tensor], batch: usize) {
        self.placed.put(self.gpu, tensors);
        self.gpu.submit(|encoder| (self.accumulator)(batch == 0, encoder));
        let staged = self.gpu.submit(|encoder| self.gpu.stage(encoder, &self.placed.buffers));
        assert!(self.placed.untouched(&self.gpu.collect(&staged).unwrap()));
    }

    /// The sums, next to which nothing was written.
    fn sums(&self) -> Vec<Vec<f32>> {
        self.sums.read(self.gpu).unwrap().iter().map(Data::floats).collect()
    }
}

#[test]
fn sums_of_every_type_begin_anew() {
    let gpu = gpu();
    for element in Element::ON_DEVICES {
        let n = 20_001;
        let micro = |batch: usize| {
            named([Data::rounded(element, &data(Distribution::Uniform(1.0), n, batch as u64))])
        };
        let mut want = vec![0.0f64; n];
        let mut here = Here::new(&micro(0), None);
        // Halves in the middle of a word, sums at an odd place.
        let lead = if element == Element::F32 { 4 } else { 2 };
        let there = gpu.as_ref().map(|gpu| (gpu, Placed::at(gpu, &micro(0), &[(0, lead)])));
        let mut there = there.map(|(gpu, placed)| There::new(gpu, placed, &here));
        for batch in 0..BATCHES {
            let tensors = micro(batch);
            tensors[0].data.values().zip(&mut want).for_each(|(v, w)| *w += v);
            here.add(&tensors, batch);
            there.iter_mut().for_each(|there| there.add(&tensors, batch));
        }
        assert_close(here.sums[0].iter().copied(), want, 0.0, SUM_OF_FIVE, &format!("{element:?}"));
        if let Some(there) = there {
            assert!(there.sums() == here.sums, "{element:?} on {}", there.gpu.name);
        }
    }
}

/// The mean of all, clipped once: no clearing, no division.
#[test]
fn accumulate_then_clip() {
    let gpu = gpu();
    let mut mean: Vec<f64> = vec![0.0; SIZES.iter().sum()];
    let (tensors, clip) = (named(micro(0)), Clip::global_norm(1.0).unscale(1.0 / BATCHES as f32));
    let mut here = Here::new(&tensors, None);
    let mut there = gpu.as_ref().map(|gpu| There::new(gpu, gpu.place(&tensors, Placing::APART), &here));
    for batch in 0..BATCHES {
        let gradients = micro(batch);
        mean.iter_mut().zip(gradients.concat()).for_each(|(m, g)| *m += f64::from(g) / BATCHES as f64);
        here.add(&named(&gradients), batch);
        there.iter_mut().for_each(|there| there.add(&named(&gradients), batch));
    }
    let norm = mean.iter().map(|m| m * m).sum::<f64>().sqrt();
    let (_, clipped) = traced(&named(&here.sums), &clip).unwrap();
    let want = mean.iter().map(|m| m / norm);
    let bound = (SUM_OF_FIVE / BATCHES as f64) / norm;
    assert_close(floats(&clipped).concat(), want, SCALED_BY_PARAMETERS, bound, "mean");
    let Some(there) = there else { return };
    let gpu = there.gpu;
    let (buffers, of) = (&there.sums, |i| there.placed.grads[i as usize].elements());
    let grad = |i: usize| Grad::range(format!("t{i}"), buffers.at(i).0, buffers.at(i).1, of(i as u64));
    let grads: Vec<Grad> = (0..SIZES.len()).map(grad).collect();
    gpu.run(&gpu.clipper.prepare(&grads, &clip).unwrap());
    assert!(bits(&there.sums()) == bits(&floats(&clipped)), "{}", gpu.name);
}

/// Each micro-batch by its own norms; one that is not finite adds nothing, also when it begins.
#[test]
fn clip_then_accumulate() {
    let gpu = gpu();
    let batch = |batch: usize| -> Vec<Tensor> {
        let mut values = micro(batch);
        if batch == 0 || batch == 3 {
            values[1][20_000] = f32::INFINITY;
        }
        named(values).into_iter().zip(SIZES).map(|(tensor, n)| tensor.shape(&shape(n))).collect()
    };
    let batches: Vec<Vec<Tensor>> = (0..BATCHES).map(batch).collect();
    for clip in [
        Clip::global_norm(1.0),
        Clip::per_tensor_norm(1.0),
        Clip::per_unit_norm(0.1, Units::OutputFirst),
        Clip::global_norm(1.0).on_non_finite(NonFinite::Sanitize),
        Clip::value(0.3),
    ] {
        // Clipping by itself, then adding in f64.
        let mut want: Vec<Vec<f64>> = SIZES.iter().map(|&n| vec![0.0; n]).collect();
        let mut here = Here::new(&batches[0], Some(clip));
        let mut there =
            gpu.as_ref().map(|gpu| There::new(gpu, gpu.place(&batches[0], Placing::APART), &here));
        for (batch, tensors) in batches.iter().enumerate() {
            let (trace, clipped) = traced(tensors, &clip).unwrap();
            for (t, g) in clipped.iter().enumerate() {
                let n = g.data.len();
                let width = if shape(n).len() == 2 { 3 } else { n };
                let finite = |i: usize| tensors[t].data.value(i).is_finite();
                let skipped = |i: usize| match clip.scope {
                    Scope::Unit(_) => !(i / width * width..(i / width + 1) * width).all(finite),
                    _ => trace.report.segments[trace.report.tensors[t].segment].skipped,
                };
                let added = g.data.values().zip(&mut want[t]).enumerate().filter(|(i, _)| !skipped(*i));
                added.for_each(|(_, (g, w))| *w += g);
            }
            here.add(tensors, batch);
            there.iter_mut().for_each(|there| there.add(tensors, batch));
        }
        assert_close(here.sums.concat(), want.concat(), 0.0, SUM_OF_FIVE, &format!("{clip:?}"));
        if let Some(there) = there {
            assert!(there.sums() == here.sums, "{clip:?} on {}", there.gpu.name);
        }
    }
}

/// Threes where the length allows, else one axis.
fn shape(n: usize) -> Vec<u64> {
    if n.is_multiple_of(3) { vec![n as u64 / 3, 3] } else { vec![n as u64] }
}

#[test]
fn what_an_accumulation_needs_is_asked_for_by_name() {
    let (g, mut sum) = ([1.0f32; 3], [0.0f32; 2]);
    let refused = cpu::accumulate(&mut [SumMut::new("w", &g[..], &mut sum)], true).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "tensor `w`: required an accumulator of 3 elements, as its gradient has, given 2"
    );
    let Some(gpu) = gpu() else { return };
    let grad = gpu.separate(&[vec![1.0; 3]]).remove(0);
    let refused = gpu.clipper.prepare_accumulation(std::slice::from_ref(&grad)).unwrap_err();
    assert!(matches!(refused, PrepareError::Clip(ClipError::Tensor { .. })), "{refused}");
    let itself = grad.clone().accumulator(grad.buffer(), 0);
    let refused = gpu.clipper.prepare_accumulation(&[itself]).unwrap_err();
    assert!(matches!(refused, PrepareError::Plan(PlanError::Overlap { .. })), "{refused}");
    assert_eq!(gpu.clipper.prepare_accumulation(&[]).unwrap().dispatch_count(), 0);
}

/// Sums of zeros have the sign that addition gives them, and what is skipped leaves it.
#[test]
fn signs_of_zero() {
    let gpu = gpu();
    let batches = [[0.0f32, -0.0, -0.0, 0.0, 1.0], [-0.0, 0.0, -0.0, 0.0, -1.0], [f32::NAN; 5]];
    let want = [0.0f32, 0.0, -0.0, 0.0, 0.0];
    let same = |got: &[f32]| got.iter().zip(want).all(|(g, w)| g.to_bits() == w.to_bits());
    let batch = |batch: usize| named([batches[batch].to_vec()]);
    let mut here = Here::new(&batch(0), Some(Clip::measure()));
    let mut there = gpu.as_ref().map(|gpu| There::new(gpu, gpu.place(&batch(0), Placing::APART), &here));
    for i in 0..batches.len() {
        here.add(&batch(i), i);
        there.iter_mut().for_each(|there| there.add(&batch(i), i));
    }
    assert!(same(&here.sums[0]), "{:?}", here.sums);
    if let Some(there) = there {
        assert!(same(&there.sums()[0]), "{:?} on {}", there.sums(), there.gpu.name);
    }
}

/// Plain sums take excluded groups too: all are added as they are.
#[test]
fn groups_that_no_norm_counts_are_added_too() {
    let free = Group::excluded("biases");
    let (g, mut a, mut b) = ([1.0f32, 2.0], [7.0f32; 2], [7.0f32; 2]);
    for first in [true, false] {
        let mut sums = [SumMut::new("a", &g[..], &mut a), SumMut::new("b", &g[..], &mut b).group(&free)];
        cpu::accumulate(&mut sums, first).unwrap();
    }
    assert_eq!((a, b), ([2.0, 4.0], [2.0, 4.0]));
    let Some(gpu) = gpu() else { return };
    let tensors = micro(0);
    let grads = gpu.separate(&tensors);
    let sums: Vec<_> =
        tensors.iter().map(|t| gpu.upload(bytemuck::cast_slice(&vec![7.0f32; t.len()]))).collect();
    let grads: Vec<Grad> = grads
        .into_iter()
        .zip(&sums)
        .zip(0..)
        .map(|((grad, sum), i)| {
            let grad = grad.accumulator(sum, 0);
            if i % 2 == 1 { grad.group(&Group::excluded("biases")) } else { grad }
        })
        .collect();
    let accumulator = gpu.clipper.prepare_accumulation(&grads).unwrap();
    gpu.submit(|encoder| accumulator.record_first(encoder));
    gpu.submit(|encoder| accumulator.record_next(encoder));
    for (sum, tensor) in sums.iter().zip(&tensors) {
        let twice: Vec<f32> = tensor.iter().map(|x| x + x).collect();
        assert_eq!(gpu.read::<f32>(sum)[..tensor.len()], twice, "{}", gpu.name);
    }
}
