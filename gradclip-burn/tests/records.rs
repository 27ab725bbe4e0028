//! The state of a stepper as a record: goes on to the same bits, and into and out of Burn's own optimisers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use burn::module::Module;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, LionConfig, ModuleOptimizer, OptimizerRecord, SgdConfig};
use burn::store::ModuleRecord;
use gradclip_burn::{Adam, Adapt, Clip, Error, Lion, NAdam, Optimizer, Sgd, Stepper};

use common::{Copied, Gpu, Mlp, assert_same_bits, composed, difference, gpu, mlp, read_parameters};

const LR: f64 = 1e-2;

fn zclip() -> Clip {
    Clip::global_norm(1.0).adapt(Adapt::zclip())
}

fn new(gpu: &Gpu, clip: Clip, optimizer: impl Into<Optimizer>) -> Stepper {
    Stepper::new(&gpu.device, &gpu.setup, clip, optimizer).unwrap()
}

fn stepped(gpu: &Gpu, stepper: &Stepper, model: Mlp, steps: std::ops::Range<u64>) -> Mlp {
    steps.fold(model, |model, step| {
        let grads = model.grads(step, 10.0, &gpu.device);
        stepper.step(LR, model, grads).unwrap()
    })
}

fn burns(gpu: &Gpu, optimizer: &mut ModuleOptimizer, model: Mlp, steps: std::ops::Range<u64>) -> Mlp {
    steps.fold(model, |model, step| {
        let mut grads = model.grads(step, 10.0, &gpu.device);
        composed(&model, &mut grads, 1.0);
        optimizer.step(LR, model, grads)
    })
}

/// The model in memory of its own, with the same numbers of parameters.
fn copy(gpu: &Gpu, model: &Mlp) -> Mlp {
    let bytes = model.clone().into_record().into_bytes().unwrap();
    mlp(gpu).load_record(ModuleRecord::from_bytes(bytes).unwrap())
}

