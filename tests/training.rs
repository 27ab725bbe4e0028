//! The trainer: to the bit the parts that it is made of, whichever micro-batch ends a step, on device and CPU path.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Distribution, Gpu, bits, data, gpu};
use gradclip::cpu::{self, Moments, ParameterMut, StepMut, SumMut};
use gradclip::layout::Progress;
use gradclip::{
    Adam, Clip, ClipError, DType, Grad, Group, History, LossScale, Optimizer, PlanError, PrepareError,
    Report, Sgd, StepError, Stepper, Trainer, wgpu,
};
use half::bf16;

const SIZES: [usize; 4] = [3, 20_001, 1, 700];

fn gradients(seed: u64) -> Vec<Vec<f32>> {
    SIZES.iter().zip(seed * 10..).map(|(&n, seed)| data(Distribution::Uniform(1.0), n, seed)).collect()
}

/// Gradients, parameters of f32 and accumulators in buffers of their own.
struct There<'g> {
    gpu: &'g Gpu,
    gradients: Vec<wgpu::Buffer>,
    parameters: Vec<wgpu::Buffer>,
    sums: Vec<wgpu::Buffer>,
}

impl<'g> There<'g> {
    fn new(gpu: &'g Gpu) -> There<'g> {
        let buffers = |values: &[Vec<f32>]| -> Vec<wgpu::Buffer> {
            values.iter().map(|v| gpu.upload(bytemuck::cast_slice(v))).collect()
        };
        // What is in accumulators before does not matter.
        let spoilt: Vec<Vec<f32>> = SIZES.iter().map(|&n| vec![f32::NAN; n]).collect();
        let (parameters, sums) = (buffers(&gradients(77)), buffers(&spoilt));
        There { gpu, gradients: buffers(&gradients(0)), parameters, sums }
    }

    fn grads(&self, of: &[wgpu::Buffer]) -> Vec<Grad> {
        let each = of.iter().zip(&self.parameters).enumerate();
        let grad = |(t, (g, p)): (usize, (&wgpu::Buffer, &wgpu::Buffer))| {
            let grad = Grad::new(format!("t{t}"), g).parameter(p, 0, DType::F32);
            if t == 2 { grad.group(&Group::excluded("scales")) } else { grad }
        };
        each.map(grad).collect()
    }

    /// Gradients with their accumulators.
    fn accumulating(&self) -> Vec<Grad> {
        self.grads(&self.gradients)
            .into_iter()
            .zip(&self.sums)
            .map(|(g, sum)| g.accumulator(sum, 0))
            .collect()
    }

    /// Takes other gradients from the next submit on.
    fn put(&self, gradients: &[Vec<f32>]) {
        for (buffer, values) in self.gradients.iter().zip(gradients) {
            self.gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(values));
        }
    }

    fn parameters(&self) -> Vec<Vec<u32>> {
        let read = |(b, n): (&wgpu::Buffer, &usize)| self.gpu.read::<f32>(b)[..*n].to_vec();
        bits(&self.parameters.iter().zip(&SIZES).map(read).collect::<Vec<_>>())
    }
}

fn settings() -> (Clip, Optimizer) {
    let clip = Clip::global_norm(10.0).loss_scale(LossScale::default().initial(4.0).interval(3));
    (clip, Adam::adamw(0.01).into())
}

/// Micro-batches of each step: whole ones and, at ends of epochs, what is left.
const STEPS: [u64; 6] = [4, 4, 3, 4, 1, 4];

