//! The command line: options of `clip --max-norm` and `norm`, devices, exit codes, what is printed, and
//! `verify`.

#![allow(clippy::unwrap_used)]

#[path = "common/cli.rs"]
mod cli;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use cli::{Folder, code, devices, f32_file, gradclip, json, lstm, norm, stderr, stdout, values};
use serde_json::Value;

// ---------------------------------------------------------------- options

/// Two tensors: norms 5 and 13 by L2, 7 and 17 by L1, 4 and 12 by the largest element.
fn five_thirteen(folder: &Folder) -> String {
    folder.write("in", &f32_file(&[("a", &[3.0, -4.0]), ("b", &[5.0, 0.0, 12.0])]))
}

#[test]
fn options_do_what_they_say() {
    let folder = Folder::new();
    let input = five_thirteen(&folder);
    let out = folder.path("out");
    let root = 194f64.sqrt();
    let cubes = (27f64 + 64.0 + 125.0 + 1728.0).cbrt();
    let halves = (3f64.sqrt() + 2.0 + 5f64.sqrt() + 12f64.sqrt()).powi(2);
    // Options, norm, factor of a, factor of b.
    let table: Vec<(&[&str], Option<f64>, f64, f64)> = vec![
        (&["--max-norm", "1"], Some(root), 1.0 / root, 1.0 / root),
        (&["--max-norm", "14"], Some(root), 1.0, 1.0),
        (&["--max-norm", "0"], Some(root), 0.0, 0.0),
        (&["--max-norm", "inf"], Some(root), 1.0, 1.0),
        (&["--max-norm", "6", "--scope", "tensor"], None, 1.0, 6.0 / 13.0),
        (&["--max-norm", "6", "--scope", "global"], Some(root), 6.0 / root, 6.0 / root),
        (&["--max-norm", "1", "--norm", "1"], Some(24.0), 1.0 / 24.0, 1.0 / 24.0),
        (&["--max-norm", "1", "--norm", "2"], Some(root), 1.0 / root, 1.0 / root),
        (&["--max-norm", "1", "--norm", "inf"], Some(12.0), 1.0 / 12.0, 1.0 / 12.0),
        (&["--max-norm", "1", "--norm", "3"], Some(cubes), 1.0 / cubes, 1.0 / cubes),
        (&["--max-norm", "1", "--norm", "0.5"], Some(halves), 1.0 / halves, 1.0 / halves),
        (&["--max-norm", "6", "--scope", "tensor", "--norm", "inf"], None, 1.0, 0.5),
        (&["--max-norm", "1", "--eps", "1"], Some(root), 1.0 / (root + 1.0), 1.0 / (root + 1.0)),
        (&["--max-norm", "1", "--unscale", "4"], Some(root / 4.0), 1.0 / root, 1.0 / root),
        (&["--max-norm", "9", "--unscale", "2"], Some(root / 2.0), 0.5, 0.5),
        (&["--max-norm", "1e9", "--unscale", "1e-3"], Some(root * 1e3), 1e3, 1e3),
    ];
    let before = fs::read(&input).unwrap();
    for device in devices() {
        for (options, whole, a, b) in &table {
            let what = format!("{options:?} on {device}");
            let fixed = ["clip", &input, "--out", &out, "--device", &device];
            let report = json(&[&fixed[..], options].concat(), 0);
            let tolerance = if device != "cpu" && whole == &Some(halves) { 2e-5 } else { 3e-6 };
            match whole {
                Some(whole) => {
                    assert!((norm(&report["norm"]) / whole - 1.0).abs() < tolerance, "{what}: {report}");
                }
                None => assert!(report["norm"].is_null() && report["coefficient"].is_null(), "{what}"),
            }
            let after = fs::read(&out).unwrap();
            for (name, factor) in [("a", a), ("b", b)] {
                for (from, to) in values(&before, name).iter().zip(values(&after, name)) {
                    let exact = from * factor;
                    assert!((to - exact).abs() <= exact.abs() * tolerance, "{what}: {name}: {to} {exact}");
                }
            }
        }
    }
}

