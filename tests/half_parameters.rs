//! Parameters of 16 bits: with masters they follow the step on `f32`, without they keep its mean; wherever they lie.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Data, Distribution, Element, Gpu, Placing, budget, data, gpu, named};
use gradclip::cpu::{self, Moments, ParameterMut, StepMut};
use gradclip::{
    Adam, Adopt, Clip, Clipper, DType, Grad, History, Lars, Lion, NAdam, Optimizer, PrepareError, RAdam, Sgd,
    Spam, Stepper,
};
use gradclip_verify::gpu::Operands;
use half::{bf16, f16};

/// Odd lengths, so that where tensors are packed halves begin in the upper half of a word; one and several chunks.
const SIZES: [usize; 8] = [1, 3, 16_385, 2, 40_001, 16_384, 257, 1];

/// A buffer each; one behind the other, so that two tensors share words; the same beside other data.
const PLACINGS: [Placing; 3] = [Placing::APART, Placing::PACKED, Placing::arena(2, 6)];

/// Forms of kernels and placings to try: every one of both is a kernel more.
fn tried(gpu: &Gpu) -> (usize, &'static [Placing]) {
    if gpu.compiles_slowly() { (1, &PLACINGS[1..2]) } else { (2, &PLACINGS) }
}

fn values(kind: Distribution, seed: u64) -> Vec<Vec<f32>> {
    SIZES.iter().zip(seed..).map(|(&n, seed)| data(kind, n, seed)).collect()
}

fn optimizers() -> Vec<Optimizer> {
    vec![
        Sgd::new(0.1).weight_decay(0.05).into(),
        Sgd::new(0.1).momentum(0.9).nesterov(true).into(),
        Adam::adamw(0.01).weight_decay(0.1).into(),
        NAdam::new(0.01).into(),
        RAdam::new(0.01).weight_decay(0.1).into(),
        Lars::new(0.5).weight_decay(0.05).into(),
        Adam::lamb(0.01).weight_decay(0.1).into(),
        Spam::new(0.01).interval(2).warmup(2).delay(1).into(),
        Adopt::new(0.01).into(),
        Lion::new(0.01).into(),
    ]
}

/// How parameters are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Keeps {
    Single,
    Masters(Element),
    /// With this seed.
    Chance(u64),
}

/// Gradients, parameters, masters and moments on a device, in this order.
struct There<'g> {
    gpu: &'g Gpu,
    stepper: Stepper,
    placed: Operands,
    data: Vec<Data>,
    keeps: Keeps,
}

impl<'g> There<'g> {
    /// Parameters are given as `f32`; masters begin as zeros.
    fn new(
        (gpu, clipper): (&'g Gpu, &Clipper),
        parameters: &[Vec<f32>],
        keeps: Keeps,
        placing: Placing,
        optimizer: Optimizer,
    ) -> There<'g> {
        let n = parameters.len();
        let element = match keeps {
            Keeps::Single => Element::F32,
            Keeps::Masters(element) => element,
            Keeps::Chance(_) => Element::Bf16,
        };
        let zeros = || parameters.iter().map(|p| Data::F32(vec![0.0; p.len()]));
        let masters = matches!(keeps, Keeps::Masters(_));
        let mut data: Vec<Data> = zeros().collect();
        data.extend(parameters.iter().map(|p| Data::rounded(element, p)));
        (0..optimizer.moments() + usize::from(masters)).for_each(|_| data.extend(zeros()));
        let placed = Operands::upload(gpu, data.iter(), placing);
        let grad = |t: usize| {
            let ((g, at), (p, there)) = (placed.at(t), placed.at(n + t));
            let grad = Grad::range(format!("t{t}"), g, at, parameters[t].len() as u64);
            let grad = grad.parameter(p, there, element.into());
            let others = (0..optimizer.moments()).map(|k| placed.at((2 + k) * n + t));
            let grad = others.fold(grad, |grad, (buffer, offset)| grad.moment(buffer, offset));
            let (last, offset) = placed.at(data.len() - n + t);
            match keeps {
                Keeps::Single => grad,
                Keeps::Masters(_) => grad.master(last, offset),
                Keeps::Chance(seed) => grad.stochastic_rounding(seed),
            }
        };
        let grads: Vec<Grad> = (0..n).map(grad).collect();
        let stepper = clipper.prepare_step(&grads, &Clip::global_norm(10.0), optimizer).unwrap();
        There { gpu, stepper, placed, data, keeps }
    }

