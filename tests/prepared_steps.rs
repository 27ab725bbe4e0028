//! A prepared step on the CPU: the same bits as one that is not, step after step, without allocating.

#![allow(clippy::unwrap_used)]

mod common;

#[path = "common/allocations.rs"]
mod allocations;

use allocations::allocations;
use common::{Distribution, data};
use gradclip::cpu::{self, Moments, PreparedStep, StepMut};
use gradclip::{
    Adam, Adapt, Clip, ClipError, Group, History, Lars, LossScale, NonFinite, Optimizer, OptimizerError,
    Report, Scope, Sgd, Spam, StepError, Units, UpdateLimit,
};
use half::{bf16, f16};

/// Every optimiser, with every constant that it has.
fn optimizers() -> Vec<Optimizer> {
    vec![
        Sgd::new(0.1).weight_decay(0.05).into(),
        Sgd::new(0.1).momentum(0.8).dampening(0.3).weight_decay(0.01).into(),
        Sgd::new(0.1).momentum(0.9).nesterov(true).into(),
        Adam::new(0.01).betas(0.8, 0.95).eps(1e-3).weight_decay(0.1).into(),
        Adam::new(0.01).eps(1e-4).eps_hat(true).into(),
        Adam::adamw(0.01).into(),
        Adam::lamb(0.01).weight_decay(0.1).into(),
        Adam::new(0.01).limit(UpdateLimit::Rms(0.5)).into(),
        Lars::new(0.1).weight_decay(0.05).into(),
        Spam::new(0.01).interval(2).warmup(2).delay(1).into(),
    ]
}

fn clips() -> Vec<Clip> {
    vec![
        Clip::global_norm(1.0),
        Clip::global_norm(1.0).adapt(Adapt::Mean { factor: 0.9, window: 2 }),
        Clip::per_tensor_norm(0.1).adapt(Adapt::Average { factor: 0.9, decay: 0.5 }),
        Clip::per_group_norm(0.1).total(0.3).loss_scale(LossScale::default().interval(2)),
        Clip::per_unit_norm(0.1, Units::OutputFirst).on_non_finite(NonFinite::Sanitize),
        Clip::per_row_norm(0.1).unscale(0.25),
        Clip::agc(0.01, Units::OutputFirst),
        Clip::value(0.01),
    ]
}

/// Tensors with what a step needs of them: five rows, or units of 25 elements, of any type, in two groups.
struct Set {
    lens: Vec<usize>,
    groups: [Group; 2],
    parameters: Vec<Vec<f32>>,
    singles: Vec<Vec<f32>>,
    halves: Vec<Vec<f16>>,
    brains: Vec<Vec<bf16>>,
}

/// Parameters move and gradients are only read, so these may be borrowed while others are.
macro_rules! gradient {
    ($set:expr, $i:expr) => {
        match $i % 3 {
            0 => cpu::Slice::from(&$set.singles[$i][..]),
            1 => cpu::Slice::from(&$set.halves[$i][..]),
            _ => cpu::Slice::from(&$set.brains[$i][..]),
        }
    };
}

impl Set {
    fn new(lens: &[usize]) -> Set {
        let of =
            |seed: u64| lens.iter().zip(seed..).map(|(&n, seed)| data(Distribution::Uniform(1.0), n, seed));
        let mut set = Set {
            lens: lens.to_vec(),
            groups: [Group::new("a", 0.5), Group::excluded("b")],
            parameters: of(100).collect(),
            singles: Vec::new(),
            halves: Vec::new(),
            brains: Vec::new(),
        };
        set.next(0, false);
        set
    }

    /// Other gradients, as a backward pass leaves them.
    fn next(&mut self, step: u64, broken: bool) {
        let seeds = 1000 * step..;
        self.singles =
            self.lens.iter().zip(seeds).map(|(&n, seed)| data(Distribution::Uniform(2.0), n, seed)).collect();
        if broken {
            let len = self.singles[0].len();
            self.singles[0][len / 2] = f32::NAN;
        }
        self.halves = self.singles.iter().map(|v| v.iter().map(|&x| f16::from_f32(x)).collect()).collect();
        self.brains = self.singles.iter().map(|v| v.iter().map(|&x| bf16::from_f32(x)).collect()).collect();
    }