/// What the parts do, told by hand which micro-batch is which: parameters after each step.
fn by_hand(there: &There<'_>) -> (Vec<Vec<Vec<u32>>>, Vec<Report>) {
    let ((clip, optimizer), gpu) = (settings(), there.gpu);
    let accumulator = gpu.clipper.prepare_accumulation(&there.accumulating()).unwrap();
    let stepper: Stepper =
        gpu.clipper.prepare_step(&there.grads(&there.sums), &clip.unscale(0.25), optimizer).unwrap();
    let (mut after, mut reports, mut seed) = (Vec::new(), Vec::new(), 0);
    for count in STEPS {
        for micro in 0..count {
            seed += 1;
            there.put(&gradients(seed));
            gpu.submit(|encoder| match micro {
                0 => accumulator.record_first(encoder),
                _ => accumulator.record_next(encoder),
            });
        }
        stepper.set_unscale(&gpu.queue, 1.0 / count as f32).unwrap();
        let report = gpu.submit(|encoder| {
            stepper.record_step(encoder);
            stepper.read_back(encoder).unwrap()
        });
        reports.push(report.wait().unwrap());
        after.push(there.parameters());
    }
    (after, reports)
}

#[test]
fn the_same_bits_as_its_parts() {
    let Some(gpu) = gpu() else { return };
    let (want, told) = by_hand(&There::new(&gpu));
    let there = There::new(&gpu);
    let (clip, optimizer) = settings();
    let trainer: Trainer = gpu.clipper.prepare_training(&there.accumulating(), &clip, optimizer, 4).unwrap();
    let (mut seed, mut steps) = (0, 0);
    for count in STEPS {
        for micro in 0..count {
            assert_eq!(u64::from(trainer.accumulated()), micro);
            seed += 1;
            there.put(&gradients(seed));
            let stepped = gpu.submit(|encoder| trainer.record(encoder));
            assert_eq!(stepped, micro == 3, "micro-batch {micro} of {count}");
        }
        if count < 4 {
            assert!(gpu.submit(|encoder| trainer.finish(encoder)));
        }
        assert!(!gpu.submit(|encoder| trainer.finish(encoder)), "nothing is left");
        assert_eq!(there.parameters(), want[steps], "step {steps} on {}", gpu.name);
        let report = gpu.submit(|encoder| trainer.read_back(encoder).unwrap()).wait().unwrap();
        assert_eq!(report, told[steps], "step {steps} on {}", gpu.name);
        steps += 1;
    }
}

/// A shorter step between two whole ones in one submit: what it is corrected by holds for it alone.
#[test]
fn a_shorter_mean_is_that_of_its_step_alone() {
    let Some(gpu) = gpu() else { return };
    let there = There::new(&gpu);
    let sgd = Sgd::new(1.0);
    // Gradients stay what they are, so every mean is that gradient.
    let trainer = gpu.clipper.prepare_training(&there.accumulating(), &Clip::measure(), sgd, 2).unwrap();
    let want: Vec<Vec<u32>> = {
        let mut p = gradients(77);
        let g = gradients(0);
        for _ in 0..3 {
            p.iter_mut().flatten().zip(g.iter().flatten()).for_each(|(p, g)| *p -= g);
        }
        bits(&p)
    };
    gpu.submit(|encoder| {
        assert!(!trainer.record(encoder));
        assert!(trainer.record(encoder));
        assert!(!trainer.record(encoder));
        assert!(trainer.finish(encoder));
        assert!(!trainer.record(encoder));
        assert!(trainer.record(encoder));
    });
    assert_eq!(there.parameters(), want, "{}", gpu.name);
    let progress: Vec<Progress> = gpu.read(trainer.progress());
    assert_eq!((progress[0].updates, progress[0].mean_correction), (3, 1.0));
    // What is discarded is in no step.
    gpu.submit(|encoder| trainer.record(encoder));
    trainer.discard();
    assert!(!gpu.submit(|encoder| trainer.record(encoder)));
    assert_eq!(trainer.accumulated(), 1);
}

