//! What a clip could lose without a word, and does not: NaN parameters, halves that are unscaled in place, results that
//! would be infinite, and norms that rounding takes above the threshold.

#![allow(clippy::unwrap_used)]

#[path = "common/cli.rs"]
mod cli;

use std::fs;
use std::path::Path;

use cli::{
    Folder, any_file, brains, code, devices, f32_file, gradclip, halves, json, norm, refused, stderr, values,
};

#[test]
fn a_parameter_that_is_not_finite_is_named() {
    let folder = Folder::new();
    let input = folder.write("in", &f32_file(&[("a", &[300.0, 400.0]), ("b", &[3.0, 4.0])]));
    let out = folder.path("out");
    for bad in [f32::NAN, f32::INFINITY] {
        let params = folder.write("params", &f32_file(&[("a", &[1.0, 1.0]), ("b", &[bad, 1.0])]));
        for device in devices() {
            let args =
                ["clip", &input, "--agc", "0.01", "--params", &params, "--device", &device, "--out", &out];
            let report = json(&args, 3);
            assert_eq!(
                (&report["non_finite"], &report["first_non_finite"]),
                (&1.into(), &"b".into()),
                "{device}"
            );
            assert!(report["norm_after"].is_null());
            let error = stderr(&gradclip(&args));
            assert!(error.contains("the parameter of tensor `b` (--params)"), "{device}: {error}");
            assert!(!Path::new(&out).exists());
        }
    }
}

#[test]
fn halves_are_not_unscaled_in_place_unless_asked() {
    let folder = Folder::new();
    let input = folder.write("in", &any_file(&[("g", "F16", 64, halves(&[0.001; 64]))]));
    let out = folder.path("out");
    let exact = f64::from(half::f16::from_f32(0.001)) / 65536.0;
    for device in devices() {
        let clip =
            ["clip", &input, "--max-norm", "1", "--unscale", "65536", "--device", &device, "--out", &out];
        let error = refused(&clip);
        assert!(error.contains("`g`") && !Path::new(&out).exists(), "{device}: {error}");
        assert!(error.contains("--out-type f32") && error.contains("--lossy-unscale"), "{device}: {error}");
        let report = json(&[&clip[..], &["--out-type", "f32"]].concat(), 0);
        let after = values(&fs::read(&out).unwrap(), "g");
        assert!(after.iter().all(|&v| v == exact), "{device}: {after:?}");
        assert_eq!(report["norm_after"], report["norm"], "{device}");
        json(&[&clip[..], &["--lossy-unscale"]].concat(), 0);
        assert!(values(&fs::read(&out).unwrap(), "g").iter().all(|&v| v == 0.0), "{device}");
        fs::remove_file(&out).unwrap();
    }
}

#[test]
fn finite_gradients_stay_finite() {
    let folder = Folder::new();
    let input = folder.write("in", &any_file(&[("g", "F16", 2, halves(&[100.0, 1.0]))]));
    let inf =
        folder.write("inf", &any_file(&[("g", "F16", 3, halves(&[f32::INFINITY, f32::NEG_INFINITY, 1.0]))]));
    let out = folder.path("out");
    let most = 65504.0;
    for device in devices() {
        let run = |input: &str, options: &[&str]| {
            json(&[&["clip", input, "--device", &device, "--out", &out], options].concat(), 0);
            values(&fs::read(&out).unwrap(), "g")
        };
        assert_eq!(
            run(&input, &["--max-norm", "1e6", "--unscale", "0.001", "--lossy-unscale"]),
            [most, 1000.0]
        );
        assert_eq!(run(&input, &["--sign", "1e5", "--unscale", "1e-4", "--lossy-unscale"]), [most, most]);
        assert_eq!(run(&inf, &["--value", "1e5"]), [most, -most, 1.0]);
        // F32 has room for what F16 has none.
        assert_eq!(run(&inf, &["--value", "1e5", "--out-type", "f32"]), [1e5, -1e5, 1.0]);
    }
}

#[test]
fn never_above_keeps_the_norm_at_most_the_threshold() {
    let folder = Folder::new();
    let input = folder.write("in", &any_file(&[("g", "BF16", 1000, brains(&[1.0; 1000]))]));
    let value = folder.write("value", &any_file(&[("g", "BF16", 3, brains(&[1.0, -1.0, 0.05]))]));
    let out = folder.path("out");
    let exact = |after: &[f64]| after.iter().map(|v| v * v).sum::<f64>();
    for device in devices() {
        let clip = ["clip", &input, "--max-norm", "1", "--device", &device, "--out", &out];
        json(&clip, 0);
        assert!(exact(&values(&fs::read(&out).unwrap(), "g")) > 1.0, "{device}: rounding goes up here");
        let report = json(&[&clip[..], &["--never-above"]].concat(), 0);
        let after = values(&fs::read(&out).unwrap(), "g");
        assert!(
            exact(&after) <= 1.0 && exact(&after) > 0.98 && norm(&report["norm_after"]) <= 1.0,
            "{device}"
        );
        json(&["clip", &value, "--value", "0.1", "--device", &device, "--out", &out], 0);
        assert!(
            values(&fs::read(&out).unwrap(), "g").iter().all(|v| v.abs() <= f64::from(0.1f32)),
            "{device}"
        );
    }
    let output =
        gradclip(&["clip", &input, "--max-norm", "1", "--norm", "3", "--never-above", "--device", "cpu"]);
    assert!(code(&output) == 2 && stderr(&output).contains("never_above"), "{}", stderr(&output));
}

/// The same bits on every device, whatever is asked for.
#[test]
fn devices_agree_on_sets_of_files() {
    let folder = Folder::new();
    let a =
        folder.write("a", &any_file(&[("h", "F16", 3, halves(&[1.0, 0.5, -7.0])), ("m", "U8", 1, vec![9])]));
    let b = folder.write("b", &f32_file(&[("f", &[0.1, 0.2, 0.3]), ("e", &[])]));
    for options in [
        &["--max-norm", "0.3"][..],
        &["--max-norm", "0.3", "--out-type", "f32"],
        &["--max-norm", "0.3", "--group", "h=0.01", "--never-above"],
        &["--value", "0.2", "--exclude", "f"],
        &["--block-rms", "0.1", "--unscale", "4", "--out-type", "f32"],
    ] {
        let mut first = None;
        for device in devices() {
            let out = folder.path("out");
            let report = json(&[&["clip", &a, &b, "--device", &device, "--out", &out], options].concat(), 0);
            let written = (fs::read(format!("{out}/a")).unwrap(), fs::read(format!("{out}/b")).unwrap());
            let told = (report["norm_after"].clone(), report["tensors"].clone());
            assert_eq!(
                *first.get_or_insert((written.clone(), told.clone())),
                (written, told),
                "{options:?}, {device}"
            );
            fs::remove_dir_all(&out).unwrap();
        }
    }
}
