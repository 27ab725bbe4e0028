//! Runs of optimisers that other libraries made, replayed: a case folder becomes a clip, an optimiser and
//! the gradients of each step. The CPU path and devices step through them, and the parameters after every
//! step are compared with those of the peer.
//!
//! A folder holds `case.json`, a file of parameters `p.NNNN` (`f32`) and gradients `sK.g.NNNN` of step K
//! (`f32`, `f16` or `bf16`), and one of the expected parameters `sK.p.NNNN` after step K. What `function`
//! and `args` name is taken as the peer documents it, its defaults included; anything unknown is an error.
#![allow(dead_code, unreachable_pub)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use gradclip::cpu::{self, Moments, Slice, StepMut};
use gradclip::layout::Progress;
use gradclip::{
    Adam, Clip, Clipper, DType, Grad, History, LossScale, NonFinite, NormType, Optimizer, Report, Rule,
    Scope, Sgd, Stepper, Units, wgpu,
};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};

/// Or what failed, in words.
pub type Attempt<T> = Result<T, String>;

fn words(error: impl ToString) -> String {
    error.to_string()
}

/// What a norm may be off by, relative to it.
const NORM_TOLERANCE: f64 = 1e-6;

// ---------------------------------------------------------------- the peer's call

/// A number, or one of the strings `inf`, `-inf` and `nan`.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

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
}

/// Words of a `function` that follow from the others.
const FILLERS: [&str; 7] = ["then", "step", "update", "chain", "apply_updates", "cpu", "cuda"];

impl<'a> Call<'a> {
    /// From words such as `torch.nn.utils.clip_grad_norm_ then torch.optim.SGD`, in the order in which
    /// things are done. Names of arguments may stand between.
    fn new(peer: &'a str, function: &'a str, args: &Map<String, Value>) -> Attempt<Call<'a>> {
        let library = peer.split(' ').next().unwrap_or_default();
        let (clips, optimizers): (&[&str], [&str; 3]) = match library {
            "torch" => (&["clip_grad_norm_", "clip_grad_value_"], ["SGD", "Adam", "AdamW"]),
            "keras" => (&[], ["SGD", "Adam", "AdamW"]),
            "optax" => (
                &["clip_by_global_norm", "clip", "clip_by_block_rms", "adaptive_grad_clip"],
                ["sgd", "adam", "adamw"],
            ),
            _ => return Err(format!("unknown peer `{peer}`")),
        };
        let (mut clip, mut optimizer, mut scaler, mut unscales) = (None, None, false, false);
        let between = |c: char| !(c.is_alphanumeric() || c == '_' || c == '.');
        // `torch.optim.SGD` is `SGD`.
        let names = function.split(between).filter_map(|path| path.rsplit('.').next());
        for word in names.filter(|word| !word.is_empty()) {
            match word {
                _ if optimizer.is_none() && clip.is_none() && clips.contains(&word) => clip = Some(word),
                _ if optimizer.is_none() && optimizers.contains(&word) => optimizer = Some(word),
                "GradScaler" if library == "torch" => scaler = true,
                "unscale_" if scaler && clip.is_none() => unscales = true,
                _ if FILLERS.contains(&word) || args.contains_key(word) => {}
                _ => return Err(format!("function `{function}`: unknown `{word}`, or not here")),
            }
        }
        if scaler && clip.is_some() && !unscales {
            return Err(format!("function `{function}`: clips what is not unscaled"));
        }
        let optimizer = optimizer.ok_or_else(|| format!("function `{function}`: no known optimiser"))?;
        Ok(Call { library, clip, optimizer, scaler })
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
        Ok(Clip::agc(args.needed("clipping")? as f32, units).rule(Rule::Agc { eps }))
    }

    fn optimizer(&self, args: &Args<'_>) -> Attempt<Optimizer> {
        match (self.library, self.optimizer) {
            ("torch", "SGD") => torch_sgd(args),
            ("torch", _) => torch_adam(args, self.optimizer == "AdamW"),
            ("keras", "SGD") => keras_sgd(args),
            ("keras", _) => keras_adam(args, self.optimizer == "AdamW"),
            (_, "sgd") => optax_sgd(args),
            _ => optax_adam(args, self.optimizer == "adamw"),
        }
    }
}

