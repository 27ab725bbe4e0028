//! `function` and `args` of a case as a clip and an optimiser.

use super::*;

/// The arguments of a call. Each has to be asked for, so that none is ignored.
struct Args<'a> {
    given: &'a Map<String, Value>,
    asked: RefCell<BTreeSet<String>>,
}

impl Args<'_> {
    /// `null` is the same as nothing.
    fn get(&self, name: &str) -> Option<&Value> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.given.get(name).filter(|value| !value.is_null())
    }

    fn maybe(&self, name: &str) -> Attempt<Option<f64>> {
        let parsed = |value| number(value).ok_or_else(|| format!("argument `{name}` is no number: {value}"));
        self.get(name).map(parsed).transpose()
    }

    fn or(&self, name: &str, default: f64) -> Attempt<f64> {
        Ok(self.maybe(name)?.unwrap_or(default))
    }

    fn needed(&self, name: &str) -> Attempt<f64> {
        self.maybe(name)?.ok_or_else(|| format!("argument `{name}` is missing"))
    }

    fn flag(&self, name: &str) -> Attempt<bool> {
        let parsed = |value: &Value| value.as_bool().ok_or(format!("argument `{name}` is no flag: {value}"));
        self.get(name).map_or(Ok(false), parsed)
    }

    /// Arguments that have no counterpart here: false, zero or absent.
    fn off(&self, names: &[&str]) -> Attempt<()> {
        let on = |value: &&Value| **value != Value::Bool(false) && number(value) != Some(0.0);
        names.iter().try_for_each(|name| match self.get(name).filter(on) {
            None => Ok(()),
            Some(value) => Err(format!("argument `{name}` has no counterpart here: {value}")),
        })
    }

    /// Arguments that change how something is computed, and not what.
    fn free(&self, names: &[&str]) {
        self.asked.borrow_mut().extend(names.iter().map(|&name| name.to_owned()));
    }

    fn check_all_asked(&self) -> Attempt<()> {
        let asked = self.asked.borrow();
        let unknown: Vec<String> =
            self.given.keys().filter(|key| !asked.contains(*key)).map(|key| format!("`{key}`")).collect();
        if unknown.is_empty() { Ok(()) } else { Err(format!("unknown arguments {}", unknown.join(", "))) }
    }
}

/// What a `function` names.
struct Call<'a> {
    library: &'a str,
    clip: Option<&'a str>,
    optimizer: &'a str,
    scaler: bool,
    /// Whether a step with an element that is not finite is left out.
    skips: bool,
    /// Whether one whose norm is too large is.
    skips_large: bool,
}

/// Words of a `function` that follow from the others.
const FILLERS: [&str; 7] = ["then", "step", "update", "chain", "apply_updates", "cpu", "cuda"];

/// Words of one that steps on masters and then rounds them, after the optimiser.
const MASTERS: [&str; 7] = ["on", "float32", "masters", "copy_", "to", "bfloat16", "float16"];

