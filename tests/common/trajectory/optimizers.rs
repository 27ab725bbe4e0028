//! The optimisers of other libraries by their arguments.

use super::call::Args;
use super::*;

/// The optimiser that a library calls so.
pub(super) fn optimizer_of(library: &str, optimizer: &str, args: &Args<'_>) -> Attempt<Optimizer> {
    match (library, optimizer) {
        ("torch", "SGD") => torch_sgd(args),
        ("torch", "NAdam") => torch_nadam(args),
        ("torch", "RAdam") => torch_radam(args),
        ("torch", _) => torch_adam(args, optimizer == "AdamW"),
        ("keras", "SGD") => keras_sgd(args),
        ("keras", _) => keras_adam(args, optimizer == "AdamW"),
        (_, "sgd") => optax_sgd(args),
        (_, "lion") => optax_lion(args),
        (_, "adopt") => optax_adopt(args),
        (_, "lamb") => optax_lamb(args),
        (_, "lars") => optax_lars(args),
        (_, "scale_by_adam") => optax_adam_limited(args),
        (_, "StableAdamW") => optimi_stable_adamw(args),
        (_, "Lamb") => timm_lamb(args),
        _ => optax_adam(args, optimizer == "adamw"),
    }
}

fn torch_sgd(args: &Args<'_>) -> Attempt<Optimizer> {
    let sgd = Sgd::new(args.or("lr", 1e-3)?)
        .momentum(args.or("momentum", 0.0)?)
        .dampening(args.or("dampening", 0.0)?)
        .weight_decay(args.or("weight_decay", 0.0)?)
        .nesterov(args.flag("nesterov")?)
        .maximize(args.flag("maximize")?);
    torch_common(args);
    Ok(sgd.into())
}

fn torch_betas(args: &Args<'_>) -> Attempt<(f64, f64)> {
    let betas = match args.get("betas") {
        None => vec![Some(0.9), Some(0.999)],
        Some(value) => value.as_array().map_or_else(Vec::new, |betas| betas.iter().map(number).collect()),
    };
    let [Some(first), Some(second)] = betas[..] else { return Err("argument `betas` is no pair".into()) };
    Ok((first, second))
}

fn torch_nadam(args: &Args<'_>) -> Attempt<Optimizer> {
    let (first, second) = torch_betas(args)?;
    torch_common(args);
    Ok(NAdam::new(args.or("lr", 2e-3)?)
        .betas(first, second)
        .eps(args.or("eps", 1e-8)?)
        .weight_decay(args.or("weight_decay", 0.0)?)
        .momentum_decay(args.or("momentum_decay", 4e-3)?)
        .decoupled(args.flag("decoupled_weight_decay")?)
        .maximize(args.flag("maximize")?)
        .into())
}

fn torch_radam(args: &Args<'_>) -> Attempt<Optimizer> {
    let (first, second) = torch_betas(args)?;
    torch_common(args);
    Ok(RAdam::new(args.or("lr", 1e-3)?)
        .betas(first, second)
        .eps(args.or("eps", 1e-8)?)
        .weight_decay(args.or("weight_decay", 0.0)?)
        .decoupled(args.flag("decoupled_weight_decay")?)
        .maximize(args.flag("maximize")?)
        .into())
}

pub(super) fn torch_adam(args: &Args<'_>, decoupled: bool) -> Attempt<Optimizer> {
    let (first, second) = torch_betas(args)?;
    let decoupled = args.flag("decoupled_weight_decay")? || decoupled;
    let kind = if decoupled { Adam::adamw } else { Adam::new };
    let adam = kind(args.or("lr", 1e-3)?).betas(first, second).eps(args.or("eps", 1e-8)?);
    let adam = adam.weight_decay(args.or("weight_decay", adam.weight_decay)?);
    torch_common(args);
    Ok(adam.amsgrad(args.flag("amsgrad")?).maximize(args.flag("maximize")?).into())
}

fn torch_common(args: &Args<'_>) {
    args.free(&["foreach", "fused", "capturable", "differentiable", "param_dtype", "grad_dtype"]);
}

/// Keras multiplies by the learning rate before it sums, which is the same as long as that is constant.
fn keras_sgd(args: &Args<'_>) -> Attempt<Optimizer> {
    if args.or("weight_decay", 0.0)? != 0.0 {
        return Err("argument `weight_decay`: Keras decays the parameter, which no Sgd does here".into());
    }
    let momentum = args.or("momentum", 0.0)?;
    // Without momentum it means nothing there, and is refused here.
    let nesterov = args.flag("nesterov")? && momentum != 0.0;
    keras_common(args)?;
    Ok(Sgd::new(args.or("learning_rate", 0.01)?).momentum(momentum).nesterov(nesterov).into())
}