fn norm_type(p: f64) -> NormType {
    if p == f64::INFINITY { NormType::Inf } else { NormType::P(p as f32) }
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
        .nesterov(args.flag("nesterov")?);
    torch_common(args)?;
    Ok(sgd.into())
}

fn torch_adam(args: &Args<'_>, decoupled: bool) -> Attempt<Optimizer> {
    let betas = match args.get("betas") {
        None => vec![Some(0.9), Some(0.999)],
        Some(value) => value.as_array().map_or_else(Vec::new, |betas| betas.iter().map(number).collect()),
    };
    let [Some(first), Some(second)] = betas[..] else { return Err("argument `betas` is no pair".into()) };
    let decoupled = args.flag("decoupled_weight_decay")? || decoupled;
    let kind = if decoupled { Adam::decoupled } else { Adam::new };
    let adam = kind(args.or("lr", 1e-3)?).betas(first, second).eps(args.or("eps", 1e-8)?);
    let adam = adam.weight_decay(args.or("weight_decay", adam.weight_decay)?);
    args.off(&["amsgrad"])?;
    torch_common(args)?;
    Ok(adam.into())
}

fn torch_common(args: &Args<'_>) -> Attempt<()> {
    args.free(&["foreach", "fused", "capturable", "differentiable"]);
    args.off(&["maximize"])
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
    let adam = Adam::decoupled(args.or("learning_rate", 1e-3)?)
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
    Ok(Adam::decoupled(args.needed("learning_rate")?)
        .betas(args.or("b1", 0.9)?, args.or("b2", 0.999)?)
        .eps(args.or("eps", 1e-8)?)
        .weight_decay(decay)
        .into())
}

/// Clip and optimiser of a `case.json`.
pub fn settings(json: &Value) -> Attempt<(Clip, Optimizer)> {
    let text = |key: &str| json[key].as_str().ok_or_else(|| format!("`{key}` is no text"));
    let given = json["args"].as_object().ok_or("`args` is no object")?;
    let args = Args { given, asked: RefCell::default() };
    let call = Call::new(text("peer")?, text("function")?, given)?;
    let (clip, optimizer) = (call.clip(&args)?, call.optimizer(&args)?);
    args.check_all_asked()?;
    clip.validate().map_err(words)?;
    optimizer.validate().map_err(words)?;
    Ok((clip, optimizer))
}

// ---------------------------------------------------------------- the case

/// Elements of a gradient.
#[derive(Clone)]
pub enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Values {
    fn new(dtype: Dtype, bytes: &[u8]) -> Attempt<Values> {
        let shorts = || bytes.chunks_exact(2).filter_map(|b| b.first_chunk()).map(|b| u16::from_le_bytes(*b));
        let longs = bytes.chunks_exact(4).filter_map(|b| b.first_chunk()).map(|b| f32::from_le_bytes(*b));
        match dtype {
            Dtype::F32 => Ok(Values::F32(longs.collect())),
            Dtype::F16 => Ok(Values::F16(shorts().map(f16::from_bits).collect())),
            Dtype::BF16 => Ok(Values::Bf16(shorts().map(bf16::from_bits).collect())),
            other => Err(format!("element type {other:?}")),
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Values::F32(_) => DType::F32,
            Values::F16(_) => DType::F16,
            Values::Bf16(_) => DType::Bf16,
        }
    }

    fn slice(&self) -> Slice<'_> {
        match self {
            Values::F32(v) => v[..].into(),
            Values::F16(v) => v[..].into(),
            Values::Bf16(v) => v[..].into(),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Values::F32(v) => bytemuck::cast_slice(v),
            Values::F16(v) => bytemuck::cast_slice(v),
            Values::Bf16(v) => bytemuck::cast_slice(v),
        }
    }
}

