//! The answers of other libraries in `tests/data/cases` (PyTorch, TensorFlow, Keras and Optax, run on a
//! CPU), from the command line.

#![allow(clippy::unwrap_used)]

#[path = "common/cli.rs"]
mod cli;

use std::fs;
use std::path::Path;

use cli::{Folder, code, data, devices, f32_file, gradclip, json, norm, number, stderr, values};
use gradclip_verify::compare::is_close;
use gradclip_verify::tolerance;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// What each library calls the threshold, and the option that it is here.
const THRESHOLDS: [(&str, &str); 10] = [
    ("max_norm", "--max-norm"),
    ("clip_norm", "--max-norm"),
    ("clipnorm", "--max-norm"),
    ("global_clipnorm", "--max-norm"),
    ("clip_value", "--value"),
    ("clip_value_max", "--value"),
    ("max_delta", "--value"),
    ("clipvalue", "--value"),
    ("threshold", "--block-rms"),
    ("clipping", "--agc"),
];

/// The options that make gradclip compute what a case computed, its threshold second.
fn options(case: &Value) -> Vec<String> {
    let args = &case["args"];
    let threshold = |&(name, option)| number(&args[name]).map(|value| (option, value));
    let (option, threshold) = THRESHOLDS.iter().find_map(threshold).unwrap();
    let mut options = vec![option.to_owned(), threshold.to_string()];
    let mut add = |more: [&str; 2]| options.extend(more.map(str::to_owned));
    match option {
        "--max-norm" if case["peer"].as_str().unwrap().starts_with("torch") => add(["--eps", "1e-6"]),
        "--agc" => {
            add(["--agc-eps", &number(&args["eps"]).unwrap().to_string()]);
            // Optax' own axes are those of Flax; the others given are all but the first.
            add(["--agc-layout", if args["axis"].is_null() { "output-last" } else { "output-first" }]);
        }
        _ => {}
    }
    // Both clip each tensor by itself.
    if args.get("clipnorm").is_some() || args.get("axes").is_some() {
        add(["--scope", "tensor"]);
    }
    if let Some(scale) = number(&args["scale"]) {
        add(["--unscale", &scale.to_string()]);
    }
    options
}

/// One case on one device.
struct Run<'a> {
    what: String,
    case: &'a Value,
    /// Its folder.
    path: &'a Path,
    input: String,
    out: String,
    args: Vec<String>,
    threshold: f64,
}

/// Runs the cases of a library, of which there are at least so many.
fn answers_as(peer: &str, at_least: usize) {
    let folder = Folder::new();
    let mut count = 0;
    for entry in fs::read_dir(data().join("cases")).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_str().unwrap().starts_with(peer) {
            continue;
        }
        count += 1;
        let case = cli::case(&path);
        for device in devices() {
            let run = Run::new(&path, &case, &device, &folder);
            match run.args.iter().any(|arg| arg == "--max-norm") {
                true => run.by_norm(),
                false => run.by_rule(),
            }
        }
    }
    assert!(count >= at_least, "only {count} cases of {peer}");
}

#[test]
fn answers_as_torch() {
    answers_as("torch_", 25);
}

#[test]
fn answers_as_optax() {
    answers_as("optax_", 13);
}

#[test]
fn answers_as_tensorflow() {
    answers_as("tf_", 6);
}

#[test]
fn answers_as_keras() {
    answers_as("keras_", 6);
}