    /// One step, beside which nothing is written. What the parameters are then, and the masters where there are some.
    fn step(&mut self, gradients: &[Vec<f32>]) -> (Vec<Data>, Vec<Data>) {
        let n = gradients.len();
        self.data.iter_mut().zip(gradients).for_each(|(own, g)| *own = Data::F32(g.clone()));
        self.placed.put(self.gpu, self.data.iter());
        self.gpu.submit(|encoder| self.stepper.record_step(encoder));
        self.data = self.placed.read(self.gpu).unwrap();
        let unchanged = self.data.iter().zip(gradients).all(|(own, g)| own.floats() == *g);
        assert!(unchanged, "a step wrote gradients");
        let masters =
            if matches!(self.keeps, Keeps::Masters(_)) { self.data.len() - n } else { self.data.len() };
        (self.data[n..2 * n].to_vec(), self.data[masters..].to_vec())
    }
}

/// The same on the CPU path.
struct Here {
    halves: Vec<Data>,
    masters: Vec<Vec<f32>>,
    optimizer: Optimizer,
    history: History,
    moments: Moments,
    seed: Option<u64>,
}

impl Here {
    fn new(parameters: &[Vec<f32>], keeps: Keeps, optimizer: Optimizer) -> Here {
        let (element, seed) = match keeps {
            Keeps::Single => panic!("what is compared with"),
            Keeps::Masters(element) => (element, None),
            Keeps::Chance(seed) => (Element::Bf16, Some(seed)),
        };
        Here {
            halves: parameters.iter().map(|p| Data::rounded(element, p)).collect(),
            masters: parameters.iter().map(|p| vec![0.0; p.len()]).collect(),
            optimizer,
            history: History::default(),
            moments: Moments::default(),
            seed,
        }
    }

    fn step(&mut self, gradients: &[Vec<f32>]) {
        let Here { halves, masters, optimizer, history, moments, seed } = self;
        let each = gradients.iter().zip(halves.iter_mut().zip(masters)).enumerate();
        let mut steps: Vec<StepMut<'_>> = each
            .map(|(t, (g, (half, master)))| {
                let parameter = match (half, &seed) {
                    (Data::Bf16(half), Some(_)) => ParameterMut::Stochastic(half),
                    (Data::Bf16(half), None) => ParameterMut::Bf16(master, half),
                    (Data::F16(half), _) => ParameterMut::F16(master, half),
                    other => panic!("{other:?}"),
                };
                let step = StepMut::new(format!("t{t}"), &g[..], parameter);
                if let Some(seed) = *seed { step.stochastic_rounding(seed) } else { step }
            })
            .collect();
        cpu::step(&mut steps, &Clip::global_norm(10.0), *optimizer, history, moments).unwrap();
    }
}

fn assert_same(got: &[Data], want: &[Data], what: &str) {
    for (t, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.len(), want.len());
        for i in 0..got.len() {
            let (g, w) = (got.bits(i), want.bits(i));
            assert_eq!(g, w, "{what}: t{t}[{i}] is {}, not {}", got.value(i), want.value(i));
        }
    }
    assert_eq!(got.len(), want.len());
}