struct Tensor {
    shape: Vec<u64>,
    values: Values,
}

struct Tensors(BTreeMap<String, Tensor>);

impl Tensors {
    fn read(path: &Path) -> Attempt<Tensors> {
        let of_file = |e: String| format!("{}: {e}", path.display());
        let bytes = fs::read(path).map_err(|e| of_file(words(e)))?;
        let parsed = SafeTensors::deserialize(&bytes).map_err(|e| of_file(words(e)))?;
        let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            let shape = view.shape().iter().map(|&n| n as u64).collect();
            let values =
                Values::new(view.dtype(), view.data()).map_err(|e| of_file(format!("`{name}`: {e}")))?;
            Ok((name, Tensor { shape, values }))
        };
        parsed.tensors().into_iter().map(tensor).collect::<Attempt<_>>().map(Tensors)
    }

    fn get(&self, name: &str) -> Attempt<&Tensor> {
        self.0.get(name).ok_or_else(|| format!("tensor `{name}` is missing"))
    }

    fn parameter(&self, name: &str) -> Attempt<Vec<f32>> {
        match &self.get(name)?.values {
            Values::F32(values) => Ok(values.clone()),
            other => Err(format!("parameter `{name}` is of {}, and not of f32", other.dtype())),
        }
    }
}

/// One step of the peer's.
pub struct Step {
    pub gradients: Vec<Values>,
    /// Parameters after it.
    pub expected: Vec<Vec<f32>>,
    /// That of the unscaled gradients, and what another may be off by, relative to it.
    pub norm: Option<(f64, f64)>,
    /// What the loss was multiplied by.
    pub scale: Option<f64>,
    pub skipped: Option<bool>,
}

/// A run of an optimiser.
pub struct Case {
    pub name: String,
    pub clip: Clip,
    pub optimizer: Optimizer,
    /// `NNNN` of each tensor.
    pub tensors: Vec<String>,
    pub shapes: Vec<Vec<u64>>,
    pub parameters: Vec<Vec<f32>>,
    pub steps: Vec<Step>,
    /// What the loss is multiplied by after the last step.
    pub final_scale: Option<f64>,
    pub rtol: f64,
    pub atol: f64,
}

/// The case folders that a path stands for: itself, or those in it.
pub fn folders(path: &Path) -> Attempt<Vec<PathBuf>> {
    if path.join("case.json").is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.join("case.json").is_file()).collect();
    found.sort();
    Ok(found)
}

impl Case {
    /// `None` where the case has no steps: a clip by itself.
    pub fn read(folder: &Path) -> Attempt<Option<Case>> {
        let of_folder = |e: String| format!("{}: {e}", folder.display());
        let json = fs::read(folder.join("case.json")).map_err(|e| of_folder(words(e)))?;
        let json: Value = serde_json::from_slice(&json).map_err(|e| of_folder(words(e)))?;
        if json["steps"].is_null() {
            return Ok(None);
        }
        Case::parse(folder, &json).map(Some).map_err(of_folder)
    }

    fn parse(folder: &Path, json: &Value) -> Attempt<Case> {
        let (clip, optimizer) = settings(json)?;
        if !json["error"].is_null() {
            return Err(format!("the peer raised {}", json["error"]));
        }
        let input = Tensors::read(&folder.join(json["input"].as_str().unwrap_or("input.safetensors")))?;
        let tensors = json["tensors"].as_array().filter(|t| !t.is_empty()).ok_or("no `tensors`")?;
        let suffix = |name: &Value| Some(name.as_str()?.rsplit('.').next()?.to_owned());
        let tensors: Option<Vec<String>> = tensors.iter().map(suffix).collect();
        let tensors = tensors.ok_or("`tensors` holds something else than names")?;
        let names: Vec<String> = tensors.iter().map(|t| format!("p.{t}")).collect();
        let tolerance = |key: &str| number(&json[key]).ok_or_else(|| format!("`{key}` is no number"));
        Ok(Case {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            clip,
            optimizer,
            shapes: names.iter().map(|n| Ok(input.get(n)?.shape.clone())).collect::<Attempt<_>>()?,
            parameters: names.iter().map(|n| input.parameter(n)).collect::<Attempt<_>>()?,
            steps: steps(folder, json, &input, &tensors)?,
            tensors,
            final_scale: number(&json["final_scale"]),
            rtol: tolerance("rtol")?,
            atol: tolerance("atol")?,
        })
    }