impl<'a> Run<'a> {
    fn new(path: &'a Path, case: &'a Value, device: &str, folder: &Folder) -> Run<'a> {
        let options = options(case);
        let threshold = number(&Value::from(options[1].as_str())).unwrap();
        let input = match case.get("generate") {
            Some(generate) => {
                let fill = number(&generate["fill"]).unwrap() as f32;
                let values = vec![fill; generate["n"].as_u64().unwrap() as usize];
                folder.write("generated", &f32_file(&[("g.0000", &values)]))
            }
            None => path.join(case["input"].as_str().unwrap()).to_str().unwrap().to_owned(),
        };
        let out = folder.path("out");
        let _ = fs::remove_file(&out);
        let mut args = ["--device", device, "--out", &out].map(str::to_owned).to_vec();
        let mut gradients = input.clone();
        if options[0] == "--agc" {
            let both = fs::read(&input).unwrap();
            gradients = folder.write("gradients", &only(&both, "g."));
            args.extend(["--params".to_owned(), folder.write("parameters", &only(&both, "p."))]);
        }
        let args = [vec!["clip".to_owned(), gradients.clone()], args, options].concat();
        let what = format!("{} on {device}", case["name"].as_str().unwrap());
        Run { what, case, path, input: gradients, out, args, threshold }
    }

    /// Arguments and some more.
    fn with<'s>(&'s self, more: &[&'s str]) -> Vec<&'s str> {
        self.args.iter().map(String::as_str).chain(more.iter().copied()).collect()
    }

    fn written(&self) -> Vec<u8> {
        fs::read(&self.out).unwrap()
    }

    /// A non-finite element is an error unless a policy is asked for. Gives what the peers' way makes.
    fn refused(&self) -> Vec<u8> {
        let what = &self.what;
        assert_eq!(json(&self.with(&[]), 3)["clipped"], false, "{what}");
        assert!(!Path::new(&self.out).exists(), "{what}");
        json(&self.with(&["--on-nonfinite", "nan"]), 0);
        self.written()
    }

    fn by_norm(&self) {
        let (what, case) = (&self.what, self.case);
        let true_norm = norm(&case["true_norm"]);
        if self.threshold < 0.0 {
            let output = gradclip(&self.with(&[]));
            assert_eq!(code(&output), 2, "{what}: {}", stderr(&output));
            return;
        }
        if !true_norm.is_finite() {
            let propagated = self.refused();
            // With an infinity the peers have zeros beside it.
            if true_norm.is_nan() && !case["expected"].is_null() {
                self.compare(&propagated, |_| false);
            }
            return;
        }
        let report = json(&self.with(&[]), 0);
        let (before, after) = (fs::read(&self.input).unwrap(), self.written());
        if !report["norm"].is_null() {
            let error = (norm(&report["norm"]) / true_norm - 1.0).abs();
            assert!(error < tolerance::NORM, "{what}: norm {} is not {true_norm}", report["norm"]);
        }
        assert_eq!(report["clipped"], true_norm > self.threshold * (1.0 + 1e-9), "{what}");
        if true_norm <= self.threshold {
            assert!(before == after, "{what}: changed though it is within the threshold");
        } else if !case["expected"].is_null() || case.get("exact").is_some() {
            self.compare(&after, |_| false);
        }
        if let Some(generate) = case.get("generate") {
            let n = generate["n"].as_f64().unwrap();
            let clipped = (values(&after, "g.0000")[0].powi(2) * n).sqrt();
            assert!((clipped / self.threshold - 1.0).abs() < 2e-7, "{what}: {clipped}");
        }
    }

    fn by_rule(&self) {
        let what = &self.what;
        let before = fs::read(&self.input).unwrap();
        let names = SafeTensors::deserialize(&before).unwrap().names().join(" ");
        let all = |name: &str, test: fn(f64) -> bool| values(&before, name).into_iter().all(test);
        let finite = names.split(' ').all(|name| all(name, f64::is_finite));
        let value = self.args.iter().any(|arg| arg == "--value");
        if !finite && !value {
            // Optax leaves zeros beside an infinity; here the whole tensor is not a number.
            let infinite = |name: &str| !all(name, |e| !e.is_infinite());
            self.compare(&self.refused(), infinite);
            return;
        }
        let report = json(&self.with(&[]), 0);
        assert!(report["norm"].is_null() && report["coefficient"].is_null(), "{what}: {report}");
        assert_eq!(report["clipped"], true, "{what}");
        let after = self.written();
        self.compare(&after, |_| false);
        for name in names.split(' ').filter(|_| value) {
            for (b, a) in values(&before, name).into_iter().zip(values(&after, name)) {
                assert!(b.abs() > self.threshold || a.to_bits() == b.to_bits(), "{what}: {b:e} became {a:e}");
            }
        }
    }

    /// |out - expected| <= atol + rtol * |expected|, with NaN in the same places, or everywhere in the
    /// tensors that `poisoned` names.
    fn compare(&self, got: &[u8], poisoned: impl Fn(&str) -> bool) {
        let Run { what, case, path, .. } = self;
        let wrong = case["peer_wrong"].as_array().unwrap().contains(&"output".into());
        let name = if wrong { "exact.safetensors" } else { "expected.safetensors" };
        let expected = fs::read(path.join(name)).unwrap();
        let atol = number(&case["atol"]).unwrap_or(0.0);
        for tensor in case["tensors"].as_array().unwrap() {
            let tensor = tensor.as_str().unwrap();
            let half = SafeTensors::deserialize(got).unwrap().tensor(tensor).unwrap().dtype() == Dtype::F16;
            // Beside an exact answer only our own rounding is allowed: four steps of f32, or one of f16.
            let rtol = number(&case["rtol"]).unwrap_or(if half { 4.9e-4 } else { 2.4e-7 });
            let (got, expected) = (values(got, tensor), values(&expected, tensor));
            assert_eq!(got.len(), expected.len(), "{what}: {tensor}");
            for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
                let nan = e.is_nan() || poisoned(tensor);
                let close = (g.is_nan() && nan) || is_close(*g, *e, rtol, atol);
                assert!(close, "{what}: {tensor}[{i}] is {g:e}, expected {e:e}");
            }
        }
    }
}

/// A file of the tensors whose names begin with `prefix`, all named as gradients.
fn only(file: &[u8], prefix: &str) -> Vec<u8> {
    let parsed = SafeTensors::deserialize(file).unwrap();
    let tensors =
        parsed.iter().filter_map(|(name, view)| Some((format!("g.{}", name.strip_prefix(prefix)?), view)));
    let tensors: Vec<(String, TensorView<'_>)> = tensors.collect();
    safetensors::serialize(tensors, None).unwrap()
}
