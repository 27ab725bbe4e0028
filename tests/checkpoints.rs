//! Saved runs: going on from one is not having stopped, to the bit, and what is no run of these tensors changes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Distribution, Gpu, Random, data, gpu};
use gradclip::cpu::{self, ParameterMut, StepMut};
use gradclip::{
    Adam, Adapt, Checkpoint, CheckpointError, Clip, Clipper, DType, Grad, LossScale, Optimizer, Reaction,
    Sgd, Trainer, wgpu,
};
use half::bf16;
use safetensors::tensor::{Dtype, TensorView};

const SIZES: [usize; 4] = [301, 5_001, 1, 64];
const MICRO_BATCHES: u32 = 3;

/// How each tensor's parameter is kept: as f32, twice with a master, and by chance.
const KEPT: [DType; 4] = [DType::F32, DType::Bf16, DType::Bf16, DType::Bf16];
const CHANCE: usize = 3;

fn begin(t: usize) -> Vec<f32> {
    data(Distribution::Uniform(1.0), SIZES[t], 900 + t as u64)
}

/// The gradients of a micro-batch, which depend on its number alone: of several sizes, some of them not finite.
fn gradients(number: u64) -> Vec<Vec<f32>> {
    let size = [1.0, 1.0, 40.0, 0.01, 1.0][number as usize % 5];
    let one = |(t, &n): (usize, &usize)| {
        let mut g = data(Distribution::Uniform(size), n, number * 10 + t as u64);
        if number % 41 == 17 && t == 1 {
            g[7] = f32::INFINITY;
        }
        g
    };
    SIZES.iter().enumerate().map(one).collect()
}

fn clip() -> Clip {
    let adapt = Adapt::ZScore { z: 2.5, decay: 0.9, warm_up: 5, reaction: Reaction::default() };
    Clip::global_norm(10.0).adapt(adapt).loss_scale(LossScale::default().initial(8.0).interval(7))
}

/// A run on a device.
struct There<'g> {
    gpu: &'g Gpu,
    trainer: Trainer,
    gradients: Vec<wgpu::Buffer>,
    parameters: Vec<wgpu::Buffer>,
}

impl<'g> There<'g> {
    fn new(gpu: &'g Gpu, clipper: &Clipper, optimizer: Optimizer) -> There<'g> {
        let gradients: Vec<_> = gradients(0).iter().map(|g| gpu.upload(bytemuck::cast_slice(g))).collect();
        let upload = |t: usize| match KEPT[t] {
            DType::F32 => gpu.upload(bytemuck::cast_slice(&begin(t))),
            _ => {
                let mut halves: Vec<bf16> = begin(t).iter().map(|&x| bf16::from_f32(x)).collect();
                halves.resize(halves.len().next_multiple_of(2), bf16::ZERO);
                gpu.upload(bytemuck::cast_slice(&halves))
            }
        };
        let parameters: Vec<_> = (0..4).map(upload).collect();
        let grad = |t: usize| {
            let grad = Grad::new(format!("t{t}"), &gradients[t]).parameter(&parameters[t], 0, KEPT[t]);
            if t == CHANCE { grad.stochastic_rounding(5) } else { grad }
        };
        let grads: Vec<Grad> = (0..4).map(grad).collect();
        let trainer = clipper.prepare_training(&grads, &clip(), optimizer, MICRO_BATCHES).unwrap();
        There { gpu, trainer, gradients, parameters }
    }

    /// What a micro-batch does; the last of an epoch ends a step.
    fn micro_batch(&self, number: u64, ends: bool) {
        for (buffer, values) in self.gradients.iter().zip(gradients(number)) {
            self.gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(&values));
        }
        self.gpu.submit(|encoder| {
            self.trainer.record(encoder);
            if ends {
                self.trainer.finish(encoder);
            }
        });
    }

    fn save(&self) -> Checkpoint {
        self.gpu.submit(|encoder| self.trainer.save(encoder).unwrap()).wait().unwrap()
    }

    fn load(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        self.trainer.load(&self.gpu.queue, checkpoint)
    }
}

/// The same on the CPU path.
struct Here {
    trainer: cpu::Trainer,
    singles: Vec<Vec<f32>>,
    halves: Vec<Vec<bf16>>,
}