/// The same on the CPU path: parts by hand, then the trainer, gradients of bf16 and parameters with masters.
#[test]
fn the_cpu_path_has_the_same_bits_as_its_parts() {
    let (clip, optimizer) = settings();
    let halved = |seed| -> Vec<Vec<bf16>> {
        gradients(seed).iter().map(|g| g.iter().map(|&x| bf16::from_f32(x)).collect()).collect()
    };
    let begin = halved(77);
    let zeros = || -> Vec<Vec<f32>> { SIZES.iter().map(|&n| vec![0.0; n]).collect() };
    let name = |t: usize| format!("t{t}");

    let (mut masters, mut halves, mut sums) = (zeros(), begin.clone(), zeros());
    let (mut history, mut moments, mut seed) = (History::default(), Moments::default(), 0);
    let (mut want, mut told) = (Vec::new(), Vec::new());
    for count in STEPS {
        for micro in 0..count {
            seed += 1;
            let g = halved(seed);
            let each = g.iter().zip(&mut sums).enumerate();
            let mut each: Vec<_> = each.map(|(t, (g, sum))| SumMut::new(name(t), &g[..], sum)).collect();
            cpu::accumulate(&mut each, micro == 0).unwrap();
        }
        let each = sums.iter().zip(masters.iter_mut().zip(&mut halves)).enumerate();
        let mut steps = Vec::new();
        for (t, (sum, (m, h))) in each {
            steps.push(StepMut::new(name(t), &sum[..], (&mut m[..], &mut h[..])));
        }
        let clip = clip.unscale(1.0 / count as f32);
        told.push(cpu::step(&mut steps, &clip, optimizer, &mut history, &mut moments).unwrap());
        want.push(halves.clone());
    }

    let (mut masters, mut halves) = (zeros(), begin.clone());
    let mut trainer = {
        let like = halved(0);
        let mut steps = Vec::new();
        for (t, (g, (m, h))) in like.iter().zip(masters.iter_mut().zip(&mut halves)).enumerate() {
            steps.push(StepMut::new(name(t), &g[..], (&mut m[..], &mut h[..])));
        }
        cpu::prepare_training(&steps, &clip, optimizer, 4).unwrap()
    };
    let mut seed = 0;
    for (k, count) in STEPS.into_iter().enumerate() {
        for micro in 0..count {
            seed += 1;
            let g = halved(seed);
            let parameters = masters.iter_mut().zip(&mut halves).map(|(m, h)| ParameterMut::Bf16(m, h));
            let stepped = trainer.record(g.iter().map(|g| &g[..]).zip(parameters)).unwrap();
            assert_eq!(stepped, micro == 3);
        }
        let parameters = masters.iter_mut().zip(&mut halves).map(|(m, h)| ParameterMut::Bf16(m, h));
        assert_eq!(trainer.finish(parameters).unwrap(), count < 4);
        assert_eq!(halves, want[k], "step {k}");
        let report = trainer.step().report().unwrap();
        assert_eq!(report.global_norm, told[k].global_norm);
        assert_eq!((report.updates, report.loss_scale), (told[k].updates, told[k].loss_scale));
    }
}

