//! F64 gradients on the command line: the CPU path clips them with doubles throughout, adapters refuse them.

#![allow(clippy::unwrap_used)]

#[path = "common/cli.rs"]
mod cli;

use std::fs;

use cli::{
    Folder, any_file, code, data, devices, doubles, f32_file, gradclip, json, norm, number, refused, stderr,
    stdout, tensor, values,
};
use serde_json::Value;

fn f64_file(name: &str, values: &[f64]) -> Vec<u8> {
    any_file(&[(name, "F64", values.len(), doubles(values))])
}

#[test]
fn answers_as_torch_on_doubles() {
    let folder = Folder::new();
    for case in ["torch_f64_file_close_values", "torch_f64_file_mixed", "torch_f64_file_pinf"] {
        let path = data().join("cases2").join(case);
        let case = cli::case(&path);
        let read = |key: &str| case[key].as_str().map(|name| path.join(name));
        let (input, out) = (read("input").unwrap(), folder.path("out"));
        let max_norm = case["args"]["max_norm"].to_string();
        let norm_type = number(&case["args"]["norm_type"]).unwrap().to_string();
        let args =
            ["clip", input.to_str().unwrap(), "--max-norm", &max_norm, "--eps", "1e-6", "--norm", &norm_type];
        let report = json(&[&args[..], &["--device", "cpu", "--out", &out]].concat(), 0);
        let exact = number(&case["true_norm"]).unwrap();
        assert!((norm(&report["norm"]) / exact - 1.0).abs() <= 1.5e-16, "{report}");
        // Where the peer is wrong, its formula in exact arithmetic stands beside its answer.
        let expected = fs::read(read("exact").or_else(|| read("expected")).unwrap()).unwrap();
        let after = fs::read(&out).unwrap();
        for name in safetensors::SafeTensors::deserialize(&after).unwrap().names() {
            let kind = if tensor(&after, name).0 == "F64" { "float64" } else { "float32" };
            let tolerance =
                |key: &str| case["tolerances"][kind].get(key).or(case.get(key)).and_then(number).unwrap();
            for (got, peer) in values(&after, name).iter().zip(values(&expected, name)) {
                let most = tolerance("atol") + tolerance("rtol") * peer.abs();
                assert!((got - peer).abs() <= most, "{name}: {got}, expected {peer}");
            }
        }
    }
}

/// Numbers of options are doubles where a gradient is, and printed so that they come back.
#[test]
fn options_and_reports_are_doubles() {
    let folder = Folder::new();
    let (input, out) = (folder.write("in", &f64_file("w", &[3.0, 4.0])), folder.path("out"));
    let run = |options: &[&str]| {
        let report = json(&[&["clip", &input, "--device", "cpu", "--out", &out], options].concat(), 0);
        (report, values(&fs::read(&out).unwrap(), "w"))
    };
    let (report, after) = run(&["--max-norm", "0.1"]);
    assert_eq!((&report["coefficient"], &report["tensors"][0]["dtype"]), (&0.02.into(), &"f64".into()));
    assert!(
        (after[0] - 0.06).abs() < 1e-16 && (norm(&report["norm_after"]) - 0.1).abs() < 1e-16,
        "{report} {after:?}"
    );
    // Within the range of doubles alone.
    let (report, after) = run(&["--max-norm", "1e39"]);
    assert_eq!((&report["clipped"], after), (&false.into(), vec![3.0, 4.0]));
    let (report, _) = run(&["--max-norm", "1e-300"]);
    assert!((norm(&report["norm_after"]) / 1e-300 - 1.0).abs() < 1e-15, "{report}");
    let (report, after) = run(&["--max-norm", "inf", "--unscale", "3"]);
    assert!(
        (norm(&report["norm"]) / (5.0 / 3.0) - 1.0).abs() < 3e-16 && (after[0] - 1.0).abs() < 3e-16,
        "{report}"
    );
    let big = folder.write("big", &f64_file("w", &[3e200, 4e200]));
    let report = json(&["norm", &big, "--device", "cpu"], 0);
    assert!((norm(&report["norm"]) / 5e200 - 1.0).abs() < 1e-15, "{report}");
    // The other rules.
    let p = folder.write("p", &f64_file("w", &[6.0, 8.0]));
    for (options, expected) in [
        (&["--value", "3.1"][..], [3.0, 3.1]),
        (&["--block-rms", "0.1"], [0.3 * 2f64.sqrt() / 5.0, 0.4 * 2f64.sqrt() / 5.0]),
        (&["--sign", "0.1"], [0.1, 0.1]),
        (&["--agc", "0.1", "--params", &p], [0.6, 0.8]),
        (&["--max-norm", "1", "--group", "w=0.1"], [0.06, 0.08]),
        (&["--max-norm", "1", "--scope", "tensor"], [0.6, 0.8]),
        (&["--max-norm", "1", "--exclude", "*"], [3.0, 4.0]),
    ] {
        let (_, after) = run(options);
        assert!(
            after.iter().zip(expected).all(|(a, e)| (a / e - 1.0).abs() < 1e-15),
            "{options:?}: {after:?}"
        );
    }
    // Doubles in the parameters alone.
    let halves = folder.write("halves", &f32_file(&[("w", &[3.0, 4.0])]));
    let report =
        json(&["clip", &halves, "--agc", "0.1", "--params", &p, "--device", "cpu", "--out", &out], 0);
    let after = values(&fs::read(&out).unwrap(), "w");
    assert!(
        (norm(&report["norm_after"]) - 1.0).abs() < 1e-7 && (after[0] - 0.6).abs() < 1e-7,
        "{report} {after:?}"
    );
    // Singles beside stay what they were.
    let single = folder.write("single", &f32_file(&[("w", &[3.0, 4.0])]));
    let error = refused(&["clip", &single, "--max-norm", "1e39", "--device", "cpu"]);
    assert!(error.contains("--max-norm") && error.contains("largest f32"), "{error}");
    let error = refused(&["clip", &single, "--max-norm", "1", "--unscale", "1e60", "--device", "cpu"]);
    assert!(error.contains("--unscale"), "{error}");
}