/// With masters the step is that on `f32` parameters to the bit, and the parameters are its results, rounded once.
#[test]
fn masters_follow_the_step_on_f32() {
    let gpu = gpu();
    for (optimizer, element) in
        optimizers().into_iter().zip([Element::F16, Element::Bf16].into_iter().cycle())
    {
        let begin = values(Distribution::Uniform(1.0), 1);
        let begin: Vec<Vec<f32>> = begin.iter().map(|p| Data::rounded(element, p).floats()).collect();
        let steps: Vec<_> =
            (0..budget::TRAINING_STEPS as u64).map(|t| values(Distribution::Uniform(1.0), 50 + t)).collect();
        let what = format!("{optimizer:?}, {element:?}");

        // On the CPU path beside that on f32.
        let mut here = Here::new(&begin, Keeps::Masters(element), optimizer);
        let mut single = common::stepping::Here::new(
            &named(&begin).into_iter().zip(&begin).map(|(t, p)| t.parameter(p)).collect::<Vec<_>>(),
            &Clip::global_norm(10.0),
            optimizer,
        );
        for gradients in &steps {
            here.step(gradients);
            single.put(gradients);
            single.step();
            let masters: Vec<Data> = here.masters.iter().map(Data::from).collect();
            let want: Vec<Data> = single.parameters().iter().map(Data::from).collect();
            assert_same(&masters, &want, &format!("masters on the CPU, {what}"));
            let rounded: Vec<Data> = single.parameters().iter().map(|p| Data::rounded(element, p)).collect();
            assert_same(&here.halves, &rounded, &format!("parameters on the CPU, {what}"));
        }

        // On the device beside that on f32 there.
        let Some(gpu) = &gpu else { continue };
        let (forms, placings) = tried(gpu);
        for clipper in &gpu.forms()[..forms] {
            let on = (&**gpu, clipper);
            let mut single = There::new(on, &begin, Keeps::Single, Placing::APART, optimizer);
            let want: Vec<Vec<Data>> = steps.iter().map(|g| single.step(g).0).collect();
            for &placing in placings {
                let mut mixed = There::new(on, &begin, Keeps::Masters(element), placing, optimizer);
                for (gradients, want) in steps.iter().zip(&want) {
                    let (halves, masters) = mixed.step(gradients);
                    assert_same(&masters, want, &format!("masters on {}, {what}, {placing:?}", gpu.name));
                    let rounded: Vec<Data> =
                        want.iter().map(|p| Data::rounded(element, &p.floats())).collect();
                    assert_same(
                        &halves,
                        &rounded,
                        &format!("parameters on {}, {what}, {placing:?}", gpu.name),
                    );
                }
            }
        }
    }
}

/// Every way in which an `f32` may lie between two halves, and what is not finite, rounds as `half` rounds it.
#[test]
fn special_masters_are_rounded_as_others_round() {
    let mut masters: Vec<f32> = vec![
        65_519.0,
        65_520.0,
        -65_520.0,
        70_000.0,
        f32::MAX,
        -f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        6e-8,
        2.9e-8,
        3e-8,
        -5.9e-8,
        f32::from_bits(1),
        -f32::from_bits(0x7f_ffff),
        6.1e-5,
        6.09e-5,
        1.0,
        -0.0,
    ];
    let mut bits = 0x1234_5678u32;
    masters.extend((0..4001).map(|i| {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Of every sign, exponent and mantissa; every third exactly between two bf16, others between two f16.
        f32::from_bits(match i % 3 {
            0 => bits & 0xffff_0000 | 0x8000,
            1 => bits & 0xffff_e000 | 0x1000,
            _ => bits,
        })
    }));
    let g = vec![0.0f32; masters.len()];
    let check = |halves: &Data, who: &str| {
        for (i, &m) in masters.iter().enumerate() {
            let want = Data::rounded(halves.element(), &[m]);
            let nan = halves.value(i).is_nan() && m.is_nan();
            assert!(nan || halves.bits(i) == want.bits(0), "{who}: {m:e} became {}", halves.value(i));
        }
    };
    for element in [Element::F16, Element::Bf16] {
        let (mut own, mut half) = (masters.clone(), Data::rounded(element, &masters));
        let parameter = match &mut half {
            Data::F16(half) => ParameterMut::F16(&mut own, half),
            Data::Bf16(half) => ParameterMut::Bf16(&mut own, half),
            other => panic!("{other:?}"),
        };
        let mut steps = [StepMut::new("w", &g[..], parameter)];
        let (mut history, mut moments) = (History::default(), Moments::default());
        cpu::step(&mut steps, &Clip::measure(), Sgd::new(0.5), &mut history, &mut moments).unwrap();
        check(&half, "CPU");
        let Some(gpu) = gpu() else { continue };
        for clipper in gpu.forms() {
            let zeros = Data::rounded(element, &vec![0.0; masters.len()]);
            let (gradient, half) = (gpu.upload(bytemuck::cast_slice(&g)), gpu.upload(&padded(zeros.bytes())));
            let master = gpu.upload(bytemuck::cast_slice(&masters));
            let grad = Grad::new("w", &gradient).parameter(&half, 0, element.into()).master(&master, 0);
            let stepper = clipper.prepare_step(&[grad], &Clip::measure(), Sgd::new(0.5)).unwrap();
            gpu.submit(|encoder| stepper.record_step(encoder));
            let bytes: Vec<u8> = gpu.read(&half);
            check(&Data::from_bytes(element, &bytes[..2 * masters.len()]), &gpu.name);
            assert_eq!(bytes[2 * masters.len()..], padded(zeros.bytes())[2 * masters.len()..]);
        }
    }
}