fn parameters<'a>(singles: &'a mut [Vec<f32>], halves: &'a mut [Vec<bf16>]) -> Vec<ParameterMut<'a>> {
    let each = singles.iter_mut().zip(halves).enumerate();
    let kept = |(t, (single, half)): (usize, (&'a mut Vec<f32>, &'a mut Vec<bf16>))| match KEPT[t] {
        DType::F32 => ParameterMut::F32(single),
        _ if t == CHANCE => ParameterMut::Stochastic(half),
        _ => ParameterMut::Bf16(single, half),
    };
    each.map(kept).collect()
}

impl Here {
    fn new(optimizer: Optimizer) -> Here {
        let mut singles: Vec<Vec<f32>> = (0..4).map(|t| vec![0.0; SIZES[t]]).collect();
        singles[0] = begin(0);
        let half = |t: usize| begin(t).iter().map(|&x| bf16::from_f32(x)).collect();
        let mut halves: Vec<Vec<bf16>> = (0..4).map(half).collect();
        let like = gradients(0);
        let each = like.iter().zip(parameters(&mut singles, &mut halves)).enumerate();
        let steps: Vec<StepMut<'_>> = each
            .map(|(t, (g, p))| {
                let step = StepMut::new(format!("t{t}"), &g[..], p);
                if t == CHANCE { step.stochastic_rounding(5) } else { step }
            })
            .collect();
        let trainer = cpu::prepare_training(&steps, &clip(), optimizer, MICRO_BATCHES).unwrap();
        drop(steps);
        Here { trainer, singles, halves }
    }

    fn micro_batch(&mut self, number: u64, ends: bool) {
        let Here { trainer, singles, halves } = self;
        let g = gradients(number);
        let slices = g.iter().map(|g| &g[..]);
        trainer.record(slices.zip(parameters(singles, halves))).unwrap();
        if ends {
            trainer.finish(parameters(singles, halves)).unwrap();
        }
    }

    fn save(&mut self) -> Checkpoint {
        let Here { trainer, singles, halves } = self;
        trainer.save(parameters(singles, halves)).unwrap()
    }

    fn load(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let Here { trainer, singles, halves } = self;
        trainer.load(checkpoint, parameters(singles, halves))
    }
}

/// As a file and back.
fn through_a_file(checkpoint: &Checkpoint) -> Checkpoint {
    Checkpoint::from_bytes(&checkpoint.to_bytes().unwrap()).unwrap()
}

/// Epochs of 16 micro-batches, so that the last one is by itself.
fn ends(number: u64) -> bool {
    number % 16 == 15
}

fn optimizers() -> [Optimizer; 2] {
    [Adam::adamw(0.01).weight_decay(0.1).into(), Sgd::new(0.05).momentum(0.9).dampening(0.1).into()]
}

#[test]
fn going_on_is_not_having_stopped_on_the_cpu() {
    // 94 epochs make 564 steps.
    let (all, mut random) = (16 * 94, Random(3));
    for optimizer in optimizers() {
        let mut whole = Here::new(optimizer);
        (0..all).for_each(|number| whole.micro_batch(number, ends(number)));
        let want = whole.save();
        assert!(want.history().unwrap().updates() >= 500, "{:?}", want.history());
        // In the middle of a sum and at its end.
        for stop in [random.bits() % all, random.bits() % all / 16 * 16] {
            let mut first = Here::new(optimizer);
            (0..stop).for_each(|number| first.micro_batch(number, ends(number)));
            let saved = through_a_file(&first.save());
            assert_eq!(u64::from(saved.accumulated()), stop % 16 % 3);
            let mut second = Here::new(optimizer);
            second.load(&saved).unwrap();
            assert_eq!(second.save(), saved);
            (stop..all).for_each(|number| second.micro_batch(number, ends(number)));
            assert_eq!(second.save(), want, "{optimizer:?}, stopped before micro-batch {stop}");
        }
    }
}

#[test]
fn going_on_is_not_having_stopped_on_a_device() {
    let Some(gpu) = gpu() else { return };
    let (all, mut random) = (if gpu.compiles_slowly() { 160 } else { 16 * 94 }, Random(4));
    for optimizer in optimizers() {
        let whole = There::new(&gpu, &gpu.clipper, optimizer);
        (0..all).for_each(|number| whole.micro_batch(number, ends(number)));
        let want = whole.save();
        let stop = random.bits() % all;
        let first = There::new(&gpu, &gpu.clipper, optimizer);
        (0..stop).for_each(|number| first.micro_batch(number, ends(number)));
        let saving = gpu.submit(|encoder| first.trainer.save(encoder).unwrap());
        // What follows in the queue is not in what was saved.
        first.micro_batch(stop, false);
        let saved = through_a_file(&saving.wait().unwrap());
        assert_eq!(u64::from(saved.accumulated()), stop % 16 % 3);
        let second = There::new(&gpu, &gpu.clipper, optimizer);
        second.load(&saved).unwrap();
        assert_eq!(second.save(), saved, "{}", gpu.name);
        (stop..all).for_each(|number| second.micro_batch(number, ends(number)));
        assert_eq!(second.save(), want, "{optimizer:?}, stopped before micro-batch {stop} on {}", gpu.name);
        // On the CPU path what was saved on the device is the same, and so is the way back.
        let mut here = Here::new(optimizer);
        here.load(&saved).unwrap();
        assert_eq!(here.save(), saved);
        let third = There::new(&gpu, &gpu.clipper, optimizer);
        third.load(&here.save()).unwrap();
        assert_eq!(third.save(), saved, "{}", gpu.name);
    }
}

