//! The options of `gradclip clip` beside `--max-norm`: what each does, what goes together, what is
//! reported.

#![allow(clippy::unwrap_used)]

#[path = "common/cli.rs"]
mod cli;

use std::fs;
use std::path::Path;

use cli::{
    Folder, assert_close, awkward, brains, code, devices, f32_file, file, floats, gradclip, json, norm,
    stderr, stdout, values,
};
use serde_json::Value;

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// Norms 5 and 13; root mean squares 3.54 and 7.51.
fn gradients(folder: &Folder) -> String {
    folder.write("in", &f32_file(&[("a", &[3.0, -4.0]), ("b", &[5.0, 0.0, 12.0])]))
}

/// Norms 2 and 0, and what a checkpoint has beside parameters.
fn parameters(folder: &Folder) -> String {
    let header = r#"{"steps":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[3],"data_offsets":[8,20]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[20,24]}}"#;
    folder.write("params", &file(header, &[vec![0; 20], brains(&[2.0, 0.0])].concat()))
}

/// A number of the report; NaN for null.
fn given(value: &Value) -> f64 {
    if value.is_null() { NAN } else { norm(value) }
}

#[test]
fn rules_do_what_they_say() {
    let folder = Folder::new();
    let (input, params, out) = (gradients(&folder), parameters(&folder), folder.path("out"));
    let root = 194f64.sqrt();
    let rms = 4.0 * 3f64.sqrt() / 13.0;
    let same = ([3.0, -4.0], [5.0, 0.0, 12.0]);
    let scaled = |a: f64, b: f64| ([3.0 * a, -4.0 * a], [5.0 * b, 0.0, 12.0 * b]);
    let signs = |e: f64| ([e, -e], [e, 0.0, e]);
    let p = params.as_str();
    // Options, a and b; norm and coefficient of the whole; coefficients of a and b.
    type Row<'a> = (&'a [&'a str], ([f64; 2], [f64; 3]), [f64; 2], [f64; 2]);
    let table: &[Row<'_>] = &[
        (&["--value", "4"], ([3.0, -4.0], [4.0, 0.0, 4.0]), [NAN; 2], [NAN; 2]),
        (&["--value", "12"], same, [NAN; 2], [NAN; 2]),
        (&["--value", "0"], scaled(0.0, 0.0), [NAN; 2], [NAN; 2]),
        (&["--value", "inf"], same, [NAN; 2], [NAN; 2]),
        (&["--value", "4", "--unscale", "2"], ([1.5, -2.0], [2.5, 0.0, 4.0]), [NAN; 2], [NAN; 2]),
        (&["--block-rms", "4"], scaled(1.0, rms), [NAN; 2], [1.0, rms]),
        (&["--block-rms", "2", "--unscale", "2"], scaled(0.5, rms / 2.0), [NAN; 2], [1.0, rms]),
        (&["--block-rms", "0"], scaled(0.0, 0.0), [NAN; 2], [0.0; 2]),
        (&["--block-rms", "inf"], same, [NAN; 2], [1.0; 2]),
        (&["--sign", "0.5"], signs(0.5), [root, NAN], [NAN; 2]),
        (&["--sign", "14"], same, [root, 1.0], [1.0; 2]),
        (&["--sign", "inf"], same, [root, 1.0], [1.0; 2]),
        (&["--sign", "11", "--norm", "inf"], signs(11.0), [12.0, NAN], [NAN; 2]),
        (&["--sign", "24", "--norm", "1"], same, [24.0, 1.0], [1.0; 2]),
        (&["--sign", "6", "--unscale", "2"], signs(6.0), [root / 2.0, NAN], [NAN; 2]),
        (&["--agc", "0.5", "--params", p], scaled(0.2, 0.5e-3 / 13.0), [NAN; 2], [NAN; 2]),
        (&["--agc", "2", "--params", p, "--agc-eps", "6.5"], scaled(1.0, 1.0), [NAN; 2], [NAN; 2]),
        (&["--agc", "1", "--params", p, "--agc-eps", "0"], scaled(0.4, 0.0), [NAN; 2], [NAN; 2]),
    ];
    for device in devices() {
        for (options, (a, b), whole, coefficients) in table {
            let what = format!("{options:?} on {device}");
            let fixed = ["clip", &input, "--out", &out, "--device", &device];
            let report = json(&[&fixed[..], options].concat(), 0);
            let after = fs::read(&out).unwrap();
            assert_close(&what, &values(&after, "a"), a);
            assert_close(&what, &values(&after, "b"), b);
            assert_close(&what, &["norm", "coefficient"].map(|key| given(&report[key])), whole);
            let tensors = report["tensors"].as_array().unwrap();
            let of = |key: &str| tensors.iter().map(|t| given(&t[key])).collect::<Vec<f64>>();
            assert_close(&what, &of("coefficient"), coefficients);
            let unscale = if options.contains(&"--unscale") { 0.5 } else { 1.0 };
            let norms = match options.get(3) {
                Some(&"inf") => [4.0, 12.0],
                Some(&"1") => [7.0, 17.0],
                _ => [5.0 * unscale, 13.0 * unscale],
            };
            assert_close(&what, &of("norm"), &norms);
            let clipped = a.map(|e| e / unscale) != same.0 || b.map(|e| e / unscale) != same.1;
            assert_eq!(report["clipped"], clipped, "{what}");
        }
    }
}

#[test]
fn units_are_rows_or_columns() {
    let folder = Folder::new();
    let tensor = |values: &[f32]| {
        file(r#"{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#, &floats(values))
    };
    let g = [3.0, 4.0, 12.0, 0.3, 0.4, 1.2];
    let input = folder.write("in", &tensor(&g));
    let params = folder.write("params", &tensor(&[1.0; 6]));
    let out = folder.path("out");
    // Norms of the rows 13 and 1.3, of the columns 3.015, 4.02 and 12.06; limits 2 √3 and 2 √2.
    let row = 2.0 * 3f64.sqrt() / 13.0;
    let columns = [1.0; 3].map(|_| 2.0 * 2f64.sqrt()).map(f64::from);
    let column = |i: usize| columns[i] / f64::from(g[i]).hypot(g[i + 3].into());
    let first = [row, row, row, 1.0, 1.0, 1.0];
    let last = [column(0), column(1), column(2), column(0), column(1), column(2)];
    for device in devices() {
        for (layout, factors) in [(&[][..], first), (&["output-first"], first), (&["output-last"], last)] {
            let what = format!("{layout:?} on {device}");
            let clip =
                ["clip", &input, "--params", &params, "--agc", "2", "--out", &out, "--device", &device];
            let option = if layout.is_empty() { &[][..] } else { &["--agc-layout"] };
            let args = [&clip[..], option, layout].concat();
            let report = json(&args, 0);
            let expected: Vec<f64> =
                g.iter().zip(factors).map(|(&g, factor)| f64::from(g) * factor).collect();
            assert_close(&what, &values(&fs::read(&out).unwrap(), "w"), &expected);
            let tensor = &report["tensors"][0];
            assert!(tensor["coefficient"].is_null() && report["norm"].is_null(), "{what}: {report}");
            let units = if factors == first { "clipped     1 unit\n" } else { "clipped     3 units\n" };
            let text = stdout(&gradclip(&args));
            assert!(text.contains(units), "{what}: {text}");
        }
    }
}

#[test]
fn parameters_must_be_those_of_the_gradients() {
    let folder = Folder::new();
    let of = |dtype: &str, shape: &str, bytes: usize| {
        let header =
            format!(r#"{{"fc.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{bytes}]}}}}"#);
        file(&header, &vec![0; bytes])
    };
    let input = folder.write("in", &of("F32", "[2,3]", 24));
    let out = folder.path("out");
    let expected = "expected tensor `fc.weight` of shape [2, 3]";
    let wrong = [
        ("missing", f32_file(&[("fc.bias", &[0.0; 6])]), vec![expected, "none of this name"]),
        ("turned", of("F32", "[3,2]", 24), vec![expected, "[3, 2]"]),
        ("flat", of("F32", "[6]", 24), vec![expected, "[6]"]),
        ("octets", of("U8", "[2,3]", 6), vec![expected, "U8", "F64, F32, F16 or BF16"]),
        (
            "garbage",
            b"no safetensors file at all".to_vec(),
            vec!["expected a whole safetensors file", "plain text"],
        ),
    ];
    for (name, bytes, says) in wrong {
        let params = folder.write("params", &bytes);
        let output =
            gradclip(&["clip", &input, "--device", "cpu", "--agc", "1", "--params", &params, "--out", &out]);
        let error = stderr(&output);
        assert_eq!(code(&output), 2, "{name}: {error}");
        for word in says.into_iter().chain(["--params", &params]) {
            assert!(error.contains(word), "{name}: expected `{word}` in: {error}");
        }
        assert!(stdout(&output).is_empty() && !Path::new(&out).exists(), "{name}");
    }
    let output =
        gradclip(&["clip", &input, "--device", "cpu", "--agc", "1", "--params", &folder.path("none")]);
    assert!(code(&output) == 2 && stderr(&output).contains("--params"), "{}", stderr(&output));
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let folder = Folder::new();
    let (input, params) = (gradients(&folder), parameters(&folder));
    let rules: [(&str, &[&str]); 5] = [
        ("--max-norm", &["--max-norm", "1"]),
        ("--value", &["--value", "1"]),
        ("--block-rms", &["--block-rms", "1"]),
        ("--agc", &["--agc", "1", "--params", &params]),
        ("--sign", &["--sign", "1"]),
    ];
    // Option, value, the rules it goes with.
    let others = [
        ("--scope", "tensor", "--max-norm"),
        ("--scope", "global", "--max-norm"),
        ("--eps", "0", "--max-norm"),
        ("--norm", "1", "--max-norm --sign"),
        ("--params", params.as_str(), "--agc"),
        ("--agc-eps", "1e-3", "--agc"),
        ("--agc-layout", "output-last", "--agc"),
        ("--unscale", "2", "--max-norm --value --block-rms --agc --sign"),
        ("--on-nonfinite", "zero", "--max-norm --value --block-rms --agc --sign"),
    ];
    let run = |options: &[&str], expected: i32, names: &[&str]| {
        let output = gradclip(&[&["clip", &input, "--device", "cpu"], options].concat());
        let error = stderr(&output);
        assert_eq!(code(&output), expected, "{options:?}: {error}");
        assert!(names.iter().all(|name| error.contains(name)), "{options:?}: {error}");
    };
    run(&[], 2, &rules.map(|(name, _)| name));
    for (rule, words) in rules {
        for (other, more) in rules {
            if rule != other {
                run(&[words, more].concat(), 2, &[rule, other]);
            }
        }
        for (option, value, with) in others.iter().filter(|(option, ..)| !words.contains(option)) {
            let expected = if with.split(' ').any(|name| name == rule) { 0 } else { 2 };
            let names = if expected == 0 { vec![] } else { vec![*option] };
            run(&[words, &[*option, *value]].concat(), expected, &names);
        }
        for wrong in ["-1", "nan", "-inf", "1e39", "one", ""] {
            run(&[&[rule, wrong], &words[2..]].concat(), 2, &[rule]);
        }
    }
    run(&["--agc", "1"], 2, &["--params"]);
    for wrong in ["-1", "nan", "inf"] {
        run(&["--agc", "1", "--params", &params, "--agc-eps", wrong], 2, &["--agc-eps"]);
    }
    run(&["--agc", "1", "--params", &params, "--agc-layout", "first"], 2, &["output-first", "output-last"]);
}

#[test]
fn non_finite_elements_do_what_they_do_to_each_rule() {
    let folder = Folder::new();
    let input = folder
        .write("in", &f32_file(&[("fine", &[3.0, 4.0]), ("bad", &[f32::NEG_INFINITY, 12.0, f32::NAN])]));
    let params = folder.write("params", &f32_file(&[("fine", &[1.0, 0.0]), ("bad", &[0.0, 1.0, 0.0])]));
    let out = folder.path("out");
    let (value, agc) = (&["--value", "6"][..], &["--agc", "1", "--params", &params][..]);
    let (rms, sign) = (&["--block-rms", "1"][..], &["--sign", "1"][..]);
    let bad = [-INF, 12.0, NAN];
    let clip = 2f64.sqrt() / 5.0;
    let halved = [3.0 * clip, 4.0 * clip];
    // Rule, policy, fine, bad.
    let table = [
        (value, "error", [3.0, 4.0], [-6.0, 6.0, NAN]),
        (value, "skip", [3.0, 4.0], bad),
        (value, "zero", [0.0; 2], [0.0; 3]),
        (value, "sanitize", [3.0, 4.0], [0.0, 6.0, 0.0]),
        (value, "nan", [NAN; 2], [NAN; 3]),
        (rms, "skip", halved, bad),
        (rms, "zero", halved, [0.0; 3]),
        (rms, "sanitize", halved, [0.0, 3f64.sqrt(), 0.0]),
        (rms, "nan", halved, [NAN; 3]),
        (agc, "skip", [0.6, 0.8], bad),
        (agc, "zero", [0.6, 0.8], [0.0; 3]),
        (agc, "sanitize", [0.6, 0.8], [0.0, 1.0, 0.0]),
        (agc, "nan", [0.6, 0.8], [NAN; 3]),
        (sign, "skip", [3.0, 4.0], bad),
        (sign, "zero", [0.0; 2], [0.0; 3]),
        (sign, "sanitize", [1.0; 2], [0.0, 1.0, 0.0]),
        (sign, "nan", [NAN; 2], [NAN; 3]),
    ];
    for device in devices() {
        let fixed = ["clip", &input, "--out", &out, "--device", &device];
        for (rule, policy, fine, bad) in table {
            let what = format!("{rule:?} {policy} on {device}");
            let report = json(&[&fixed[..], rule, &["--on-nonfinite", policy]].concat(), 0);
            let after = fs::read(&out).unwrap();
            assert_close(&what, &values(&after, "fine"), &fine);
            assert_close(&what, &values(&after, "bad"), &bad);
            assert_eq!((&report["non_finite"], &report["first_non_finite"]), (&2.into(), &"bad".into()));
            assert_eq!(report["norm"].is_null(), rule != sign, "{what}: {report}");
            let norms = if policy == "sanitize" { 12.0.into() } else { Value::from("nan") };
            assert_eq!(
                (&report["tensors"][0]["norm"], &report["tensors"][1]["norm"]),
                (&5.0.into(), &norms),
                "{what}"
            );
        }
        json(&[&fixed[..], value].concat(), 0);
        fs::remove_file(&out).unwrap();
        for rule in [rms, agc, sign] {
            let report = json(&[&fixed[..], rule].concat(), 3);
            assert_eq!(report["clipped"], false, "{rule:?} on {device}");
            let error = stderr(&gradclip(&[&fixed[..], rule].concat()));
            assert!(error.contains("`bad`"), "{error}");
            assert!(!Path::new(&out).exists(), "{rule:?} on {device}");
        }
    }
}

/// Scalars, empty tensors, types mixed; and no tensor at all. Devices agree in every bit.
#[test]
fn every_rule_takes_every_file() {
    let folder = Folder::new();
    let out = folder.path("out");
    let last = ["--agc-layout", "output-last"];
    for bytes in [awkward(), file("{}", b"")] {
        let input = folder.write("in", &bytes);
        let agc = ["--agc", "0.1", "--params", &input];
        let rules = [
            &["--value", "1"][..],
            &["--block-rms", "1"],
            &agc,
            &[&agc[..], &last].concat(),
            &["--sign", "1"],
        ];
        for rule in rules {
            let mut first: Option<(Vec<u8>, Value)> = None;
            for device in devices() {
                let what = format!("{rule:?} on {device}");
                let report = json(&[&["clip", &input, "--out", &out, "--device", &device], rule].concat(), 0);
                let written = fs::read(&out).unwrap();
                let (clipped, any) = (&report["clipped"], bytes.len() > 10);
                assert!(*clipped == any && (written != bytes) == any, "{what}: {report}");
                let tensors = report["tensors"].clone();
                let (bytes, reported) = first.get_or_insert_with(|| (written.clone(), tensors.clone()));
                assert!(*bytes == written && *reported == tensors, "{what}: {report}");
            }
        }
    }
}

#[test]
fn the_table_says_which_rule_and_how_much_was_clipped() {
    let folder = Folder::new();
    let long = "model.decoder.layers.".repeat(8);
    let names: Vec<String> = (0..30).map(|i| format!("{long}{i}.weight")).collect();
    let numbers: Vec<[f32; 1]> = (0..30).map(|i| [(i + 1) as f32 * 1.234_567e30]).collect();
    let tensors: Vec<(&str, &[f32])> =
        names.iter().zip(&numbers).map(|(n, v)| (n.as_str(), &v[..])).collect();
    let input = folder.write("in", &f32_file(&tensors));
    let table: [(&[&str], &str, &str); 5] = [
        (&["--value", "1.3e30"], "clamp of every element", "29 of 30 tensors"),
        (&["--block-rms", "1.3e30"], "root mean square of each tensor", "29 of 30 tensors"),
        (&["--agc", "0.5", "--params", &input], "adaptive, units along the first axis", "30 units"),
        (&["--sign", "0.01"], "sign of every element", "yes, to the signs"),
        (&["--sign", "1e38"], "sign of every element", "no, the norm is within"),
    ];
    for (options, rule, clipped) in table {
        let output = gradclip(&[&["clip", &input, "--device", "cpu"], options].concat());
        let text = stdout(&output);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        for (key, value) in [("rule", rule), ("clipped", clipped)] {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            assert!(line.contains(value), "{options:?}: expected `{value}` in: {text}");
        }
    }
}