impl<'a> Call<'a> {
    /// From words such as `torch.nn.utils.clip_grad_norm_ then torch.optim.SGD`, in the order in which
    /// things are done. Names of arguments may stand between.
    fn new(peer: &'a str, function: &'a str, args: &Map<String, Value>) -> Attempt<Call<'a>> {
        let library = peer.split(' ').next().unwrap_or_default();
        let (clips, optimizers): (&[&str], &[&str]) = match library {
            "torch" => {
                (&["clip_grad_norm_", "clip_grad_value_"], &["SGD", "Adam", "AdamW", "NAdam", "RAdam"])
            }
            "keras" => (&[], &["SGD", "Adam", "AdamW"]),
            "optax" => (
                &["clip_by_global_norm", "clip", "clip_by_block_rms", "adaptive_grad_clip"],
                &["sgd", "adam", "adamw", "lion", "adopt"],
            ),
            _ => return Err(format!("unknown peer `{peer}`")),
        };
        let (mut clip, mut optimizer) = (None, None);
        let (mut scaler, mut unscales, mut skips, mut skips_large) = (false, false, false, false);
        let between = |c: char| !(c.is_alphanumeric() || c == '_' || c == '.');
        // `torch.optim.SGD` is `SGD`.
        let names = function.split(between).filter_map(|path| path.rsplit('.').next());
        for word in names.filter(|word| !word.is_empty()) {
            match word {
                _ if optimizer.is_none() && clip.is_none() && clips.contains(&word) => clip = Some(word),
                _ if optimizer.is_none() && optimizers.contains(&word) => optimizer = Some(word),
                "GradScaler" if library == "torch" => scaler = true,
                "unscale_" if scaler && clip.is_none() => unscales = true,
                "apply_if_finite" if library == "optax" && clip.is_none() => skips = true,
                "MultiSteps" if library == "optax" && clip.is_none() => {}
                "every_k_schedule" | "should_skip_update_fn" if library == "optax" => {}
                // Every step is one of its own.
                "1" if function.contains("every_k_schedule=1,") => {}
                "skip_large_updates" if library == "optax" && optimizer.is_some() => skips_large = true,
                _ if optimizer.is_some() && args.contains_key("param_dtype") && MASTERS.contains(&word) => {}
                _ if FILLERS.contains(&word) || args.contains_key(word) => {}
                _ => return Err(format!("function `{function}`: unknown `{word}`, or not here")),
            }
        }
        if scaler && clip.is_some() && !unscales {
            return Err(format!("function `{function}`: clips what is not unscaled"));
        }
        let optimizer = optimizer.ok_or_else(|| format!("function `{function}`: no known optimiser"))?;
        Ok(Call { library, clip, optimizer, scaler, skips, skips_large })
    }

    fn clip(&self, args: &Args<'_>) -> Attempt<Clip> {
        let clip = match (self.clip, self.library) {
            (Some("clip_grad_norm_"), _) => {
                args.off(&["error_if_nonfinite"])?;
                Clip::pytorch(args.needed("max_norm")? as f32)
                    .norm_type(norm_type(args.or("norm_type", 2.0)?))
            }
            (Some("clip_grad_value_"), _) => Clip::value(args.needed("clip_value")? as f32),
            (Some("clip_by_global_norm"), _) => Clip::global_norm(args.needed("max_norm")? as f32),
            (Some("clip"), _) => Clip::value(args.needed("max_delta")? as f32),
            (Some("clip_by_block_rms"), _) => Clip::block_rms(args.needed("threshold")? as f32),
            (Some("adaptive_grad_clip"), _) => self.agc(args)?,
            (Some(word), _) => return Err(format!("unknown `{word}`")),
            (None, "keras") => keras_clip(args)?,
            // The norm is measured, or elements are left to pass one by one.
            (None, _) if self.scaler => Clip::measure(),
            (None, _) => Clip::value(f32::INFINITY),
        };
        if self.scaler {
            return Ok(clip.on_non_finite(NonFinite::Skip).loss_scale(loss_scale(args)?));
        }
        if self.skips {
            let most = args.needed("max_consecutive_errors")? as u32;
            let skip = Skip::non_finite().max_consecutive(most, GiveUp::LetAllThrough);
            return Ok(clip.on_non_finite(NonFinite::Skip).skip(skip));
        }
        if self.skips_large {
            let largest = args.needed("max_squared_norm")?.sqrt();
            return Ok(clip.on_non_finite(NonFinite::Skip).skip(Skip::non_finite().above(largest)));
        }
        Ok(if clip.rule == Rule::Value { clip } else { clip.on_non_finite(NonFinite::Nan) })
    }

    fn agc(&self, args: &Args<'_>) -> Attempt<Clip> {
        if self.optimizer != "sgd" && args.get("eps").is_some() {
            return Err("argument `eps` is that of the clip, or of the optimiser".into());
        }
        let index = |value: &Value| value.as_u64().map(|axis| axis as usize);
        let units = match args.get("axis") {
            None => Units::OutputLast,
            Some(value) => {
                let axes =
                    value.as_array().map_or_else(|| vec![index(value)], |a| a.iter().map(index).collect());
                let axes: Option<Vec<usize>> = axes.into_iter().collect();
                Units::over(&axes.ok_or_else(|| format!("argument `axis` counts no axes: {value}"))?)
            }
        };
        let eps = args.or("eps", 1e-3)? as f32;
        Ok(Clip::agc(args.needed("clipping")? as f32, units).rule(Rule::Agc { eps: eps.into() }))
    }

    fn optimizer(&self, args: &Args<'_>) -> Attempt<Optimizer> {
        match (self.library, self.optimizer) {
            ("torch", "SGD") => torch_sgd(args),
            ("torch", "NAdam") => torch_nadam(args),
            ("torch", "RAdam") => torch_radam(args),
            ("torch", _) => torch_adam(args, self.optimizer == "AdamW"),
            ("keras", "SGD") => keras_sgd(args),
            ("keras", _) => keras_adam(args, self.optimizer == "AdamW"),
            (_, "sgd") => optax_sgd(args),
            (_, "lion") => optax_lion(args),
            (_, "adopt") => optax_adopt(args),
            _ => optax_adam(args, self.optimizer == "adamw"),
        }
    }
}