    /// Factors of the loss scale are `f32` here and `f64` there.
    fn same_scale(&self, got: f32, want: Option<f64>) -> bool {
        want.is_none_or(|want| (f64::from(got) - want).abs() <= self.rtol * want)
    }

    /// Error of an element in units of the tolerance: 1 just passes.
    fn error(&self, got: f32, want: f32) -> f64 {
        let (got, want) = (f64::from(got), f64::from(want));
        if got == want || (got.is_nan() && want.is_nan()) {
            return 0.0;
        }
        let error = (got - want).abs() / (self.atol + self.rtol * want.abs());
        if error.is_nan() { f64::INFINITY } else { error }
    }
}

fn steps(folder: &Path, json: &Value, input: &Tensors, tensors: &[String]) -> Attempt<Vec<Step>> {
    let count = json["steps"].as_u64().filter(|&n| n > 0).ok_or("`steps` is no number of steps")? as usize;
    let wrong = |what: &str| json["peer_wrong"].as_array().is_some_and(|w| w.contains(&what.into()));
    let file = if wrong("output") { &json["exact"] } else { &json["expected"] };
    let expected = file.as_str().map(|name| Tensors::read(&folder.join(name))).transpose()?;
    if expected.is_none() && json["unchanged"] != true {
        return Err("nothing to compare with".into());
    }
    // Without exact norms those of the peer, which are rounded as its parameters are.
    let norms = if json["true_norms"].is_null() && !wrong("norm") { "norms" } else { "true_norms" };
    let tolerance = number(&json["rtol"]).filter(|_| norms == "norms").unwrap_or(NORM_TOLERANCE);
    let [norms, scales, skipped] = [norms, "scale_before_each_step", "step_skipped"].map(|key| {
        let values = json[key].as_array().cloned().unwrap_or_else(|| vec![Value::Null; count]);
        if values.len() == count { Ok(values) } else { Err(format!("`{key}`: not one for each step")) }
    });
    let (norms, scales, skipped) = (norms?, scales?, skipped?);
    let gradient = |k: usize, t: &String| Ok(input.get(&format!("s{}.g.{t}", k + 1))?.values.clone());
    let after = |k: usize, t: &String| match &expected {
        Some(expected) => expected.parameter(&format!("s{}.p.{t}", k + 1)),
        None => input.parameter(&format!("p.{t}")),
    };
    (0..count)
        .map(|k| {
            Ok(Step {
                gradients: tensors.iter().map(|t| gradient(k, t)).collect::<Attempt<_>>()?,
                expected: tensors.iter().map(|t| after(k, t)).collect::<Attempt<_>>()?,
                norm: number(&norms[k]).map(|norm| (norm, tolerance)),
                scale: number(&scales[k]),
                skipped: skipped[k].as_bool(),
            })
        })
        .collect()
}

// ---------------------------------------------------------------- the replay

/// Something that makes a case's steps.
trait Stepping {
    fn step(&mut self, gradients: &[Values]) -> Attempt<Report>;
    fn parameters(&self) -> &[Vec<f32>];
    /// Loss scale and number of updates.
    fn progress(&self) -> Attempt<(f32, u64)>;
}

/// What a replay gave.
#[derive(Debug, Default)]
pub struct Replay {
    /// The largest error of a parameter in units of the tolerance.
    pub worst: f64,
    /// What is wrong; empty where everything matches.
    pub failures: Vec<String>,
}