/// As PyTorch has it: no history, no parameters, and the number of steps at each tensor.
#[test]
fn an_optimizer_of_pytorch_is_gone_on_from() {
    let adam = optimizers()[0];
    let plain = Clip::global_norm(1.0);
    let g = |t: u64| data(Distribution::Uniform(1.0), 50, t);
    let mut p = data(Distribution::Uniform(1.0), 50, 99);
    let prepare =
        |p: &mut [f32]| cpu::prepare_training(&[StepMut::new("w", &g(0)[..], p)], &plain, adam, 1).unwrap();
    let mut run = prepare(&mut p);
    for t in 0..7 {
        run.record([(&g(t)[..], &mut p)]).unwrap();
    }
    let saved = run.save([&mut p]).unwrap();
    let tensors: Vec<_> = saved.tensors().filter(|(name, ..)| *name != "w").collect();
    let names: Vec<&str> = tensors.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, ["w.exp_avg", "w.exp_avg_sq", "w.step"]);
    let views = tensors
        .iter()
        .map(|(name, _, shape, bytes)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()));
    let file = safetensors::serialize(views, None).unwrap();
    let mut q = p.clone();
    let mut other = prepare(&mut q);
    other.load(&Checkpoint::from_bytes(&file).unwrap(), [&mut q]).unwrap();
    assert_eq!(q, p, "there were no parameters in the file");
    run.record([(&g(7)[..], &mut p)]).unwrap();
    other.record([(&g(7)[..], &mut q)]).unwrap();
    assert_eq!((p, other.step().report().unwrap().updates), (q, 8));
}

/// Changes a tensor of a file, and says whether it stays.
type Edit<'e> = dyn Fn(&str, &mut Dtype, &mut Vec<usize>, &mut Vec<u8>) -> bool + 'e;