#[test]
fn a_run_goes_on_to_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    let folder = std::env::temp_dir().join(format!("gradclip-burn-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let adopt = gradclip_burn::Adopt::new(0.0);
    let optimizers: [Optimizer; 6] = [
        Sgd::new(0.0).into(),
        Sgd::new(0.0).momentum(0.9).into(),
        Adam::adamw(0.0).amsgrad(true).into(),
        Lion::new(0.0).into(),
        NAdam::new(0.0).into(),
        adopt.into(),
    ];
    for optimizer in optimizers {
        let first = new(gpu, zclip(), optimizer);
        let model = stepped(gpu, &first, mlp(gpu), 0..7);
        let file = folder.join("optimizer.bpk");
        first.to_record().unwrap().save(&file).unwrap();
        let second = new(gpu, zclip(), optimizer);
        second.load_record(OptimizerRecord::load(&file).unwrap()).unwrap();
        // Saved again before the first step it is what was loaded.
        second.load_record(second.to_record().unwrap()).unwrap();
        let resumed = stepped(gpu, &second, copy(gpu, &model), 7..12);
        let model = stepped(gpu, &first, model, 7..12);
        let what = format!("{optimizer:?}");
        assert_same_bits(&what, &read_parameters(&resumed), &read_parameters(&model));
        assert_eq!(second.report().unwrap(), first.report().unwrap(), "{what}");
        assert_eq!(second.report().unwrap().step, 12);
        // Without its state it would show.
        if optimizer.moments() > 0 {
            let anew = stepped(gpu, &new(gpu, zclip(), optimizer), copy(gpu, &model), 12..14);
            let on = stepped(gpu, &first, model, 12..14);
            assert!(difference(&read_parameters(&anew), &read_parameters(&on)) > 1e-4, "{what}");
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Burn's optimiser and ours, each of which goes on where the other is.
fn exchanged(gpu: &Gpu, ours: Optimizer, theirs: impl Fn() -> ModuleOptimizer) -> [Vec<Copied>; 3] {
    let mut burn = theirs();
    let model = burns(gpu, &mut burn, mlp(gpu), 0..20);
    // Both as bytes, as a file would have them.
    let record = |bytes| OptimizerRecord::from_bytes(bytes).unwrap();
    let stepper = new(gpu, Clip::global_norm(1.0), ours);
    stepper.load_record(record(burn.into_bytes().unwrap())).unwrap();
    let here = stepped(gpu, &stepper, copy(gpu, &model), 20..25);
    let back = copy(gpu, &here);
    let there = burns(gpu, &mut burn, model, 20..25);
    let first = [&here, &there].map(read_parameters);
    // And back to Burn's.
    let mut again = theirs().load_record(record(stepper.to_record().unwrap().into_bytes().unwrap()));
    let back = burns(gpu, &mut again, back, 25..30);
    let on = stepped(gpu, &stepper, here, 25..30);
    let off =
        difference(&first[0], &first[1]).max(difference(&read_parameters(&back), &read_parameters(&on)));
    // Ten steps, of an MLP whose losses hang together: some hundred roundings of a step each.
    println!("{ours:?}: {off:.1e}");
    assert!(off < 1e-5, "{ours:?}: {off}");
    let anew = stepped(gpu, &new(gpu, Clip::global_norm(1.0), ours), copy(gpu, &there), 25..26);
    [first[0].clone(), first[1].clone(), read_parameters(&anew)]
}

#[test]
fn burns_own_optimisers_read_it_and_are_read() {
    let Some(gpu) = gpu() else { return };
    let constant = f64::from(0.9f32);
    let adam = Adam::adamw(0.0).betas(constant, f64::from(0.999f32)).eps(f64::from(1e-5f32));
    let adam = adam.weight_decay(f64::from(1e-4f32));
    exchanged(gpu, adam.into(), || AdamWConfig::new().init());
    let momentum = || MomentumConfig { momentum: 0.9, dampening: 0.1, nesterov: false };
    let sgd = Sgd::new(0.0).momentum(constant).dampening(0.1);
    exchanged(gpu, sgd.into(), || SgdConfig::new().with_momentum(Some(momentum())).init());
}

#[test]
fn lion_reads_burns_momentum() {
    let Some(gpu) = gpu() else { return };
    let mut burn = LionConfig::new().init();
    burns(gpu, &mut burn, mlp(gpu), 0..3);
    let stepper = new(gpu, Clip::global_norm(1.0), Lion::new(0.0));
    stepper.load_record(burn.to_record()).unwrap();
    assert_eq!(stepper.to_record().unwrap().len(), 6);
}

#[test]
fn what_does_not_fit_is_refused_and_kept() {
    let Some(gpu) = gpu() else { return };
    let first = new(gpu, Clip::global_norm(1.0), Adam::new(0.0));
    assert!(matches!(first.to_record(), Err(Error::NothingClipped { .. })));
    let model = stepped(gpu, &first, mlp(gpu), 0..2);
    let record = || first.to_record().unwrap();
    for other in [Optimizer::from(Lion::new(0.0)), Adam::new(0.0).amsgrad(true).into(), Sgd::new(0.0).into()]
    {
        let refused = new(gpu, Clip::global_norm(1.0), other).load_record(record()).unwrap_err();
        assert!(matches!(refused, Error::Record { .. }), "{refused}");
    }
    // Of another model: known at the step, which leaves the record for the next.
    let second = new(gpu, Clip::global_norm(1.0), Adam::new(0.0));
    second.load_record(record()).unwrap();
    let stranger = mlp(gpu);
    let grads = stranger.grads(0, 1.0, &gpu.device);
    let refused = second.step(LR, stranger, grads).unwrap_err();
    assert!(matches!(refused.error, Error::Record { .. }), "{refused}");
    let resumed = stepped(gpu, &second, copy(gpu, &model), 2..4);
    let model = stepped(gpu, &first, model, 2..4);
    assert_same_bits("resumed", &read_parameters(&resumed), &read_parameters(&model));
    // Of another clip.
    let other = new(gpu, zclip(), Adam::new(0.0));
    other.load_record(record()).unwrap();
    let grads = model.grads(0, 1.0, &gpu.device);
    let refused = other.step(LR, model, grads).unwrap_err();
    assert!(matches!(refused.error, Error::Clip(_)), "{refused}");
}