#[test]
fn non_finite_policies() {
    let folder = Folder::new();
    let input =
        folder.write("in", &f32_file(&[("fine", &[3.0, 4.0]), ("bad", &[f32::INFINITY, 12.0, f32::NAN])]));
    let out = folder.path("out");
    let nan = f64::NAN;
    // Policy, clipped, coefficient, fine, bad.
    let table = [
        ("skip", false, Value::from(1.0), [3.0, 4.0], [f64::INFINITY, 12.0, nan]),
        ("zero", false, 0.0.into(), [0.0; 2], [0.0; 3]),
        ("sanitize", true, 0.5.into(), [1.5, 2.0], [0.0, 6.0, 0.0]),
        ("nan", false, Value::Null, [nan; 2], [nan; 3]),
    ];
    let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()));
    for device in devices() {
        let fixed = ["clip", &input, "--out", &out, "--device", &device, "--max-norm", "6.5"];
        for (policy, clipped, coefficient, fine, bad) in &table {
            let report = json(&[&fixed[..], &["--on-nonfinite", policy]].concat(), 0);
            let whole = if *policy == "sanitize" { Value::from(13.0) } else { "nan".into() };
            assert_eq!(report["norm"], whole, "{policy} on {device}");
            assert_eq!((&report["clipped"], &report["coefficient"]), (&Value::from(*clipped), coefficient));
            assert_eq!((&report["non_finite"], &report["first_non_finite"]), (&2.into(), &"bad".into()));
            let after = fs::read(&out).unwrap();
            assert!(same(&values(&after, "fine"), fine) && same(&values(&after, "bad"), bad), "{policy}");
        }
        fs::remove_file(&out).unwrap();
        for options in [&["--on-nonfinite", "error"][..], &[], &["--scope", "tensor"]] {
            let output = gradclip(&[&fixed[..], options].concat());
            assert_eq!(code(&output), 3, "{options:?} on {device}");
            assert!(stderr(&output).contains("`bad`"), "{}", stderr(&output));
            assert!(stdout(&output).contains("2 elements, the first in `bad`"));
            assert!(!Path::new(&out).exists());
        }
        // Measuring is no error, and without a policy an infinity stays one.
        assert_eq!(json(&["norm", &input, "--device", &device], 0)["norm"], "nan");
        let inf = folder.write("inf", &f32_file(&[("a", &[f32::NEG_INFINITY, 1.0])]));
        let report = json(&["norm", &inf, "--device", &device], 0);
        assert_eq!((&report["norm"], &report["tensors"][0]["norm"]), (&"inf".into(), &"inf".into()));
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let folder = Folder::new();
    let input = five_thirteen(&folder);
    let clip = |options: &[&'static str]| [&["clip", &input, "--device", "cpu"], options].concat().join("\n");
    let mut wrong = vec![String::new(), "shred".into(), "norm".into(), "clip".into()];
    wrong.push(clip(&[]));
    for value in ["-1", "nan", "-inf", "1e39", "one", ""] {
        wrong.push(clip(&["--max-norm", value]));
    }
    for (option, values) in [
        ("--norm", &["0", "-1", "nan", "-inf", "two", ""][..]),
        ("--eps", &["-1e-6", "nan", "inf", "x"]),
        ("--unscale", &["0", "-1", "nan", "inf", "1e60", "1e-60"]),
        ("--scope", &["row", ""]),
        ("--on-nonfinite", &["ignore"]),
        ("--device", &[""]),
        ("--frobnicate", &["1"]),
    ] {
        wrong.extend(values.iter().map(|value| clip(&["--max-norm", "1", option, value])));
    }
    for args in [
        "bench\n--preset\nnone",
        "bench\n--tensors\n3",
        "bench\n--elements\n3",
        "bench\n--tensors\n0\n--elements\n1",
        "bench\n--preset\ntiny\n--tensors\n1\n--elements\n1",
        "bench\n--device\ncpu\n--tensors\n1000000\n--elements\n18446744073709551615",
        "bench\n--device\ncpu\n--tensors\n1000000\n--elements\n1000000000",
        "verify\n--quick",
        "devices\nall",
    ] {
        wrong.push(args.into());
    }
    for args in wrong {
        let args: Vec<&str> = if args.is_empty() { vec![] } else { args.split('\n').collect() };
        let output = gradclip(&args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty() && stdout(&output).is_empty(), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["clip", "--help"], &["help", "bench"]] {
        assert_eq!(code(&gradclip(args)), 0, "{args:?}");
    }
}

#[test]
fn devices_are_found_by_their_names() {
    let input = lstm();
    let output = gradclip(&["norm", &input, "--device", "no such adapter"]);
    assert_eq!(code(&output), 4);
    assert!(stderr(&output).contains("--device") && stderr(&output).contains("no such adapter"));

    // A backend that this system does not have leaves no adapter.
    let absent = if cfg!(windows) { "metal" } else { "dx12" };
    let without = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_gradclip")).env("WGPU_BACKEND", absent).args(args).output().unwrap()
    };
    for device in ["gpu", "vulkan"] {
        let output = without(&["norm", &input, "--device", device]);
        assert_eq!(code(&output), 4, "{device}");
        assert!(stderr(&output).contains("mesa-vulkan-drivers"), "{}", stderr(&output));
    }
    let output = without(&["norm", &input, "--json"]);
    assert_eq!(code(&output), 0);
    assert_eq!(stderr(&output), "device: cpu, because there is no GPU adapter\n");
    assert!(stdout(&output).starts_with(r#"{"device":"cpu","adapter":null,"backend":null,"#));
    let output = without(&["devices", "--json"]);
    assert_eq!((code(&output), stdout(&output).trim()), (0, r#"{"adapters":[]}"#));
    assert!(stderr(&output).contains("mesa-vulkan-drivers"));

    let listed = json(&["devices"], 0);
    for adapter in listed["adapters"].as_array().unwrap() {
        let keys: Vec<&String> = adapter.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["backend", "name", "type", "driver", "driver_info", "limits", "features"]);
        assert!(adapter["limits"]["max_buffer_size"].as_u64().unwrap() > 0);
        let name = adapter["name"].as_str().unwrap();
        let backend = adapter["backend"].as_str().unwrap();
        let device = format!("{backend}/{name}").to_uppercase();
        let report = json(&["norm", &input, "--device", &device], 0);
        assert_eq!((&report["device"], &report["backend"]), (&"gpu".into(), &backend.into()));
        assert_eq!(report["adapter"], name);
        assert!(stdout(&gradclip(&["devices"])).contains(&format!("{backend}/{name}")));
    }
    if !listed["adapters"].as_array().unwrap().is_empty() {
        let output = gradclip(&["norm", &input, "--device", "auto"]);
        assert!(stderr(&output).contains("device: "), "{}", stderr(&output));
    }
}

// ---------------------------------------------------------------- what is printed

#[test]
fn json_is_as_promised() {
    let input = lstm();
    let mut outputs = Vec::new();
    for device in devices() {
        let report = json(&["clip", &input, "--max-norm", "1", "--device", &device], 0);
        let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
        let expected =
            "device adapter backend norm coefficient clipped norm_after non_finite first_non_finite tensors";
        assert_eq!(keys, expected.split(' ').collect::<Vec<_>>());
        let tensors = report["tensors"].as_array().unwrap();
        assert_eq!(tensors.len(), 10);
        for tensor in tensors {
            let keys: Vec<&String> = tensor.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["name", "dtype", "elements", "norm", "coefficient"]);
            assert_eq!((&tensor["dtype"], &tensor["coefficient"]), (&"f32".into(), &report["coefficient"]));
        }
        assert_eq!(report["device"], if device == "cpu" { "cpu" } else { "gpu" });
        assert_eq!(report["norm"], 66_398_512.0);
        assert_eq!(report["coefficient"], 1.5060579e-8);
        assert_eq!((&report["clipped"], &report["non_finite"]), (&true.into(), &0.into()));
        assert!(report["first_non_finite"].is_null());
        let measured = json(&["norm", &input, "--device", &device], 0);
        assert_eq!((&measured["norm"], &measured["coefficient"]), (&report["norm"], &1.0.into()));
        assert_eq!(measured["clipped"], false);
        outputs.push((report["norm"].clone(), report["tensors"].clone()));
    }
    assert!(outputs.iter().all(|o| *o == outputs[0]), "devices differ");

    // Each tensor its own norm: there is no single one, even if there is a single tensor.
    let folder = Folder::new();
    let single = folder.write("single", &f32_file(&[("a", &[3.0, 4.0])]));
    let report = json(&["clip", &single, "--max-norm", "1", "--scope", "tensor", "--device", "cpu"], 0);
    assert!(report["norm"].is_null() && report["coefficient"].is_null());
    assert_eq!((&report["tensors"][0]["norm"], &report["clipped"]), (&5.0.into(), &true.into()));

    // Digits: shortest for f32, and norms above it.
    let big = folder.write("in", &f32_file(&[("a", &[3e38; 100])]));
    let output = gradclip(&["clip", &big, "--max-norm", "3e38", "--device", "cpu", "--json"]);
    let text = stdout(&output);
    assert!(
        text.contains(r#""norm":3.000000086627394e+39"#) && text.contains(r#""coefficient":0.099999994,"#),
        "{text}"
    );
}

#[test]
fn the_table_fits_and_shows_the_largest() {
    let folder = Folder::new();
    let long = "model.decoder.layers.".repeat(8);
    let names: Vec<String> = (0..30).map(|i| format!("{long}{i}.weight")).collect();
    let numbers: Vec<[f32; 1]> = (0..30).map(|i| [(i + 1) as f32 * 1.234_567e30]).collect();
    let mut tensors: Vec<(&str, &[f32])> =
        names.iter().zip(&numbers).map(|(name, n)| (name.as_str(), &n[..])).collect();
    tensors.push(("\\u001b[31mred\\nline", &[8e37]));
    tensors.push(("名前の長いテンソルの名前の長いテンソル", &[9e37]));
    let input = folder.write("in", &f32_file(&tensors));
    for options in [
        &["clip", &input, "--max-norm", "1"][..],
        &["clip", &input, "--max-norm", "1", "--scope", "tensor"],
        &["norm", &input],
    ] {
        let output = gradclip(&[options, &["--device", "cpu"]].concat());
        let text = stdout(&output);
        assert_eq!(code(&output), 0);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(text.contains("[31mred") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("29.weight") && !text.contains("1.weight ┆"), "the largest are shown: {text}");
        assert!(text.contains('█') && text.contains("20 more tensors"), "{text}");
    }
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let input = lstm();
    for args in [&["clip", &input, "--max-norm", "1", "--device", "cpu"][..], &["devices"], &["--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gradclip"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut error = String::new();
        child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}: {error}");
        assert!(!error.contains("panicked"), "{error}");
    }
    #[cfg(target_os = "linux")]
    {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_gradclip"))
            .args(["norm", &input, "--device", "cpu"])
            .stdout(full)
            .output()
            .unwrap();
        assert_eq!(code(&output), 2);
        assert!(stderr(&output).contains("standard output"));
    }
}

// ---------------------------------------------------------------- verify

#[test]
fn verify_passes() {
    for device in devices() {
        let report = json(&["verify", "--device", &device], 0);
        assert_eq!(report["passed"], true);
        let rows = report["rows"].as_array().unwrap();
        let checked: Vec<&str> = rows.iter().map(|row| row["shader"].as_str().unwrap()).collect();
        match device.as_str() {
            "cpu" => {
                let parts = "norm power coefficient apply units rules steps accumulate coalesce private";
                assert_eq!(checked, parts.split(' ').collect::<Vec<_>>());
            }
            _ => {
                let shaders = "reduce tensors segments coefficient apply seams power reduce_units apply_units \
                    given skip threshold advance update_sgd update_momentum update_lars update_adam update_amsgrad \
                    update_nadam update_radam update_spam update_adopt update_lion accumulate coalesce_places \
                    coalesce_add coalesce_long_rows private_sum private_release";
                assert_eq!(checked, shaders.split(' ').collect::<Vec<_>>());
                let close = |name: &str| name == "power" || name.starts_with("update_");
                let exact = rows.iter().zip(&checked).filter(|(_, name)| !close(name));
                exact.for_each(|(row, _)| assert_eq!(row["max_ulp"], 0.0, "{row}"));
            }
        }
        for row in rows {
            assert!(row["cases"].as_u64().unwrap() > 50 && row["compared"].as_u64().unwrap() > 500, "{row}");
        }
    }
}
