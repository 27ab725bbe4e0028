//! Micro-batches that a rule leaves out before they are summed: beside a trainer that is only given the others, to the bit, on the CPU path and
//! on the device, which decides and counts by itself; Optax' `MultiSteps`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Distribution, Gpu, assert_close, bits, data, files, gpu, grads, named, norm};
use gradclip::cpu::{self, StepMut};
use gradclip::layout::Progress;
use gradclip::{
    Clip, ClipError, DType, Grad, History, LossScale, Optimizer, PrepareError, ReadBackError, Sgd, Skip,
    StepError, Trainer, wgpu,
};

const SIZES: [usize; 3] = [700, 3, 40_000];

/// Of a usual size, but for spikes, a NaN and an infinity.
fn micro_batch(i: u64) -> Vec<Vec<f32>> {
    let size = if [4, 5, 17, 30].contains(&i) { 100.0 } else { 1.0 };
    let values = SIZES.iter().zip(0u64..).map(|(&n, t)| data(Distribution::Uniform(size), n, 3 * i + t));
    let mut values: Vec<Vec<f32>> = values.collect();
    match i {
        9 => values[2][39_999] = f32::NAN,
        11 => values[1][0] = f32::INFINITY,
        _ => {}
    }
    values
}

/// The usual norm is below this, that of spikes far above.
const BOUND: f64 = 300.0;

fn is_left_out(gradients: &[Vec<f32>]) -> bool {
    let norm = norm(gradients);
    norm.is_nan() || norm > BOUND
}

/// Nothing that would undo a factor of the mean.
fn settings() -> (Clip, Optimizer) {
    (Clip::global_norm(1e4), Sgd::new(0.01).momentum(0.9).into())
}

fn parameters() -> Vec<Vec<f32>> {
    SIZES.iter().zip(900..).map(|(&n, seed)| data(Distribution::Uniform(1.0), n, seed)).collect()
}

#[test]
fn on_the_cpu_path_as_if_they_had_never_come() {
    let ((clip, optimizer), first) = (settings(), micro_batch(0));
    let (mut own, mut other) = (parameters(), parameters());
    fn like<'a>(g: &'a [Vec<f32>], p: &'a mut [Vec<f32>]) -> Vec<StepMut<'a>> {
        let pairs = g.iter().zip(p).enumerate();
        pairs.map(|(i, (g, p))| StepMut::new(format!("t{i}"), &g[..], &mut p[..])).collect()
    }
    let skip = Skip::non_finite().above(BOUND);
    let mut gated =
        cpu::prepare_training_skipping(&like(&first, &mut own), &clip, optimizer, 3, skip).unwrap();
    let mut plain = cpu::prepare_training(&like(&first, &mut other), &clip, optimizer, 3).unwrap();
    let mut left_out = 0;
    for i in 0..40 {
        let gradients = micro_batch(i);
        let pairs = gradients.iter().zip(&mut own).map(|(g, p)| (&g[..], &mut p[..]));
        let stepped = gated.record(pairs).unwrap();
        let out = is_left_out(&gradients);
        let report = gated.gate_report().unwrap();
        assert_eq!(report.skipped_steps > left_out, out, "{i}: {report:?}");
        left_out = report.skipped_steps;
        if !out {
            let pairs = gradients.iter().zip(&mut other).map(|(g, p)| (&g[..], &mut p[..]));
            assert_eq!(plain.record(pairs).unwrap(), stepped, "{i}");
        }
        assert_eq!(gated.accumulated(), plain.accumulated(), "{i}");
        assert!(bits(&own) == bits(&other), "{i}");
    }
    assert_eq!(left_out, 6);
    assert!(gated.save(own.iter_mut().map(|p| &mut p[..])).is_err());
}

/// Gradients and parameters on a device, and what moves them.
struct There {
    gradients: Vec<wgpu::Buffer>,
    parameters: Vec<wgpu::Buffer>,
    trainer: Trainer,
}

impl There {
    fn new(gpu: &Gpu, prepare: impl FnOnce(&[Grad], &Clip, Optimizer) -> Trainer) -> There {
        let upload = |values: &[Vec<f32>]| -> Vec<wgpu::Buffer> {
            values.iter().map(|v| gpu.upload(bytemuck::cast_slice(v))).collect()
        };
        let (gradients, parameters) = (upload(&micro_batch(0)), upload(&parameters()));
        let pairs = gradients.iter().zip(&parameters).zip(SIZES).enumerate();
        let grads: Vec<Grad> = pairs
            .map(|(i, ((g, p), n))| Grad::range(format!("t{i}"), g, 0, n as u64).parameter(p, 0, DType::F32))
            .collect();
        let (clip, optimizer) = settings();
        let trainer = prepare(&grads, &clip, optimizer);
        There { gradients, parameters, trainer }
    }