    fn steps(&mut self, clip: &Clip) -> Vec<StepMut<'_>> {
        let Set { parameters, groups, .. } = self;
        let all = parameters.iter_mut().enumerate().map(|(i, p)| {
            let (len, rows) = (p.len() as u64, clip.scope == Scope::Row);
            let shape = if rows { [5, len / 5] } else { [len / 25, 25] };
            let step = StepMut::new(format!("t{i}"), gradient!(self, i), p).shape(&shape);
            let step = if i % 2 == 0 { step.lr_scale(0.5) } else { step.weight_decay(0.25) };
            // Where rows are of several tensors, groups have no threshold of their own.
            let grouped = matches!(clip.scope, Scope::Group | Scope::Unit(_));
            if grouped { step.group(&groups[usize::from(i == 1)]) } else { step }
        });
        all.collect()
    }

    fn step(&mut self, prepared: &mut PreparedStep) -> Result<(), ClipError> {
        let parameters = self.parameters.iter_mut().enumerate();
        prepared.step(parameters.map(|(i, p)| (gradient!(self, i), &mut p[..])))
    }
}

fn bits_of(moments: &Moments) -> Vec<Vec<Vec<u32>>> {
    moments.tensors.iter().map(|tensor| common::bits(tensor)).collect()
}

/// A prepared set beside one that is not, for a few steps of other gradients and rates, one of which has a NaN.
fn as_unprepared(lens: &[usize], clip: &Clip, optimizer: Optimizer) {
    let [mut given, mut expected] = [0; 2].map(|_| Set::new(lens));
    let (mut history, mut moments) = (History::default(), Moments::default());
    let mut prepared = cpu::prepare_step(&given.steps(clip), clip, optimizer).unwrap();
    assert_eq!((prepared.norm(), prepared.report()), (None, None));
    for step in 0..5u64 {
        let what = format!("{clip:?}, {optimizer:?}, step {step}");
        given.next(step, step == 2);
        expected.next(step, step == 2);
        let rate = optimizer.with_lr(0.1 / (step + 1) as f64);
        prepared.set_lr(rate.lr()).unwrap();
        assert_eq!(prepared.optimizer(), rate);
        let report = cpu::step(&mut expected.steps(clip), clip, rate, &mut history, &mut moments).unwrap();
        given.step(&mut prepared).unwrap();
        assert_eq!(common::bits(&given.parameters), common::bits(&expected.parameters), "{what}");
        assert_eq!(bits_of(prepared.moments()), bits_of(&moments), "{what}");
        assert_eq!(*prepared.history(), history, "{what}");
        // A NaN is not equal to itself.
        let words = |report: &Report| format!("{report:?}");
        assert_eq!(words(&prepared.report().unwrap()), words(&report), "{what}");
        assert_eq!(prepared.norm().map(f64::to_bits), report.norm().map(f64::to_bits), "{what}");
        assert_eq!(prepared.coefficient(), report.coefficient(), "{what}");
    }
    let made = if clip.non_finite == NonFinite::Skip { 4 } else { 5 };
    assert_eq!((history.steps(), history.updates()), (5, made), "{clip:?}");
}

#[test]
fn the_same_bits_as_unprepared() {
    for clip in clips() {
        for optimizer in optimizers() {
            as_unprepared(&[500, 25, 1000, 75], &clip, optimizer);
        }
    }
}

/// So large that threads share them.
#[test]
fn any_number_of_threads() {
    for clip in clips() {
        for threads in 1..=3 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let prepared = pool.install(|| {
                let mut set = Set::new(&[200_000, 25, 20_000, 75]);
                let mut prepared = cpu::prepare_step(&set.steps(&clip), &clip, Adam::new(0.1)).unwrap();
                (0..2).for_each(|_| set.step(&mut prepared).unwrap());
                (common::bits(&set.parameters), bits_of(prepared.moments()), prepared.report())
            });
            let mut expected = Set::new(&[200_000, 25, 20_000, 75]);
            let (mut history, mut moments) = (History::default(), Moments::default());
            let adam = Adam::new(0.1);
            let mut step =
                || cpu::step(&mut expected.steps(&clip), &clip, adam, &mut history, &mut moments).unwrap();
            step();
            let report = step();
            let unprepared = (common::bits(&expected.parameters), bits_of(&moments), Some(report));
            assert!(prepared == unprepared, "{threads} threads, {clip:?}");
        }
    }
}

/// After the first step nothing is allocated by the thread that calls, but what rayon's queue takes for work of other threads.
#[test]
fn nothing_is_allocated_a_step() {
    for (lens, most) in [(vec![1000; 40], 0), (vec![100_000; 12], 8)] {
        for clip in clips() {
            for optimizer in [optimizers()[0], optimizers()[1], optimizers()[3]] {
                let mut set = Set::new(&lens);
                let mut prepared = cpu::prepare_step(&set.steps(&clip), &clip, optimizer).unwrap();
                let mut step = |t: i32| {
                    prepared.set_lr(0.1 / f64::from(t)).unwrap();
                    set.step(&mut prepared).unwrap();
                };
                step(1);
                step(2);
                let made = allocations(|| (3..13).for_each(&mut step));
                assert!(made <= most, "{made} allocations in 10 steps of {} tensors, {clip:?}", lens.len());
            }
        }
    }
}