/// Files that are cut, edited, of other tensors or another run: each is refused, and nothing has changed then.
#[test]
fn what_is_no_run_of_these_tensors_changes_nothing() {
    let optimizer = optimizers()[0];
    let mut run = Here::new(optimizer);
    (0..20).for_each(|number| run.micro_batch(number, ends(number)));
    let good = run.save();
    let file = good.to_bytes().unwrap();
    for cut in [0, 7, 8, 100, file.len() / 2, file.len() - 1] {
        assert!(Checkpoint::from_bytes(&file[..cut]).is_err(), "{cut} bytes");
    }
    let edited = |edit: &Edit<'_>, extra: Option<&str>| {
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        let header = safetensors::SafeTensors::read_metadata(&file).unwrap().1.metadata().clone();
        let mut all: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        for (name, view) in tensors.iter() {
            let (mut dtype, mut shape, mut bytes) =
                (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            if edit(name, &mut dtype, &mut shape, &mut bytes) {
                all.push((name.to_owned(), dtype, shape, bytes));
            }
        }
        all.extend(extra.map(|name| (name.to_owned(), Dtype::F32, vec![1], vec![0; 4])));
        let views = all.iter().map(|(n, d, s, b)| (n, TensorView::new(*d, s.clone(), b).unwrap()));
        safetensors::serialize(views, header).unwrap()
    };
    let without = |lost: &'static str| edited(&move |name, _, _, _| name != lost, None);
    let with = |of: &'static str, at: usize, put: &'static [u8]| {
        edited(
            &move |name, _, _, bytes| {
                if name == of {
                    bytes[at..at + put.len()].copy_from_slice(put);
                }
                true
            },
            None,
        )
    };
    // The scale is the first word of the progress, which ends a history whose thresholds do not adapt; here states follow.
    let scale = {
        let history = good.history().unwrap().to_bytes();
        let bits = good.history().unwrap().loss_scale(&clip()).to_le_bytes();
        (0..history.len() - 4).step_by(4).find(|&at| history[at..at + 4] == bits).unwrap()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("`t0.exp_avg`, given none", without("t0.exp_avg")),
        ("`t2.step`, given none", without("t2.step")),
        ("`t1.accumulator`, given none", without("t1.accumulator")),
        ("given `t9`", edited(&|_, _, _, _| true, Some("t9"))),
        (
            "tensor `t1`: required bf16 of [5001], given bf16 of [3, 1667]",
            edited(
                &|name, _, shape, _| {
                    if name == "t1" {
                        *shape = vec![3, 1667];
                    }
                    true
                },
                None,
            ),
        ),
        (
            "tensor `t2`: required bf16 of [1], given f16 of [1]",
            edited(
                &|name, dtype, _, _| {
                    if name == "t2" {
                        *dtype = Dtype::F16;
                    }
                    true
                },
                None,
            ),
        ),
        (
            "tensor `t0.exp_avg_sq`: required means of squares, given -1",
            with("t0.exp_avg_sq", 40, &[0, 0, 0x80, 0xbf]),
        ),
        ("tensor `t3.step`: required", with("t3.step", 0, &[0, 0, 0x80, 0x3f])),
        ("a loss scale of 0", with("gradclip.history", scale, &[0; 4])),
        ("a loss scale of NaN", with("gradclip.history", scale, &[0, 0, 0xc0, 0x7f])),
        ("that do not begin as one", with("gradclip.history", 0, b"other")),
        ("required version 1, given `2`", {
            let at = file.windows(22).position(|w| w == *b"\"gradclip.version\":\"1\"").unwrap();
            let mut file = file.clone();
            file[at + 20] = b'2';
            file
        }),
    ];
    let gpu = gpu();
    let there = gpu.as_ref().map(|gpu| There::new(gpu, &gpu.clipper, optimizer));
    let mut other = Here::new(optimizer);
    other.micro_batch(3, true);
    if let Some(there) = &there {
        there.micro_batch(3, true);
    }
    let (before, before_there) = (other.save(), there.as_ref().map(There::save));
    for (what, file) in cases {
        let refused =
            Checkpoint::from_bytes(&file).and_then(|read| other.load(&read)).unwrap_err().to_string();
        assert!(refused.contains(what), "{what}: {refused}");
        assert_eq!(other.save(), before, "{what}");
        let Some(there) = &there else { continue };
        let refused =
            Checkpoint::from_bytes(&file).and_then(|read| there.load(&read)).unwrap_err().to_string();
        assert!(refused.contains(what), "{what}: {refused}");
        assert_eq!(Some(there.save()), before_there, "{what}");
    }
    // That of another optimiser and of another clip.
    assert!(Here::new(optimizers()[1]).load(&good).is_err());
    let mut p = vec![0.0f32; 3];
    let g = [1.0f32; 3];
    let clip = Clip::global_norm(1.0);
    let mut small =
        cpu::prepare_training(&[StepMut::new("t0", &g[..], &mut p)], &clip, optimizer, 1).unwrap();
    assert!(small.load(&good, [&mut p]).is_err());
    // Two tensors whose names in the file are one.
    let (mut a, mut b) = (vec![0.0f32; 3], vec![0.0f32; 3]);
    let steps = [StepMut::new("w", &g[..], &mut a), StepMut::new("w.exp_avg", &g[..], &mut b)];
    let same = cpu::prepare_training(&steps, &clip, optimizer, 1).unwrap();
    let refused = same.save([&mut a, &mut b]).unwrap_err();
    assert!(matches!(refused, CheckpointError::Unexpected { ref name } if name == "w.exp_avg"), "{refused}");
}