/// Adam's decay is of the parameter too.
fn keras_adam(args: &Args<'_>, decays: bool) -> Attempt<Optimizer> {
    let adam = Adam::adamw(args.or("learning_rate", 1e-3)?)
        .betas(args.or("beta_1", 0.9)?, args.or("beta_2", 0.999)?)
        .eps(args.or("epsilon", 1e-7)?)
        .eps_hat(true)
        .weight_decay(args.or("weight_decay", if decays { 0.004 } else { 0.0 })?);
    keras_common(args)?;
    Ok(adam.into())
}

fn keras_common(args: &Args<'_>) -> Attempt<()> {
    args.free(&["name", "jit_compile"]);
    args.off(&["amsgrad", "use_ema", "loss_scale_factor", "gradient_accumulation_steps"])
}

fn optax_sgd(args: &Args<'_>) -> Attempt<Optimizer> {
    args.off(&["accumulator_dtype"])?;
    let momentum = args.or("momentum", 0.0)?;
    // As Keras.
    let nesterov = args.flag("nesterov")? && momentum != 0.0;
    Ok(Sgd::new(args.needed("learning_rate")?).momentum(momentum).nesterov(nesterov).into())
}

fn optax_adam(args: &Args<'_>, decays: bool) -> Attempt<Optimizer> {
    args.off(&["eps_root", "nesterov", "mu_dtype"])?;
    let mut decay = 0.0;
    if decays {
        args.off(&["mask"])?;
        decay = args.or("weight_decay", 1e-4)?;
    }
    Ok(Adam::adamw(args.needed("learning_rate")?)
        .betas(args.or("b1", 0.9)?, args.or("b2", 0.999)?)
        .eps(args.or("eps", 1e-8)?)
        .weight_decay(decay)
        .into())
}

fn optax_adopt(args: &Args<'_>) -> Attempt<Optimizer> {
    args.off(&["nesterov", "mu_dtype"])?;
    let clipping = args.get("use_clipping").is_none_or(|value| *value == Value::Bool(true));
    Ok(Adopt::new(args.needed("learning_rate")?)
        .betas(args.or("b1", 0.9)?, args.or("b2", 0.9999)?)
        .eps(args.or("eps", 1e-6)?)
        .clipping(clipping)
        .into())
}

fn optax_lion(args: &Args<'_>) -> Attempt<Optimizer> {
    args.off(&["mask", "mu_dtype"])?;
    Ok(Lion::new(args.needed("learning_rate")?)
        .betas(args.or("b1", 0.9)?, args.or("b2", 0.99)?)
        .weight_decay(args.or("weight_decay", 1e-3)?)
        .into())
}

/// `clip_by_block_rms` between moments and rate.
fn optax_adam_limited(args: &Args<'_>) -> Attempt<Optimizer> {
    args.off(&["eps_root", "nesterov", "mu_dtype"])?;
    Ok(Adam::new(args.needed("learning_rate")?)
        .betas(args.or("b1", 0.9)?, args.or("b2", 0.999)?)
        .eps(args.or("eps", 1e-8)?)
        .limit(UpdateLimit::Rms(args.needed("threshold")?))
        .into())
}

fn optax_lamb(args: &Args<'_>) -> Attempt<Optimizer> {
    args.off(&["eps_root", "mask"])?;
    Ok(Adam::lamb(args.needed("learning_rate")?)
        .betas(args.or("b1", 0.9)?, args.or("b2", 0.999)?)
        .eps(args.or("eps", 1e-6)?)
        .weight_decay(args.or("weight_decay", 0.0)?)
        .into())
}

fn optax_lars(args: &Args<'_>) -> Attempt<Optimizer> {
    args.off(&["weight_decay_mask", "trust_ratio_mask"])?;
    let trust =
        TrustRatio::default().coefficient(args.or("trust_coefficient", 0.001)?).eps(args.or("eps", 0.0)?);
    Ok(Lars::new(args.needed("learning_rate")?)
        .momentum(args.or("momentum", 0.9)?)
        .weight_decay(args.or("weight_decay", 0.0)?)
        .nesterov(args.flag("nesterov")?)
        .trust(trust)
        .into())
}

fn optimi_stable_adamw(args: &Args<'_>) -> Attempt<Optimizer> {
    let (first, second) = torch_betas(args)?;
    args.off(&["decouple_lr", "max_lr"])?;
    Ok(Adam::stable_adamw(args.needed("lr")?)
        .betas(first, second)
        .eps(args.or("eps", 1e-6)?)
        .weight_decay(args.or("weight_decay", 0.01)?)
        .into())
}

/// Its own limit of the norm would be a clip.
fn timm_lamb(args: &Args<'_>) -> Attempt<Optimizer> {
    let (first, second) = torch_betas(args)?;
    args.off(&["max_grad_norm", "always_adapt", "decoupled_decay", "caution"])?;
    let most = if args.flag("trust_clip")? { 1.0 } else { f64::INFINITY };
    Ok(Adam::lamb(args.or("lr", 1e-3)?)
        .betas(first, second)
        .eps(args.or("eps", 1e-6)?)
        .weight_decay(args.or("weight_decay", 0.01)?)
        .limit(TrustRatio::default().most(most))
        .into())
}