/// Elements that the mean of a shorter step takes above the largest `f32`, and that of a whole one does not: the step is skipped,
/// on both paths, and skips are counted until one goes through.
#[test]
fn what_a_shorter_mean_makes_infinite_is_skipped() {
    // Twice the mean of two is the sum: 2e38 passes. Twice the mean of one is 4e38.
    let (clip, sgd) = (Clip::global_norm(1.0).unscale(2.0), Sgd::new(1.0));
    let (g, mut p) = ([2e38f32, 0.0], [0.0f32; 2]);
    let half = [1e38f32, 0.0];
    let told = |report: &Report| (report.non_finite(), report.updates, report.skips);
    let mut here = cpu::prepare_training(&[StepMut::new("w", &g[..], &mut p)], &clip, sgd, 2).unwrap();
    let mut ours = Vec::new();
    for _ in 0..2 {
        here.record([(&g[..], &mut p)]).unwrap();
        here.finish([&mut p]).unwrap();
        ours.push(here.step().report().unwrap());
    }
    here.record([(&half[..], &mut p)]).unwrap();
    here.record([(&half[..], &mut p)]).unwrap();
    ours.push(here.step().report().unwrap());
    assert_eq!(ours.iter().map(told).collect::<Vec<_>>(), [(1, 0, 1), (1, 0, 2), (0, 1, 0)]);
    assert_eq!(p, [-1.0, 0.0]);

    let Some(gpu) = gpu() else { return };
    for clipper in gpu.forms() {
        let buffers = [g, half, [0.0f32; 2]].map(|x| gpu.upload(bytemuck::cast_slice(&x)));
        let grad = Grad::new("w", &buffers[0]).parameter(&buffers[2], 0, DType::F32);
        let trainer = clipper.prepare_training(&[grad], &clip, sgd, 2).unwrap();
        let mut theirs = Vec::new();
        let mut report = |trainer: &Trainer| {
            theirs.push(gpu.submit(|encoder| trainer.read_back(encoder).unwrap()).wait().unwrap());
        };
        for _ in 0..2 {
            gpu.submit(|encoder| trainer.record(encoder));
            gpu.submit(|encoder| trainer.finish(encoder));
            report(&trainer);
        }
        gpu.queue.write_buffer(&buffers[0], 0, bytemuck::cast_slice(&half));
        gpu.submit(|encoder| trainer.record(encoder));
        gpu.submit(|encoder| trainer.record(encoder));
        report(&trainer);
        assert_eq!(theirs.iter().map(told).collect::<Vec<_>>(), ours.iter().map(told).collect::<Vec<_>>());
        assert_eq!(gpu.read::<f32>(&buffers[2]), p, "{}", gpu.name);
    }
}

/// In other buffers the next trainer goes on: the bits of one that stayed.
#[test]
fn another_trainer_goes_on() {
    let Some(gpu) = gpu() else { return };
    let (clip, optimizer) = settings();
    let stays = There::new(&gpu);
    let moves = There::new(&gpu);
    let trainer =
        |there: &There<'_>| gpu.clipper.prepare_training(&there.accumulating(), &clip, optimizer, 2).unwrap();
    let (all, first) = (trainer(&stays), trainer(&moves));
    let run = |there: &There<'_>, trainer: &Trainer, batches: std::ops::Range<u64>| {
        for batch in batches {
            there.put(&gradients(batch));
            gpu.submit(|encoder| trainer.record(encoder));
        }
    };
    run(&stays, &all, 1..7);
    run(&moves, &first, 1..5);
    // Other gradients and sums; parameters stay where they are.
    let other = There { parameters: moves.parameters.clone(), ..There::new(&gpu) };
    let next =
        gpu.clipper.prepare_training_after(&first, &other.accumulating(), &clip, optimizer, 2).unwrap();
    run(&other, &next, 5..7);
    assert_eq!(other.parameters(), stays.parameters(), "{}", gpu.name);
    let refused = gpu.clipper.prepare_training_after(&first, &other.accumulating(), &clip, Sgd::new(0.1), 2);
    assert!(matches!(refused, Err(PrepareError::Clip(ClipError::State { .. }))));
}

