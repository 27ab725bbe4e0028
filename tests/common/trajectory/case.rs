//! A case folder, read.

use super::*;

/// The tensors of a file, by name.
struct Tensors(BTreeMap<String, Tensor>);

impl Tensors {
    fn read(path: &Path) -> Attempt<Tensors> {
        let named = |tensor: Tensor| (tensor.name.clone(), tensor);
        Ok(Tensors(files::tensors(path)?.into_iter().map(named).collect()))
    }

    fn get(&self, name: &str) -> Attempt<&Tensor> {
        self.0.get(name).ok_or_else(|| format!("tensor `{name}` is missing"))
    }

    fn gradient(&self, name: &str) -> Attempt<Data> {
        match &self.get(name)?.data {
            Data::F64(_) => Err(format!("gradient `{name}` is of f64")),
            data => Ok(data.clone()),
        }
    }

    fn half(&self, name: &str, element: Element) -> Attempt<Data> {
        let data = &self.get(name)?.data;
        if data.element() != element {
            return Err(format!("parameter `{name}` is of {}", data.dtype()));
        }
        Ok(data.clone())
    }

    fn parameter(&self, name: &str) -> Attempt<Vec<f32>> {
        match &self.get(name)?.data {
            Data::F32(values) => Ok(values.clone()),
            other => Err(format!("parameter `{name}` is of {}, and not of f32", other.dtype())),
        }
    }
}

/// One step of the peer's.
pub struct Step {
    pub gradients: Vec<Data>,
    /// Parameters after it.
    pub expected: Vec<Vec<f32>>,
    /// The same in 16 bits, where they are masters.
    pub halves: Vec<Data>,
    /// That of the unscaled gradients, and what another may be off by, relative to it.
    pub norm: Option<(f64, f64)>,
    /// What the loss was multiplied by.
    pub scale: Option<f64>,
    pub skipped: Option<bool>,
    /// What a rule that leaves out steps watches besides the norm.
    pub loss: Option<f32>,
}

/// A run of an optimiser.
pub struct Case {
    pub name: String,
    pub clip: Clip,
    pub optimizer: Optimizer,
    /// Each called by its `NNNN`, with the gradients of the first step.
    pub tensors: Vec<Tensor>,
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
        let json = files::json(&folder.join("case.json"))?;
        if json["steps"].is_null() {
            return Ok(None);
        }
        Case::parse(folder, &json).map(Some).map_err(of_folder)
    }

    fn parse(folder: &Path, json: &Value) -> Attempt<Case> {
        if !json["error"].is_null() {
            return Err(format!("the peer raised {}", json["error"]));
        }
        let input = Tensors::read(&folder.join(json["input"].as_str().unwrap_or("input.safetensors")))?;
        let tensors = json["tensors"].as_array().filter(|t| !t.is_empty()).ok_or("no `tensors`")?;
        let suffix = |name: &Value| Some(name.as_str()?.rsplit('.').next()?.to_owned());
        let suffixes: Option<Vec<String>> = tensors.iter().map(suffix).collect();
        let suffixes = suffixes.ok_or("`tensors` holds something else than names")?;
        let half = half(json)?;
        let steps = steps(folder, json, &input, &suffixes)?;
        let tensor = |(name, gradient): (&String, &Data)| {
            let parameter = input.get(&format!("p.{name}"))?;
            let tensor = Tensor::new(name, gradient.clone()).parameter(input.parameter(&parameter.name)?);
            let half = half.map(|element| Data::rounded(element, &vec![0.0; gradient.len()]));
            Ok(Tensor { shape: parameter.shape.clone(), half, ..tensor })
        };
        let mut tensors =
            suffixes.iter().zip(&steps[0].gradients).map(tensor).collect::<Attempt<Vec<_>>>()?;
        let (clip, optimizer) = by_tensor(json, &mut tensors)?;
        let tolerance = |key: &str| number(&json[key]).ok_or_else(|| format!("`{key}` is no number"));
        Ok(Case {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            clip,
            optimizer,
            tensors,
            steps,
            final_scale: number(&json["final_scale"]),
            rtol: tolerance("rtol")?,
            atol: tolerance("atol")?,
        })
    }

    /// Factors of the loss scale are `f32` here and `f64` there.
    pub(super) fn same_scale(&self, got: f32, want: Option<f64>) -> bool {
        want.is_none_or(|want| (f64::from(got) - want).abs() <= self.rtol * want)
    }

    /// Whether a parameter is what a master rounds to that is as near to another as the tolerance allows.
    pub(super) fn rounds_to(&self, got: &Data, i: usize, master: f32) -> bool {
        let most = (self.atol + self.rtol * f64::from(master.abs())) as f32;
        let of = |master: f32| Data::rounded(got.element(), &[master]).value(0);
        let got = got.value(i);
        (of(master - most) <= got && got <= of(master + most)) || (got.is_nan() && master.is_nan())
    }

    /// Error of an element in units of the tolerance: 1 just passes.
    pub(super) fn error(&self, got: f32, want: f32) -> f64 {
        let (got, want) = (f64::from(got), f64::from(want));
        if got == want || (got.is_nan() && want.is_nan()) {
            return 0.0;
        }
        let error = (got - want).abs() / (self.atol + self.rtol * want.abs());
        if error.is_nan() { f64::INFINITY } else { error }
    }
}

/// The type of parameters that have masters.
fn half(json: &Value) -> Attempt<Option<Element>> {
    match json["args"]["param_dtype"].as_str() {
        None => Ok(None),
        Some("f16") => Ok(Some(Element::F16)),
        Some("bf16") => Ok(Some(Element::Bf16)),
        Some(other) => Err(format!("argument `param_dtype`: `{other}` is no type of 16 bits")),
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
    let tolerance = number(&json["rtol"]).filter(|_| norms == "norms").unwrap_or(tolerance::SEVEN_DIGITS);
    let [norms, scales, skipped, losses] =
        [norms, "scale_before_each_step", "step_skipped", "losses"].map(|key| {
            let values = json[key].as_array().cloned().unwrap_or_else(|| vec![Value::Null; count]);
            if values.len() == count { Ok(values) } else { Err(format!("`{key}`: not one for each step")) }
        });
    let (norms, scales, skipped, losses) = (norms?, scales?, skipped?, losses?);
    let gradient = |k: usize, t: &String| input.gradient(&format!("s{}.g.{t}", k + 1));
    let after = |k: usize, t: &String| match &expected {
        Some(expected) => expected.parameter(&format!("s{}.p.{t}", k + 1)),
        None => input.parameter(&format!("p.{t}")),
    };
    (0..count)
        .map(|k| {
            Ok(Step {
                gradients: tensors.iter().map(|t| gradient(k, t)).collect::<Attempt<_>>()?,
                expected: tensors.iter().map(|t| after(k, t)).collect::<Attempt<_>>()?,
                halves: match (&expected, half(json)?) {
                    (Some(expected), Some(element)) => tensors
                        .iter()
                        .map(|t| expected.half(&format!("s{}.h.{t}", k + 1), element))
                        .collect::<Attempt<_>>()?,
                    _ => Vec::new(),
                },
                norm: number(&norms[k]).map(|norm| (norm, tolerance)),
                scale: number(&scales[k]),
                skipped: skipped[k].as_bool(),
                loss: number(&losses[k]).map(|loss| loss as f32),
            })
        })
        .collect()
}