/// Whatever does not fit is told, and nothing is written.
#[test]
fn what_was_not_prepared_is_refused() {
    let (a, b) = ([3.0f32, 0.0], [f16::from_f32(4.0)]);
    let (mut p, mut q) = ([1.0f32, 1.0], [1.0f32]);
    let like = [StepMut::new("a", &a[..], &mut p), StepMut::new("b", &b[..], &mut q)];
    let clip = Clip::global_norm(1.0);
    let mut prepared = cpu::prepare_step(&like, &clip, Adam::new(0.1)).unwrap();
    let before = (prepared.moments().clone(), prepared.history().clone());
    type Tensors<'a> = Vec<(cpu::Slice<'a>, &'a mut [f32])>;
    let mut told = |tensors: Tensors<'_>| prepared.step(tensors).unwrap_err().to_string();
    assert_eq!(
        told(vec![(a[..1].into(), &mut p), (b[..].into(), &mut q)]),
        "tensor `a`: required a gradient of 2 elements of f32, as prepared, given 1 of f32"
    );
    let other = [bf16::from_f32(4.0)];
    let error = told(vec![(a[..].into(), &mut p), (other[..].into(), &mut q)]);
    assert!(error.contains("tensor `b`") && error.ends_with("given 1 of bf16"), "{error}");
    let doubles = [3.0f64, 0.0];
    let error = told(vec![(doubles[..].into(), &mut p), (b[..].into(), &mut q)]);
    assert!(error.ends_with("given 2 of f64"), "{error}");
    assert_eq!(
        told(vec![(a[..].into(), &mut p), (b[..].into(), &mut [])]),
        "tensor `b`: required a parameter of 1 elements, as prepared, given 0"
    );
    assert_eq!(prepared.step([(&a[..], &mut p[..])]), Err(ClipError::Count { required: 2, given: 1 }));
    assert_eq!((p, q), ([1.0, 1.0], [1.0]));
    assert_eq!((prepared.moments(), prepared.history()), (&before.0, &before.1));
    // What is prepared is checked as a step is.
    let short = [StepMut::new("a", &a[..], &mut p[..1])];
    let error = cpu::prepare_step(&short, &clip, Sgd::new(0.1)).unwrap_err();
    assert!(matches!(error, StepError::Clip(ClipError::Tensor { .. })));
    let error = cpu::prepare_step(&[], &clip, Sgd::new(-0.1)).unwrap_err();
    assert!(matches!(error, StepError::Optimizer(OptimizerError::Constant { .. })));
}

/// Rates, constants, thresholds, factors and what is remembered change between steps, or stay as they were.
#[test]
fn what_is_set_between_steps() {
    let (g, mut p) = ([3.0f32, 4.0], [0.0f32, 0.0]);
    let like = [StepMut::new("a", &g[..], &mut p)];
    let clip = Clip::global_norm(5.0);
    let mut prepared = cpu::prepare_step(&like, &clip, Sgd::new(1.0)).unwrap();
    let mut moved = |prepared: &mut PreparedStep| {
        p = [0.0, 0.0];
        prepared.step([(&g[..], &mut p[..])]).unwrap();
        p
    };
    assert_eq!(moved(&mut prepared), [-3.0, -4.0]);
    prepared.set_lr(0.5).unwrap();
    // That of the last step is still told.
    assert_eq!(prepared.report().unwrap().lr, Some(1.0));
    assert_eq!(moved(&mut prepared), [-1.5, -2.0]);
    prepared.set_threshold(2.5).unwrap();
    assert_eq!((moved(&mut prepared), prepared.coefficient()), ([-0.75, -1.0], Some(0.5)));
    prepared.set_unscale(0.5).unwrap();
    assert_eq!((moved(&mut prepared), prepared.norm()), ([-0.75, -1.0], Some(2.5)));
    prepared.set_optimizer(Sgd::new(2.0).weight_decay(0.1)).unwrap();
    assert_eq!(moved(&mut prepared), [-3.0, -4.0]);
    assert!(matches!(prepared.set_lr(f64::NAN), Err(OptimizerError::Constant { .. })));
    for other in [Adam::new(2.0).into(), Optimizer::from(Sgd::new(2.0).momentum(0.9))] {
        assert!(matches!(prepared.set_optimizer(other), Err(OptimizerError::Combination { .. })));
    }
    assert!(matches!(prepared.set_threshold(-1.0), Err(ClipError::Threshold { .. })));
    assert!(matches!(prepared.set_unscale(0.0), Err(ClipError::Unscale { .. })));
    let foreign = Moments { tensors: vec![vec![vec![0.0; 3]]] };
    assert!(matches!(prepared.restore_moments(foreign), Err(ClipError::State { .. })));
    assert_eq!((moved(&mut prepared), prepared.history().updates()), ([-3.0, -4.0], 6));
}