impl Replay {
    fn check(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(message());
        }
    }

    fn step(&mut self, case: &Case, k: usize, stepping: &mut impl Stepping) -> Attempt<()> {
        let (step, at) = (&case.steps[k], k + 1);
        let (scale, updates) = stepping.progress()?;
        self.check(case.same_scale(scale, step.scale), || {
            format!("loss scale before step {at}: {scale}, not {:?}", step.scale)
        });
        let report = stepping.step(&step.gradients)?;
        let skipped = stepping.progress()?.1 == updates;
        self.check(skipped == step.skipped.unwrap_or(false), || format!("step {at} skipped: {skipped}"));
        let reported = report.segments.iter().any(|s| s.skipped);
        self.check(skipped == reported, || format!("report of step {at}: skipped {reported}"));
        if let (Some((want, tolerance)), Scope::Global) = (step.norm, case.clip.scope) {
            let got = report.norm().unwrap_or(f64::NAN);
            let same = got == want || (got.is_nan() && want.is_nan());
            self.check(same || (got / want - 1.0).abs() <= tolerance, || {
                format!("norm of step {at}: {got:e}, not {want:e}")
            });
        }
        self.compare(case, at, &step.expected, stepping.parameters());
        Ok(())
    }

    /// Names the worst element of the step where it is too far off.
    fn compare(&mut self, case: &Case, at: usize, expected: &[Vec<f32>], got: &[Vec<f32>]) {
        let mut worst = (0.0, String::new());
        for (t, (got, want)) in got.iter().zip(expected).enumerate() {
            self.check(got.len() == want.len(), || format!("s{at}.p.{}: other length", case.tensors[t]));
            for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
                let error = case.error(got, want);
                if error > worst.0 {
                    let what = format!("s{at}.p.{}[{i}]: {got:e}, not {want:e}", case.tensors[t]);
                    worst = (error, format!("{what}, {error:.3} of the tolerance"));
                }
            }
        }
        self.check(worst.0 <= 1.0, || worst.1.clone());
        self.worst = self.worst.max(worst.0);
    }
}

impl Case {
    fn replay(&self, mut stepping: impl Stepping) -> Attempt<Replay> {
        let mut replay = Replay::default();
        (0..self.steps.len()).try_for_each(|k| replay.step(self, k, &mut stepping))?;
        let (scale, _) = stepping.progress()?;
        replay.check(self.same_scale(scale, self.final_scale), || {
            format!("loss scale at the end: {scale}, not {:?}", self.final_scale)
        });
        Ok(replay)
    }

    /// On the CPU path.
    pub fn on_cpu(&self) -> Attempt<Replay> {
        self.replay(OnCpu {
            case: self,
            parameters: self.parameters.clone(),
            history: History::default(),
            moments: Moments::default(),
        })
    }

    /// On a device.
    pub fn on_device(&self, machine: Machine<'_>, placing: Placing) -> Attempt<Replay> {
        self.replay(OnDevice::new(self, machine, placing)?)
    }
}

struct OnCpu<'a> {
    case: &'a Case,
    parameters: Vec<Vec<f32>>,
    history: History,
    moments: Moments,
}

impl Stepping for OnCpu<'_> {
    fn step(&mut self, gradients: &[Values]) -> Attempt<Report> {
        let OnCpu { case, parameters, history, moments } = self;
        let tensors = parameters.iter_mut().zip(gradients).zip(&case.tensors).zip(&case.shapes);
        let mut steps: Vec<StepMut<'_>> = tensors
            .map(|(((p, g), name), shape)| StepMut::new(name.as_str(), g.slice(), p).shape(shape))
            .collect();
        cpu::step(&mut steps, &case.clip, &case.optimizer, history, moments).map_err(words)
    }

    fn parameters(&self) -> &[Vec<f32>] {
        &self.parameters
    }

    fn progress(&self) -> Attempt<(f32, u64)> {
        Ok((self.history.loss_scale(&self.case.clip), self.history.updates()))
    }
}