    fn put(&self, gpu: &Gpu, values: &[Vec<f32>]) {
        for (buffer, values) in self.gradients.iter().zip(values) {
            gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(values));
        }
    }

    fn record(&self, gpu: &Gpu, values: &[Vec<f32>]) -> bool {
        self.put(gpu, values);
        gpu.submit(|encoder| self.trainer.record(encoder))
    }

    fn parameters(&self, gpu: &Gpu) -> Vec<Vec<u32>> {
        self.parameters.iter().map(|b| gpu.read::<u32>(b)).collect()
    }
}

/// What a rule says of one micro-batch after the other, as a clip that does nothing else.
struct Decides {
    clip: Clip,
    history: History,
    left_out: u64,
}

impl Decides {
    fn new(skip: Skip) -> Decides {
        Decides { clip: Clip::measure().skip(skip), history: History::default(), left_out: 0 }
    }

    fn leaves_out(&mut self, gradients: &[Vec<f32>]) -> bool {
        let mut tensors = named(gradients);
        let report = cpu::clip_with(&mut grads(&mut tensors), &self.clip, &mut self.history).unwrap();
        std::mem::replace(&mut self.left_out, report.skipped_steps) < report.skipped_steps
    }
}

#[test]
fn on_a_device_as_if_they_had_never_come() {
    let Some(gpu) = gpu() else { return };
    let rules = [Skip::non_finite().above(BOUND), Skip::z_score(6.0).window(16).first(3)];
    for skip in rules {
        let gated = There::new(&gpu, |grads, clip, optimizer| {
            gpu.clipper.prepare_training_skipping(grads, clip, optimizer, 3, skip).unwrap()
        });
        let plain = There::new(&gpu, |grads, clip, optimizer| {
            gpu.clipper.prepare_training(grads, clip, optimizer, 3).unwrap()
        });
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let unrecorded = gated.trainer.read_back(&mut encoder).map(|_| ()).unwrap_err();
        assert_eq!(unrecorded, ReadBackError::Undecided);
        let mut decides = Decides::new(skip);
        for i in 0..40 {
            let gradients = micro_batch(i);
            assert!(!gated.record(&gpu, &gradients), "the host does not know");
            if !decides.leaves_out(&gradients) {
                plain.record(&gpu, &gradients);
            }
            // Begun sums are forgotten, and ended before they are whole.
            if i == 13 {
                assert_ne!(plain.trainer.accumulated(), 0);
                [&gated, &plain].iter().for_each(|there| there.trainer.discard());
            }
            if [20, 21, 28].contains(&i) {
                for there in [&gated, &plain] {
                    gpu.submit(|encoder| there.trainer.finish(encoder));
                }
            }
            let what = format!("{i} under {skip:?} on {}", gpu.name);
            assert!(gated.parameters(&gpu) == plain.parameters(&gpu), "{what}");
            let updates = |there: &There| gpu.read::<Progress>(there.trainer.progress())[0].updates;
            assert_eq!(updates(&gated), updates(&plain), "{what}");
        }
        let report = gpu.submit(|encoder| gated.trainer.gate().unwrap().read_back(encoder).unwrap());
        let report = report.wait().unwrap();
        assert_eq!((report.step, report.skipped_steps), (40, decides.left_out), "{skip:?} on {}", gpu.name);
        assert!(report.skipped_steps >= 3, "two are not finite");
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        assert!(gated.trainer.save(&mut encoder).is_err());
    }
}

/// Many micro-batches in one submit: what each leaves for the next lies on the device.
#[test]
fn several_in_one_submit() {
    let Some(gpu) = gpu() else { return };
    let skip = Skip::non_finite().above(BOUND);
    let there = There::new(&gpu, |grads, clip, optimizer| {
        gpu.clipper.prepare_training_skipping(grads, clip, optimizer, 3, skip).unwrap()
    });
    let one_by_one = There::new(&gpu, |grads, clip, optimizer| {
        gpu.clipper.prepare_training_skipping(grads, clip, optimizer, 3, skip).unwrap()
    });
    let staged: Vec<Vec<wgpu::Buffer>> = (2..12)
        .map(|i| micro_batch(i).iter().map(|v| gpu.upload(bytemuck::cast_slice(v))).collect())
        .collect();
    gpu.submit(|encoder| {
        for micro_batch in &staged {
            for (from, to) in micro_batch.iter().zip(&there.gradients) {
                encoder.copy_buffer_to_buffer(from, 0, to, 0, None);
            }
            there.trainer.record(encoder);
        }
    });
    (2..12).for_each(|i| assert!(!one_by_one.record(&gpu, &micro_batch(i))));
    assert!(there.parameters(&gpu) == one_by_one.parameters(&gpu), "{}", gpu.name);
}