/// What a tensor has of its own goes into every step: p - lr * scale * (g + decay * p).
#[test]
fn rates_and_decay_of_each_tensor() {
    let (g, mut p, mut q) = ([8.0f32], [16.0f32], [16.0f32]);
    let of = |q| StepMut::new("b", &g[..], q).lr_scale(0.5).weight_decay(0.25);
    let like = [StepMut::new("a", &g[..], &mut p), of(&mut q)];
    let sgd = Sgd::new(1.0).weight_decay(0.125);
    let mut prepared = cpu::prepare_step(&like, &Clip::measure(), sgd).unwrap();
    prepared.step([(&g[..], &mut p[..]), (&g, &mut q)]).unwrap();
    assert_eq!((p, q), ([6.0], [10.0]));
    prepared.set_optimizer(Sgd::new(0.5)).unwrap();
    prepared.step([(&g[..], &mut p[..]), (&g, &mut q)]).unwrap();
    assert_eq!((p, q), ([2.0], [7.375]));
}

/// What was saved goes on elsewhere as it would have here.
#[test]
fn saved_and_restored() {
    let clip = Clip::global_norm(1.0).adapt(Adapt::Mean { factor: 0.9, window: 2 });
    let mut set = Set::new(&[500, 25, 75]);
    let mut here = cpu::prepare_step(&set.steps(&clip), &clip, Adam::adamw(0.1)).unwrap();
    for step in 0..3 {
        set.next(step, false);
        set.step(&mut here).unwrap();
    }
    let mut there = cpu::prepare_step(&set.steps(&clip), &clip, Adam::adamw(0.1)).unwrap();
    there.restore_history(History::from_bytes(&here.history().to_bytes()).unwrap()).unwrap();
    there.restore_moments(here.moments().clone()).unwrap();
    let before = set.parameters.clone();
    set.step(&mut here).unwrap();
    let after = std::mem::replace(&mut set.parameters, before);
    set.step(&mut there).unwrap();
    assert_eq!(common::bits(&after), common::bits(&set.parameters));
    assert_eq!((here.moments(), here.history()), (there.moments(), there.history()));
    let scaled = Clip::global_norm(1.0).loss_scale(LossScale::default());
    let mut other = cpu::prepare_step(&set.steps(&scaled), &scaled, Adam::new(0.1)).unwrap();
    assert!(matches!(other.restore_history(here.history().clone()), Err(ClipError::State { .. })));
}

/// Steps on one tensor, whose gradients hang on their number.
fn slice_steps(
    optimizer: Optimizer,
    clip: &Clip,
    (parameter, moments): (&mut Vec<f32>, &mut Moments),
    history: &mut History,
    numbers: std::ops::Range<u32>,
) {
    for number in numbers {
        let gradient: Vec<f32> = (0..5).map(|i| (number * 7 + i) as f32 - 20.0).collect();
        let mut step = [StepMut::new("p", &gradient[..], &mut parameter[..])];
        cpu::step(&mut step, clip, optimizer, history, moments).unwrap();
    }
}

#[test]
fn steps_of_another_program_go_on() {
    let optimizers: [Optimizer; 3] = [
        Adam::adamw(0.01).into(),
        Sgd::new(0.1).momentum(0.8).dampening(0.3).into(),
        gradclip::Lion::new(0.01).into(),
    ];
    for optimizer in optimizers {
        let clip = Clip::global_norm(1.0);
        let (mut p, mut moments, mut history) = (vec![1.0f32; 5], Moments::default(), History::default());
        slice_steps(optimizer, &clip, (&mut p, &mut moments), &mut history, 0..5);
        let run = |mut history: History, clip: &Clip| {
            let (mut p, mut moments) = (p.clone(), moments.clone());
            slice_steps(optimizer, clip, (&mut p, &mut moments), &mut history, 5..8);
            (p, history)
        };
        let (required, _) = run(history.clone(), &clip);
        let (given, after) = run(History::after_updates(5), &clip);
        assert_eq!(given, required, "{optimizer:?}");
        assert_eq!((after.updates(), after.steps()), (8, 3));
        // The first step of Adam and of a momentum is another one than those that follow.
        let differs = run(History::default(), &clip).0 != required;
        assert_eq!(differs, !matches!(optimizer, Optimizer::Lion(_)), "{optimizer:?}");
        // Whatever form the clip has.
        let scaled = clip.loss_scale(LossScale::default()).adapt(Adapt::zclip());
        assert_eq!(run(History::after_updates(5), &scaled).1.updates(), 8);
    }
    assert_eq!(History::after_updates(0), History::default());
}
