//! Thresholds over the steps of a run as other programs have them, in `tests/data/series_cases`: gradients clipped in place, step
//! after step, on the CPU path and on the adapter. `GRADCLIP_SERIES_CASES` names another folder of such cases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::{Named, Placing, Tensor, bits, files, gpu};
use gradclip::cpu;
use gradclip::{Adapt, Aggc, Clip, History};
use serde_json::Value;

/// The steps of a case.
struct Case {
    clip: Clip,
    gradients: Vec<Vec<Tensor>>,
    expected: Vec<Vec<Tensor>>,
    /// Of each step one a segment, as they are known.
    thresholds: Vec<Vec<f64>>,
    rtol: f64,
    atol: f64,
}

/// Asks for arguments, each of which has to be asked for.
struct Args<'a>(&'a serde_json::Map<String, Value>, std::cell::RefCell<BTreeSet<String>>);

impl Args<'_> {
    fn value(&self, name: &str) -> &Value {
        self.1.borrow_mut().insert(name.into());
        self.0.get(name).unwrap_or(&Value::Null)
    }

    fn number(&self, name: &str) -> f64 {
        files::number(self.value(name)).unwrap_or_else(|| panic!("argument `{name}` is no number"))
    }
}

fn clip_of(function: &str, args: &Args<'_>) -> Clip {
    let none = Clip::global_norm(f32::INFINITY);
    if function.starts_with("AutoClip with bounds") {
        let (percentile, window) = (args.number("percentile") as f32, args.number("window") as u32);
        let adapt = Adapt::Percentile { percentile, window };
        return none.adapt(adapt).at_least(args.number("floor")).at_most(args.number("ceiling"));
    }
    if function == "autoclip.torch.QuantileClip(global_threshold=True).step" {
        let (percentile, window) =
            ((args.number("quantile") * 100.0) as f32, args.number("history_length") as u32);
        return none.adapt(Adapt::PastPercentile { percentile, window }).eps(Clip::PYTORCH_EPS);
    }
    assert!(function.starts_with("AGGC"), "unknown `{function}`");
    let low = if args.value("raise_small") == true { args.number("low_mult") as f32 } else { 0.0 };
    args.value("low_mult");
    let aggc = Aggc::new(low, args.number("high_mult") as f32, args.number("ema_beta") as f32)
        .min_norm(args.number("min_norm") as f32)
        .scales(args.number("max_down_scale") as f32, args.number("max_up_scale") as f32)
        .from_zero(args.value("ema_start") == "zero");
    Clip::per_group_norm(f32::INFINITY).adapt(Adapt::Aggc(aggc))
}

fn read(folder: &Path) -> Case {
    let json = files::json(&folder.join("case.json")).unwrap();
    let args = Args(json["args"].as_object().unwrap(), Default::default());
    let clip = clip_of(json["function"].as_str().unwrap(), &args);
    let names = ["one", "two", "three", "four"];
    let groups: Vec<Vec<String>> = serde_json::from_value(args.value("groups").clone()).unwrap_or_default();
    let asked = args.1.borrow();
    assert!(args.0.keys().all(|key| asked.contains(key)), "{}: {asked:?}", folder.display());
    let steps = json["steps"].as_u64().unwrap() as usize;
    let all = |file: &str, kind: &str| -> Vec<Vec<Tensor>> {
        let tensors = files::tensors(&folder.join(json[file].as_str().unwrap())).unwrap();
        let of = |step: usize| {
            let prefix = format!("s{step}.{kind}.");
            let own = tensors.iter().filter(|t| t.name.starts_with(&prefix)).cloned();
            own.map(|mut tensor| {
                let name = tensor.name.replace(&prefix, "g.");
                let group = groups.iter().position(|members| members.contains(&name));
                tensor.group = group.map(|group| Named::new(names[group], f64::INFINITY));
                tensor
            })
            .collect()
        };
        (1..=steps).map(of).collect()
    };
    let thresholds = if json["thresholds"].is_null() { "upper" } else { "thresholds" };
    let of = |value: &Value| match value.as_array() {
        None => vec![files::number(value).unwrap()],
        Some(all) => all.iter().map(|one| files::number(one).unwrap()).collect(),
    };
    let number = |key: &str| files::number(&json[key]).unwrap();
    Case {
        clip,
        gradients: all("input", "g"),
        expected: all("expected", "c"),
        thresholds: json[thresholds].as_array().unwrap().iter().map(of).collect(),
        rtol: number("rtol"),
        atol: number("atol"),
    }
}

fn replay(folder: &Path) {
    let case = read(folder);
    let what = folder.display();
    let lengths = [case.gradients.len(), case.expected.len(), case.thresholds.len()];
    assert!(lengths[0] > 0 && lengths.iter().all(|len| *len == lengths[0]), "{what}: {lengths:?}");
    let names = |all: &[Vec<Tensor>]| all.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(names(&case.gradients), names(&case.expected), "{what}");
    let mut history = History::default();
    let mut left = Vec::new();
    for (step, (gradients, expected)) in case.gradients.iter().zip(&case.expected).enumerate() {
        let mut tensors = gradients.clone();
        let report = cpu::clip_with(&mut common::grads(&mut tensors), &case.clip, &mut history).unwrap();
        for (segment, want) in report.segments.iter().zip(&case.thresholds[step]) {
            // Nothing is limited where the case's is 0.
            let want = if *want == 0.0 { f64::INFINITY } else { *want };
            let same = segment.threshold == want || (segment.threshold / want - 1.0).abs() <= case.rtol;
            assert!(same, "{what}, step {}: {} is not {want}", step + 1, segment.threshold);
        }
        let values: Vec<Vec<f32>> = tensors.iter().map(|t| t.data.floats()).collect();
        for (got, want) in values.iter().flatten().zip(expected.iter().flat_map(|t| t.data.floats())) {
            let (got, want) = (f64::from(*got), f64::from(want));
            let most = case.atol + case.rtol * want.abs();
            assert!((got - want).abs() <= most, "{what}, step {}: {got} is not {want}", step + 1);
        }
        left.push(values);
    }
    let Some(gpu) = gpu() else { return };
    let placed = gpu.place(&case.gradients[0], Placing::APART).grads;
    let pass = gpu.clipper.prepare(&placed, &case.clip).unwrap();
    for (step, (gradients, left)) in case.gradients.iter().zip(&left).enumerate() {
        let gradients: Vec<Vec<f32>> = gradients.iter().map(|t| t.data.floats()).collect();
        gpu.write(&placed, &gradients);
        gpu.submit(|encoder| pass.record(encoder));
        let there = common::contents(&gpu, &placed, &gradients);
        assert_eq!(bits(&there), bits(left), "{what}, step {} on {}", step + 1, gpu.name);
    }
    assert_eq!(gpu.save(&pass), history, "{what} on {}", gpu.name);
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.join("case.json").is_file()).collect()
}

#[test]
fn thresholds_are_those_of_other_programs() {
    let own = folders(&files::folder("series_cases"));
    assert!(own.len() >= 3, "{own:?}");
    own.iter().for_each(|folder| replay(folder));
}

#[test]
fn cases_given() {
    let Some(path) = std::env::var_os("GRADCLIP_SERIES_CASES") else { return };
    folders(Path::new(&path)).iter().for_each(|folder| replay(folder));
}