#[test]
fn adapters_refuse_doubles_and_auto_says_where_it_goes() {
    let folder = Folder::new();
    let mixed = folder.write(
        "in",
        &any_file(&[("a", "F32", 1, 3f32.to_le_bytes().to_vec()), ("w", "F64", 1, doubles(&[4.0]))]),
    );
    let single = folder.write("single", &f32_file(&[("w", &[3.0, 4.0])]));
    let params = folder.write("params", &f64_file("w", &[6.0, 8.0]));
    for device in ["gpu", "vulkan", "no such adapter"]
        .into_iter()
        .map(str::to_owned)
        .chain(devices().into_iter().skip(1))
    {
        for args in [
            &["norm", &mixed][..],
            &["clip", &mixed, "--max-norm", "1"],
            &["suggest", &mixed],
            &["clip", &single, "--agc", "1", "--params", &params],
        ] {
            let error = refused(&[args, &["--device", &device]].concat());
            assert!(
                error.contains("--device") && error.contains("F64") && error.contains("--device cpu"),
                "{error}"
            );
        }
    }
    for args in [&["norm", &mixed][..], &["clip", &mixed, "--max-norm", "inf"]] {
        let output = gradclip(&[args, &["--json"]].concat());
        assert_eq!(code(&output), 0);
        assert!(stderr(&output).contains("device: cpu, because tensor `w` is F64"), "{}", stderr(&output));
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!((&report["norm"], &report["device"]), (&5.0.into(), &"cpu".into()));
    }
}

/// Rounded after the clip, never to infinity.
#[test]
fn out_type_f32_rounds_doubles_after_the_clip() {
    let folder = Folder::new();
    let (input, out) = (folder.write("in", &f64_file("w", &[3e200, -4e200, 1.0, 0.1])), folder.path("out"));
    let run = |options: &[&str]| {
        json(
            &[&["clip", &input, "--device", "cpu", "--out", &out, "--out-type", "f32"], options].concat(),
            0,
        );
        let after = fs::read(&out).unwrap();
        assert_eq!(tensor(&after, "w").0, "F32");
        values(&after, "w")
    };
    let most = f64::from(f32::MAX);
    assert_eq!(run(&["--max-norm", "inf"]), [most, -most, 1.0, f64::from(0.1f32)]);
    let after = run(&["--max-norm", "1"]);
    assert_eq!((after[0], after[1]), (f64::from(0.6f32), f64::from(-0.8f32)));
    // Towards zero, so that the norm is at most 1 exactly: 0.6 and 0.8 both lie below their nearest f32.
    let after = run(&["--max-norm", "1", "--never-above"]);
    assert!(
        after[0] < 0.6 + 1e-12 && after[1] > -0.8 - 1e-12 && after[0].hypot(after[1]) <= 1.0,
        "{after:?}"
    );
}
