//! `function` and `args` of a case as a clip and an optimiser.

use super::optimizers::{optimizer_of, torch_adam};
use super::*;

/// The arguments of a call. Each has to be asked for, so that none is ignored.
pub(super) struct Args<'a> {
    given: &'a Map<String, Value>,
    asked: RefCell<BTreeSet<String>>,
}

impl Args<'_> {
    /// `null` is the same as nothing.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.given.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn maybe(&self, name: &str) -> Attempt<Option<f64>> {
        let parsed = |value| number(value).ok_or_else(|| format!("argument `{name}` is no number: {value}"));
        self.get(name).map(parsed).transpose()
    }

    pub(super) fn or(&self, name: &str, default: f64) -> Attempt<f64> {
        Ok(self.maybe(name)?.unwrap_or(default))
    }

    pub(super) fn needed(&self, name: &str) -> Attempt<f64> {
        self.maybe(name)?.ok_or_else(|| format!("argument `{name}` is missing"))
    }

    pub(super) fn flag(&self, name: &str) -> Attempt<bool> {
        let parsed = |value: &Value| value.as_bool().ok_or(format!("argument `{name}` is no flag: {value}"));
        self.get(name).map_or(Ok(false), parsed)
    }

    /// Arguments that have no counterpart here: false, zero or absent.
    pub(super) fn off(&self, names: &[&str]) -> Attempt<()> {
        let on = |value: &&Value| **value != Value::Bool(false) && number(value) != Some(0.0);
        names.iter().try_for_each(|name| match self.get(name).filter(on) {
            None => Ok(()),
            Some(value) => Err(format!("argument `{name}` has no counterpart here: {value}")),
        })
    }

    /// Arguments that change how something is computed, and not what.
    pub(super) fn free(&self, names: &[&str]) {
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
                &["sgd", "adam", "adamw", "lion", "adopt", "lamb", "lars", "scale_by_adam"],
            ),
            "torch-optimi" => (&[], &["StableAdamW"]),
            "timm" => (&[], &["Lamb"]),
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
                // Of the update, in its place behind the moments.
                "clip_by_block_rms" | "scale_by_learning_rate" if optimizer == Some("scale_by_adam") => {}
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
            (call.clip(&args)?, optimizer_of(call.library, call.optimizer, &args)?)
        }
    };
    args.check_all_asked()?;
    clip.validate().map_err(words)?;
    optimizer.validate().map_err(words)?;
    Ok((clip, optimizer))
}