// ---------------------------------------------------------------- a device

/// An open device.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    pub device: &'a wgpu::Device,
    pub queue: &'a wgpu::Queue,
    pub clipper: &'a Clipper,
}

/// How tensors are placed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Placing {
    /// A buffer each; the stepper allocates the optimiser's state.
    Separate,
    /// All gradients, parameters and moments in one buffer, each after an odd number of words.
    Arena,
}

pub const PLACINGS: [Placing; 2] = [Placing::Separate, Placing::Arena];

/// What lies in buffers before anything is written, and between tensors afterwards.
const FILLER: u8 = 0xa5;

/// Where a tensor lies.
struct Place {
    /// Index of its buffer.
    buffer: usize,
    offset: usize,
    bytes: usize,
}

impl Place {
    fn of<'i>(&self, image: &'i [Vec<u8>]) -> &'i [u8] {
        &image[self.buffer][self.offset..][..self.bytes]
    }

    fn of_mut<'i>(&self, image: &'i mut [Vec<u8>]) -> &'i mut [u8] {
        &mut image[self.buffer][self.offset..][..self.bytes]
    }
}

impl Placing {
    /// Sizes of the buffers, and the places in them.
    fn lay(self, lengths: &[usize]) -> (Vec<usize>, Vec<Place>) {
        let mut words = 0;
        let mut place = |(i, &bytes): (usize, &usize)| {
            if self == Placing::Separate {
                return Place { buffer: i, offset: 0, bytes };
            }
            let first = (words + 1) | 1;
            words = first + bytes.div_ceil(4);
            Place { buffer: 0, offset: first * 4, bytes }
        };
        let places = lengths.iter().enumerate().map(&mut place).collect();
        let separate = || lengths.iter().map(|bytes| bytes.next_multiple_of(4).max(4)).collect();
        (if self == Placing::Separate { separate() } else { vec![(words + 1) * 4] }, places)
    }
}

struct OnDevice<'a> {
    machine: Machine<'a>,
    buffers: Vec<wgpu::Buffer>,
    stepper: Stepper,
    gradients: Vec<Place>,
    /// Parameters first, then all first moments, then all second ones.
    written: Vec<Place>,
    parameters: Vec<Vec<f32>>,
}