/// To whole words, with something that has to stay.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0xa5);
    bytes
}

/// Steps of a quarter of the distance of two `bf16` go through with a probability of a quarter: with 40,001 elements the mean after
/// eight steps is that of the steps within five times its deviation. The same bits on the CPU path and wherever a device has
/// them; others for another seed, another tensor and another step.
#[test]
fn rounding_by_chance_keeps_the_mean() {
    // Between 1/2 and 1 bf16 lie 2^-8 apart. Sums of few digits, so that no arithmetic rounds but what is tested.
    let (begin, lr) = (vec![vec![0.75f32; 40_001]; 2], 2f64.powi(-10));
    let gradients: Vec<Vec<f32>> = begin.iter().map(|b| vec![2f32.powi(-8); b.len()]).collect();
    let sgd = Optimizer::from(Sgd::new(lr * 256.0));
    let run = |seed: u64| {
        let mut here = Here::new(&begin, Keeps::Chance(seed), sgd);
        let steps = (0..8).map(|_| {
            here.step(&gradients);
            here.halves.clone()
        });
        steps.collect::<Vec<_>>()
    };
    let ours = run(7);
    for tensor in &ours[7] {
        let mean = tensor.values().sum::<f64>() / tensor.len() as f64;
        // Each step adds at most p (1 - p) = 3/16 of (2^-8)^2 to an element's variance.
        let deviation = (8.0 * 3.0 / 16.0 / tensor.len() as f64).sqrt() * 2f64.powi(-8);
        let want = 0.75 - 8.0 * 2f64.powi(-10);
        assert!((mean - want).abs() < 5.0 * deviation, "{mean} is not {want}, deviation {deviation}");
        let steps = |x: f64| (0.75 - x) * 256.0;
        assert!(tensor.values().all(|x| steps(x).fract() == 0.0 && (0.0..=8.0).contains(&steps(x))));
    }
    assert_ne!(ours[7][0].bytes(), ours[7][1].bytes(), "tensors share their chances");
    assert_ne!(ours[7][0].bytes(), run(8)[7][1].bytes(), "seeds share their chances");
    let moved = |from: &Data, to: &Data| -> Vec<bool> {
        from.values().zip(to.values()).map(|(a, b)| a != b).collect()
    };
    assert_ne!(moved(&ours[0][0], &ours[1][0]), moved(&ours[1][0], &ours[2][0]), "steps share their chances");
    let Some(gpu) = gpu() else { return };
    let (forms, placings) = tried(&gpu);
    for clipper in &gpu.forms()[..forms] {
        for &placing in placings {
            let mut there = There::new((&gpu, clipper), &begin, Keeps::Chance(7), placing, sgd);
            for (t, want) in ours.iter().enumerate() {
                let (halves, _) = there.step(&gradients);
                assert_same(&halves, want, &format!("step {t} on {}, {placing:?}", gpu.name));
            }
        }
    }
}

/// What is finite stays so: the largest bf16 plus what would round to infinity half of the time.
#[test]
fn rounding_by_chance_stays_finite() {
    let g = vec![-1.0f32; 1000];
    let mut halves = vec![bf16::MAX; 1000];
    let mut steps = [StepMut::new("w", &g[..], &mut halves[..]).stochastic_rounding(1)];
    let lr = f64::from(f32::MAX) / 512.0;
    let (mut history, mut moments) = (History::default(), Moments::default());
    cpu::step(&mut steps, &Clip::measure(), Sgd::new(lr), &mut history, &mut moments).unwrap();
    assert!(halves.iter().all(|&h| h == bf16::MAX));
}