/// Rates of parameter groups that follow schedules of their own.
#[test]
fn factors_of_the_rate_may_change() {
    let (clip, sgd) = (Clip::measure(), Sgd::new(0.5));
    let g = [1.0f32, 1.0];
    let (mut a, mut b) = ([0.0f32; 2], [0.0f32; 2]);
    let like = [StepMut::new("a", &g[..], &mut a), StepMut::new("b", &g[..], &mut b)];
    let mut here = cpu::prepare_step(&like, &clip, sgd).unwrap();
    here.step([(&g[..], &mut a[..]), (&g[..], &mut b[..])]).unwrap();
    assert_eq!((a, b), ([-0.5; 2], [-0.5; 2]));
    for wrong in [&[1.0][..], &[1.0, -1.0], &[1.0, f64::NAN]] {
        assert!(here.set_lr_scales(wrong).is_err());
    }
    here.set_lr_scales(&[1.0, 0.0]).unwrap();
    here.step([(&g[..], &mut a[..]), (&g[..], &mut b[..])]).unwrap();
    assert_eq!((a, b), ([-1.0; 2], [-0.5; 2]));

    let Some(gpu) = gpu() else { return };
    let buffers = [g, [0.0; 2], [0.0; 2]].map(|x| gpu.upload(bytemuck::cast_slice(&x)));
    let gradient = |name: &str| Grad::range(name, &buffers[0], if name == "a" { 0 } else { 4 }, 1);
    let grads = [
        gradient("a").parameter(&buffers[1], 0, DType::F32),
        gradient("b").parameter(&buffers[2], 0, DType::F32).lr_scale(2.0),
    ];
    let stepper = gpu.clipper.prepare_step(&grads, &clip, sgd).unwrap();
    let step = || {
        gpu.submit(|encoder| stepper.record_step(encoder));
        [1, 2].map(|b| gpu.read::<f32>(&buffers[b])[0])
    };
    assert_eq!(step(), [-0.5, -1.0]);
    for wrong in [&[1.0][..], &[1.0, -1.0], &[1.0, f64::NAN]] {
        assert!(stepper.set_lr_scales(&gpu.queue, wrong).is_err());
    }
    stepper.set_lr_scales(&gpu.queue, &[1.0, 0.5]).unwrap();
    assert_eq!(step(), [-1.0, -1.25]);
    // Other constants keep them.
    stepper.set_optimizer(&gpu.queue, Sgd::new(1.0)).unwrap();
    assert_eq!(step(), [-2.0, -1.75]);
}

#[test]
fn one_micro_batch_is_a_step() {
    let (clip, sgd) = (Clip::global_norm(5.0), Sgd::new(1.0));
    let (g, mut p) = ([30.0f32, 40.0], [0.0f32; 2]);
    let mut here = cpu::prepare_training(&[StepMut::new("w", &g[..], &mut p)], &clip, sgd, 1).unwrap();
    assert!(here.record([(&g[..], &mut p)]).unwrap());
    assert!(!here.finish([&mut p]).unwrap());
    assert_eq!(p, [-3.0, -4.0]);
    let none = cpu::prepare_training(&[StepMut::new("w", &g[..], &mut p)], &clip, sgd, 0);
    assert!(matches!(none, Err(StepError::Clip(ClipError::Combination { .. }))));

    let Some(gpu) = gpu() else { return };
    let buffers = [g, [0.0f32; 2]].map(|x| gpu.upload(bytemuck::cast_slice(&x)));
    let grad = Grad::new("w", &buffers[0]).parameter(&buffers[1], 0, DType::F32);
    let trainer = gpu.clipper.prepare_training(std::slice::from_ref(&grad), &clip, sgd, 1).unwrap();
    assert!(gpu.submit(|encoder| trainer.record(encoder)));
    assert!(!gpu.submit(|encoder| trainer.finish(encoder)));
    assert_eq!(gpu.read::<f32>(&buffers[1]), [-3.0, -4.0]);
    assert!(trainer.accumulators().is_empty());
    // A gradient that is its own parameter, whose sum lies elsewhere.
    let itself = Grad::new("w", &buffers[0]).parameter(&buffers[0], 0, DType::F32);
    for count in [1, 2] {
        let refused = gpu.clipper.prepare_training(std::slice::from_ref(&itself), &clip, sgd, count);
        assert!(matches!(refused, Err(PrepareError::Plan(PlanError::Overlap { .. }))), "{count}");
    }
    for wrong in [0, 65_537] {
        let refused = gpu.clipper.prepare_training(std::slice::from_ref(&grad), &clip, sgd, wrong);
        assert!(matches!(refused, Err(PrepareError::Clip(ClipError::Combination { .. }))));
    }
}