fn norm_type(p: f64) -> NormType {
    if p == f64::INFINITY { NormType::Inf } else { NormType::P(p) }
}

/// `clipnorm` is the limit of each tensor.
fn keras_clip(args: &Args<'_>) -> Attempt<Clip> {
    let of = |name, clip: fn(f32) -> Clip| Ok(args.maybe(name)?.map(|limit| clip(limit as f32)));
    let kinds: [Attempt<Option<Clip>>; 3] = [
        of("clipnorm", Clip::per_tensor_norm),
        of("global_clipnorm", Clip::global_norm),
        of("clipvalue", Clip::value),
    ];
    let kinds: Vec<Option<Clip>> = kinds.into_iter().collect::<Attempt<_>>()?;
    match kinds.into_iter().flatten().collect::<Vec<_>>()[..] {
        [] => Ok(Clip::value(f32::INFINITY)),
        [clip] => Ok(clip),
        _ => Err("more than one of the arguments `clipnorm`, `global_clipnorm` and `clipvalue`".into()),
    }
}

fn loss_scale(args: &Args<'_>) -> Attempt<LossScale> {
    if args.get("enabled").is_some_and(|value| *value != Value::Bool(true)) {
        return Err("argument `enabled`: a scaler that is none".into());
    }
    Ok(LossScale::default()
        .initial(args.or("init_scale", 65_536.0)? as f32)
        .growth(args.or("growth_factor", 2.0)? as f32)
        .backoff(args.or("backoff_factor", 0.5)? as f32)
        .interval(args.or("growth_interval", 2000.0)? as u32))
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

fn torch_adam(args: &Args<'_>, decoupled: bool) -> Attempt<Optimizer> {
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

/// AdamW behind a z-score of norm and loss: OLMo-core's, whose window keeps what is not finite, and the rule by itself.
fn z_score(function: &str, args: &Args<'_>) -> Attempt<Option<(Clip, Optimizer)>> {
    let rule = function == "z-score skip then torch.optim.AdamW";
    if !rule && function != "olmo_core.optim.SkipStepAdamW" {
        return Ok(None);
    }
    args.off(&["two_sided", "non_finite_enter_window"])?;
    args.free(&["losses_given", "norms_given"]);
    let window = args.or("rolling_interval_length", 128.0)?;
    let first = args.or("first_decision_at", (window / 2.0).floor().max(2.0))?;
    let skip = Skip::z_score(args.or("sigma_factor", 6.0)? as f32)
        .window(window as u32)
        .first(first as u32)
        .with_loss()
        .remembers(if rule { Remembers::Finite } else { Remembers::All });
    Ok(Some((Clip::measure().skip(skip), torch_adam(args, true)?)))
}

/// Clip and optimiser of a `case.json`.
pub fn settings(json: &Value) -> Attempt<(Clip, Optimizer)> {
    let text = |key: &str| json[key].as_str().ok_or_else(|| format!("`{key}` is no text"));
    let given = json["args"].as_object().ok_or("`args` is no object")?;
    let args = Args { given, asked: RefCell::default() };
    let (clip, optimizer) = match z_score(text("function")?, &args)? {
        Some(both) => both,
        None => {
            let call = Call::new(text("peer")?, text("function")?, given)?;
            (call.clip(&args)?, call.optimizer(&args)?)
        }
    };
    args.check_all_asked()?;
    clip.validate().map_err(words)?;
    optimizer.validate().map_err(words)?;
    Ok((clip, optimizer))
}