/// Masters that nobody names are allocated, begin as their parameters, and go on in the next stepper.
#[test]
fn masters_are_allocated_and_kept() {
    let Some(gpu) = gpu() else { return };
    let (n, lr) = (1001, 2f64.powi(-10));
    let gradient = gpu.upload(bytemuck::cast_slice(&vec![1.0f32; n]));
    let half = gpu.upload(&padded(bytemuck::cast_slice(&vec![bf16::from_f32(1.0); n])));
    let grads = [Grad::new("w", &gradient).parameter(&half, 0, DType::Bf16)];
    let clip = Clip::global_norm(f32::INFINITY);
    let first = gpu.clipper.prepare_step(&grads, &clip, Sgd::new(lr)).unwrap();
    (0..3).for_each(|_| gpu.submit(|encoder| first.record_step(encoder)));
    let next = gpu.clipper.prepare_step_after(&first, &grads, &clip, Sgd::new(lr)).unwrap();
    gpu.submit(|encoder| next.record_step(encoder));
    let master = next.masters()[0].clone().unwrap();
    let got = gpu.read::<f32>(&master.buffer)[..n].to_vec();
    assert_eq!(master.offset, 0);
    // A bf16 of 1 would have lost each of these steps.
    assert_eq!(got, vec![1.0 - 4.0 / 1024.0; n]);
    assert_eq!(gpu.read::<bf16>(&half)[..n], vec![bf16::from_f32(1.0 - 4.0 / 1024.0); n]);
    let single = [Grad::new("w", &gradient).parameter(&gpu.upload(&vec![0; 4 * n]), 0, DType::F32)];
    let refused = gpu.clipper.prepare_step_after(&first, &single, &clip, Sgd::new(lr)).unwrap_err();
    assert!(refused.to_string().contains("masters"), "{refused}");
}

#[test]
fn what_parameters_of_16_bits_need_is_asked_for_by_name() {
    let (g, mut p, mut short) = ([1.0f32; 4], [bf16::ZERO; 4], [0.0f32; 3]);
    let (mut history, mut moments) = (History::default(), Moments::default());
    let mut refused = |step: StepMut<'_>| {
        let clip = Clip::measure();
        cpu::step(&mut [step], &clip, Sgd::new(0.1), &mut history, &mut moments).unwrap_err().to_string()
    };
    let message = refused(StepMut::new("w", &g[..], (&mut short[..], &mut p[..])));
    assert_eq!(message, "tensor `w`: required a parameter of 4 elements, as its gradient has, given 3");
    assert!(refused(StepMut::new("w", &g[..], &mut p[..])).contains("given no seed for Stochastic"));
    let (mut master, mut half) = ([0.0f32; 4], [f16::ZERO; 4]);
    let mixed = StepMut::new("w", &g[..], (&mut master[..], &mut half[..])).stochastic_rounding(1);
    assert!(refused(mixed).contains("given a seed for Mixed(F16)"));

    let Some(gpu) = gpu() else { return };
    let buffers = [16, 8, 16].map(|bytes| gpu.upload(&vec![0; bytes]));
    let plain = Grad::new("w", &buffers[0]);
    let refused =
        |grad: Grad| gpu.clipper.prepare_step(&[grad], &Clip::measure(), Sgd::new(0.1)).unwrap_err();
    let message =
        refused(plain.clone().parameter(&buffers[2], 0, DType::F32).master(&buffers[0], 0)).to_string();
    assert!(
        message.contains("a master for a parameter of 16 bits") && message.contains("given one for Single")
    );
    let chance = plain.clone().parameter(&buffers[1], 0, DType::F16).stochastic_rounding(1);
    assert!(
        refused(chance)
            .to_string()
            .contains("required a parameter of bf16, to be rounded by chance, given f16")
    );
    let over = plain.clone().parameter(&buffers[1], 0, DType::Bf16).master(&buffers[2], 4);
    assert!(matches!(refused(over), PrepareError::Plan(gradclip::PlanError::OutOfRange { .. })));
    let odd = plain.parameter(&buffers[1], 1, DType::Bf16);
    assert!(matches!(refused(odd), PrepareError::Plan(gradclip::PlanError::Unaligned { .. })));
}