/// Parameters of 16 bits that share words with each other, or with what is not of the run, are restored, zeros, infinity and the
/// smallest numbers among them; what lies beside them keeps every bit.
#[test]
fn halves_that_share_words() {
    let Some(gpu) = gpu() else { return };
    let gradient = gpu.upload(bytemuck::cast_slice(&[1.0f32; 8]));
    let train = |grads: &[Grad]| {
        gpu.clipper.prepare_training(grads, &Clip::measure(), Sgd::new(0.5).weight_decay(0.1), 1).unwrap()
    };
    let save = |trainer: &Trainer| gpu.submit(|encoder| trainer.save(encoder).unwrap()).wait().unwrap();
    // The same numbers in both types, as bits: 1, -0, infinity, 0, the least, 0, -1, 2.
    for (dtype, bits) in [
        (DType::Bf16, [0x3f80u16, 0x8000, 0x7f80, 0, 1, 0, 0xbf80, 0x4000]),
        (DType::F16, [0x3c00, 0x8000, 0x7c00, 0, 1, 0, 0xbc00, 0x4000]),
    ] {
        let arena = gpu.upload(bytemuck::cast_slice(&bits));
        let grad = |name: &str, first: u64, len: u64| {
            let grad = Grad::range(name, &gradient, 4 * first, len);
            grad.parameter(&arena, 2 * first, dtype)
        };
        for grads in [
            vec![grad("a", 0, 3), grad("b", 3, 1), grad("c", 4, 1), grad("e", 5, 2)],
            vec![grad("b", 3, 1)],
            vec![grad("c", 4, 1)],
            vec![grad("d", 1, 5)],
            vec![grad("e", 5, 2), grad("f", 1, 1)],
        ] {
            let trainer = train(&grads);
            let before = save(&trainer);
            let others = [0x1234u16; 8];
            gpu.queue.write_buffer(&arena, 0, bytemuck::cast_slice(&others));
            trainer.load(&gpu.queue, &before).unwrap();
            assert_eq!(save(&trainer), before, "{} on {}", grads.len(), gpu.name);
            let ours = |i: u64| trainer.grads().iter().any(|g| own(g.name()).contains(&i));
            let want: Vec<u16> = (0..8).map(|i| if ours(i) { bits[i as usize] } else { 0x1234 }).collect();
            assert_eq!(gpu.read::<u16>(&arena), want, "{dtype} on {}", gpu.name);
            gpu.queue.write_buffer(&arena, 0, bytemuck::cast_slice(&bits));
        }
    }
    let usage = wgpu::BufferUsages::STORAGE;
    let plain = wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false };
    let closed = gpu.device.create_buffer(&plain);
    let trainer = train(&[Grad::range("w", &gradient, 0, 4).parameter(&closed, 0, DType::F32)]);
    let refused = gpu.submit(|encoder| trainer.save(encoder).unwrap_err());
    assert!(refused.to_string().contains("tensor `w`: required a buffer of usage"), "{refused}");
}

/// A run is taken once; later there is none.
#[test]
fn a_saved_run_is_taken_once() {
    let Some(gpu) = gpu() else { return };
    let there = There::new(&gpu, &gpu.clipper, optimizers()[0]);
    let mut saving = gpu.submit(|encoder| there.trainer.save(encoder).unwrap());
    gpu.wait().unwrap();
    assert!(saving.try_take().unwrap().is_ok());
    assert!(saving.try_take().is_none() && saving.try_take().is_none());
}

/// What SGD with a dampening above 1 leaves is a run; counts at the end of their range are none.
#[test]
fn histories_of_every_run_are_read() {
    let sgd = Sgd::new(0.1).momentum(0.9).dampening(1.5);
    let (g, mut p) = ([1.0f32; 3], [0.0f32; 3]);
    let like = [StepMut::new("w", &g[..], &mut p)];
    let mut run = cpu::prepare_training(&like, &Clip::measure(), sgd, 1).unwrap();
    (0..2).for_each(|_| assert!(run.record([(&g[..], &mut p)]).unwrap()));
    let saved = run.save([&mut p]).unwrap();
    assert_eq!(through_a_file(&saved), saved);
    let bytes = saved.history().unwrap().to_bytes();
    let updates = (0..bytes.len() - 4).step_by(4).filter(|&at| bytes[at..at + 4] == 2u32.to_le_bytes());
    for at in updates {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(gradclip::History::from_bytes(&bytes).is_err(), "a count at byte {at}");
    }
}

/// Places of the tensors of [`halves_that_share_words`].
fn own(name: &str) -> std::ops::Range<u64> {
    match name {
        "a" => 0..3,
        "b" => 3..4,
        "c" => 4..5,
        "d" => 1..6,
        "e" => 5..7,
        _ => 1..2,
    }
}

/// What was never submitted is told, and not waited for.
#[test]
fn a_run_that_was_not_submitted() {
    let Some(gpu) = gpu() else { return };
    let there = There::new(&gpu, &gpu.clipper, optimizers()[0]);
    let mut encoder = gpu.encoder();
    let saving = there.trainer.save(&mut encoder).unwrap();
    assert!(matches!(saving.wait(), Err(CheckpointError::ReadBack { .. })));
    drop(encoder);
    assert_eq!(gpu.read::<f32>(&there.parameters[0])[..SIZES[0]], begin(0));
}