impl<'a> OnDevice<'a> {
    fn new(case: &Case, machine: Machine<'a>, placing: Placing) -> Attempt<OnDevice<'a>> {
        let gradients = case.steps.first().map(|s| &s.gradients[..]).unwrap_or_default();
        let named = if placing == Placing::Arena { case.optimizer.moments() } else { 0 };
        let count = case.parameters.len();
        let beside = (0..1 + named).flat_map(|_| case.parameters.iter().map(|p| p.len() * 4));
        let lengths: Vec<usize> = gradients.iter().map(|g| g.bytes().len()).chain(beside).collect();
        let (sizes, mut places) = placing.lay(&lengths);
        let written = places.split_off(count);
        let mut image: Vec<Vec<u8>> = sizes.iter().map(|&size| vec![FILLER; size]).collect();
        written.iter().for_each(|place| place.of_mut(&mut image).fill(0));
        for (place, p) in written.iter().zip(&case.parameters) {
            place.of_mut(&mut image).copy_from_slice(bytemuck::cast_slice(p));
        }
        let buffers: Vec<wgpu::Buffer> = image.iter().map(|bytes| machine.buffer(bytes)).collect();
        let grad = |(t, g): (usize, &Values)| {
            let at = |place: &Place| (&buffers[place.buffer], place.offset as u64);
            let ((buffer, offset), (parameter, there)) = (at(&places[t]), at(&written[t]));
            let grad = Grad::range(&case.tensors[t], buffer, offset, case.parameters[t].len() as u64)
                .dtype(g.dtype())
                .shape(&case.shapes[t])
                .parameter(parameter, there, DType::F32);
            let moments = written.iter().skip(count + t).step_by(count).map(at);
            moments.fold(grad, |grad, (buffer, offset)| grad.moment(buffer, offset))
        };
        let grads: Vec<Grad> = gradients.iter().enumerate().map(grad).collect();
        let stepper = machine.clipper.prepare_step(&grads, &case.clip, case.optimizer).map_err(words)?;
        let parameters = case.parameters.clone();
        Ok(OnDevice { machine, buffers, stepper, gradients: places, written, parameters })
    }

    /// That parameters and state were written, and nothing else.
    fn check_rest(&self, image: &[Vec<u8>], gradients: &[Values]) -> Attempt<()> {
        let mut wanted: Vec<Vec<u8>> = image.iter().map(|bytes| vec![FILLER; bytes.len()]).collect();
        for (place, g) in self.gradients.iter().zip(gradients) {
            place.of_mut(&mut wanted).copy_from_slice(g.bytes());
        }
        self.written.iter().for_each(|p| p.of_mut(&mut wanted).copy_from_slice(p.of(image)));
        if wanted == image { Ok(()) } else { Err("a step wrote beside parameters and state".into()) }
    }
}

impl Stepping for OnDevice<'_> {
    fn step(&mut self, gradients: &[Values]) -> Attempt<Report> {
        let Machine { device, queue, .. } = self.machine;
        for (place, g) in self.gradients.iter().zip(gradients) {
            if g.bytes().len() != place.bytes {
                return Err("gradients of another size or element type than those of the first step".into());
            }
            // Whole words are written.
            let mut bytes = g.bytes().to_vec();
            bytes.resize(bytes.len().next_multiple_of(4), FILLER);
            queue.write_buffer(&self.buffers[place.buffer], place.offset as u64, &bytes);
        }
        let mut encoder = device.create_command_encoder(&Default::default());
        self.stepper.record_step(&mut encoder);
        let report = self.stepper.pass().read_back(&mut encoder).map_err(words)?;
        queue.submit([encoder.finish()]);
        let report = report.wait(device).map_err(words)?;
        let image = self.machine.read(&self.buffers)?;
        self.check_rest(&image, gradients)?;
        for (place, p) in self.written.iter().zip(&mut self.parameters) {
            *p = bytemuck::pod_collect_to_vec(place.of(&image));
        }
        Ok(report)
    }

    fn parameters(&self) -> &[Vec<f32>] {
        &self.parameters
    }

    fn progress(&self) -> Attempt<(f32, u64)> {
        let image = self.machine.read(std::slice::from_ref(self.stepper.pass().progress()))?;
        let progress: Progress = bytemuck::pod_read_unaligned(&image[0][..size_of::<Progress>()]);
        Ok((progress.scale, progress.updates.into()))
    }
}

impl Machine<'_> {
    fn buffer(self, bytes: &[u8]) -> wgpu::Buffer {
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("tensors of a case"),
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.queue.write_buffer(&buffer, 0, bytes);
        buffer
    }

    /// What lies in buffers, in one wait.
    fn read(self, buffers: &[wgpu::Buffer]) -> Attempt<Vec<Vec<u8>>> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging of a case"),
            size: buffers.iter().map(wgpu::Buffer::size).sum(),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut end = 0;
        for buffer in buffers {
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, end, buffer.size());
            end += buffer.size();
        }
        self.queue.submit([encoder.finish()]);
        // A failure shows where the range is asked for.
        staging.map_async(wgpu::MapMode::Read, .., drop);
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(words)?;
        let view = staging.get_mapped_range(..).map_err(words)?;
        let mut rest = &view[..];
        let mut next = |buffer: &wgpu::Buffer| {
            let (first, others) = rest.split_at(buffer.size() as usize);
            rest = others;
            first.to_vec()
        };
        Ok(buffers.iter().map(&mut next).collect())
    }
}