/// Optax' MultiSteps with skip_large_updates: parameters after each micro-batch.
#[test]
fn optax_multi_steps() {
    let folder = files::folder("cases2/optax_skip_large_accumulate3");
    let case = files::json(&folder.join("case.json")).unwrap();
    let read = |file: &str| files::tensors(&folder.join(file)).unwrap();
    let (input, expected) = (read("input.safetensors"), read("expected.safetensors"));
    let values = |from: &[common::Tensor], prefix: &str| -> Vec<Vec<f32>> {
        (0..4)
            .map(|t| {
                let name = format!("{prefix}.{t:04}");
                from.iter().find(|tensor| tensor.name == name).unwrap().data.floats()
            })
            .collect()
    };
    let number = |value: &serde_json::Value| files::number(value).unwrap();
    let args = &case["args"];
    let sgd = Sgd::new(number(&args["learning_rate"])).momentum(number(&args["momentum"]));
    let skip = Skip::non_finite().above(number(&args["max_squared_norm"]).sqrt());
    let clip = Clip::value(f32::INFINITY);
    let (rtol, atol) = (number(&case["rtol"]), number(&case["atol"]));

    let mut here = values(&input, "p");
    let first = values(&input, "s1.g");
    let like: Vec<StepMut<'_>> = first
        .iter()
        .zip(&mut here)
        .enumerate()
        .map(|(i, (g, p))| StepMut::new(format!("t{i}"), &g[..], &mut p[..]))
        .collect();
    let mut trainer = cpu::prepare_training_skipping(&like, &clip, sgd, 3, skip).unwrap();
    let gpu = gpu();
    let there = gpu.as_ref().map(|gpu| {
        let upload = |values: &[Vec<f32>]| -> Vec<wgpu::Buffer> {
            values.iter().map(|v| gpu.upload(bytemuck::cast_slice(v))).collect()
        };
        let (gradients, parameters) = (upload(&first), upload(&here));
        let pairs = gradients.iter().zip(&parameters).enumerate();
        let grads: Vec<Grad> =
            pairs.map(|(i, (g, p))| Grad::new(format!("t{i}"), g).parameter(p, 0, DType::F32)).collect();
        let trainer = gpu.clipper.prepare_training_skipping(&grads, &clip, sgd, 3, skip).unwrap();
        There { gradients, parameters, trainer }
    });
    for k in 1..=12 {
        let gradients = values(&input, &format!("s{k}.g"));
        let want = values(&expected, &format!("s{k}.p")).concat();
        let left = case["step_skipped"][k - 1].as_bool().unwrap();
        let before = trainer.accumulated();
        trainer.record(gradients.iter().zip(&mut here).map(|(g, p)| (&g[..], &mut p[..]))).unwrap();
        assert_eq!(trainer.accumulated() == before, left, "micro-batch {k}");
        assert_close(here.concat(), want.clone(), rtol, atol, &format!("CPU, micro-batch {k}"));
        let Some((gpu, there)) = gpu.as_ref().zip(there.as_ref()) else { continue };
        there.record(gpu, &gradients);
        let got = there.parameters.iter().flat_map(|b| gpu.read::<f32>(b)).collect::<Vec<f32>>();
        assert_close(got, want, rtol, atol, &format!("{}, micro-batch {k}", gpu.name));
    }
}

#[test]
fn what_cannot_be_counted_is_refused() {
    let (g, mut p) = ([1.0f32], [1.0f32]);
    let skip = Skip::non_finite().above(1.0);
    let mut refused = |clip: Clip, micro_batches: u32, skip: Skip| {
        let like = [StepMut::new("w", &g[..], &mut p[..])];
        cpu::prepare_training_skipping(&like, &clip, Sgd::new(1.0), micro_batches, skip).unwrap_err()
    };
    let combination = |error: StepError| matches!(error, StepError::Clip(ClipError::Combination { .. }));
    let clip = Clip::global_norm(1.0);
    assert!(combination(refused(clip, 1, skip)));
    assert!(combination(refused(clip, 0, skip)));
    assert!(combination(refused(clip.loss_scale(LossScale::default()), 2, skip)));
    assert!(matches!(refused(clip, 2, skip.above(-1.0)), StepError::Clip(ClipError::Skip { .. })));
    let Some(gpu) = gpu() else { return };
    let (g, p) = (gpu.upload(&[0; 4]), gpu.upload(&[0; 4]));
    let grads = [Grad::new("w", &g).parameter(&p, 0, DType::F32)];
    for micro_batches in [0, 1] {
        let refused =
            gpu.clipper.prepare_training_skipping(&grads, &clip, Sgd::new(1.0), micro_batches, skip);
        let refused = refused.map(|_| ()).unwrap_err();
        assert!(matches!(refused, PrepareError::Clip(ClipError::Combination { .. })), "{refused:?}");
    }
}
