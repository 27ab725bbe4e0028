//! `gradclip suggest`: the statistics of a series of gradient files, what is printed, and the picture.

#![allow(clippy::unwrap_used)]

#[path = "common/cli.rs"]
mod cli;

use std::fs;

use cli::{Folder, code, devices, f32_file, gradclip, json, norm, stderr, stdout};
use serde_json::{Value, json};

/// A file a step, each of two tensors whose norm together is given.
fn series(folder: &Folder, norms: &[f32]) -> Vec<String> {
    let file = |(i, &norm): (usize, &f32)| {
        folder.write(
            &format!("step_{i:03}.safetensors"),
            &f32_file(&[("a", &[0.6 * norm]), ("b", &[-0.8 * norm])]),
        )
    };
    norms.iter().enumerate().map(file).collect()
}

fn args<'a>(files: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    std::iter::once("suggest").chain(files.iter().map(String::as_str)).chain(more.iter().copied()).collect()
}

fn close(value: &Value, expected: f64) -> bool {
    (norm(value) - expected).abs() <= 1e-6 * expected
}

const KEYS: &str = "device adapter backend norm_type steps mean std min max percentiles percentile suggested \
     histogram norms left_out";

#[test]
fn statistics_are_those_of_the_norms() {
    let folder = Folder::new();
    let files = series(&folder, &[70.0, 10.0, 35.0, 20.0, 30.0]);
    for device in devices() {
        let report = json(&args(&files, &["--device", &device]), 0);
        let keys: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.join(" "), KEYS, "{device}");
        assert_eq!(report["device"], if device == "cpu" { "cpu" } else { "gpu" });
        assert_eq!(
            (&report["norm_type"], &report["steps"], &report["left_out"]),
            (&json!(2), &json!(5), &json!([]))
        );
        // numpy: mean, std, min, max, percentile.
        for (key, expected) in [("mean", 33.0), ("std", 416f64.sqrt()), ("min", 10.0), ("max", 70.0)] {
            assert!(close(&report[key], expected), "{device}: {key}: {report}");
        }
        let expected = [
            ("10", 14.0),
            ("25", 20.0),
            ("50", 30.0),
            ("75", 35.0),
            ("90", 56.0),
            ("95", 63.0),
            ("99", 68.6),
        ];
        let percentiles = report["percentiles"].as_object().unwrap();
        assert_eq!(percentiles.len(), expected.len());
        for (percentile, value) in expected {
            assert!(close(&percentiles[percentile], value), "{device}: {percentile}: {report}");
        }
        assert_eq!(report["percentile"], 90.0);
        assert_eq!(report["suggested"], percentiles["90"]);
        let norms = report["norms"].as_array().unwrap();
        for (step, (file, norm)) in norms.iter().zip(files.iter().zip([70.0, 10.0, 35.0, 20.0, 30.0])) {
            assert!(step["file"] == file.as_str() && close(&step["norm"], norm), "{device}: {step}");
        }
        let histogram = &report["histogram"];
        assert_eq!((&histogram["scale"], &histogram["counts"]), (&json!("linear"), &json!([2, 2, 0, 1])));
        let edges = histogram["edges"].as_array().unwrap();
        let expected = [10.0, 25.0, 40.0, 55.0, 70.0];
        assert!(edges.iter().zip(expected).all(|(edge, e)| close(edge, e)), "{device}: {histogram}");
    }
}

#[test]
fn options_choose_norm_and_percentile() {
    let folder = Folder::new();
    let files = series(&folder, &[1.0, 2.0, 5.0]);
    let table: [(&[&str], f64, Value); 5] = [
        (&["--percentile", "50"], 2.0, 2.into()),
        (&["--percentile", "100"], 5.0, 2.into()),
        (&["--percentile", "0", "--norm", "1"], 1.4, 1.into()),
        (&["--percentile", "25", "--norm", "inf"], 1.2, "inf".into()),
        (
            &["--percentile", "62.5", "--norm", "0.5"],
            2.75 * (0.6f64.sqrt() + 0.8f64.sqrt()).powi(2),
            0.5.into(),
        ),
    ];
    for device in devices() {
        for (options, suggested, kind) in &table {
            let report = json(&args(&files, &[options, &["--device", device.as_str()][..]].concat()), 0);
            let tolerance = if *kind == 0.5 { 2e-5 } else { 1e-6 };
            let error = norm(&report["suggested"]) / suggested - 1.0;
            assert!(error.abs() < tolerance, "{options:?} on {device}: {report}");
            assert_eq!(report["norm_type"], *kind);
        }
    }
    let plot = folder.path("plot.png");
    for wrong in [
        &["--percentile", "-1"][..],
        &["--percentile", "101"],
        &["--percentile", "nan"],
        &["--norm", "0"],
        &["--plot", &plot],
        &["--plot", ""],
    ] {
        let output = gradclip(&args(&files, wrong));
        assert_eq!(code(&output), 2, "{wrong:?}");
        assert!(stderr(&output).contains(wrong[0]), "{wrong:?}: {}", stderr(&output));
    }
    assert_eq!(code(&gradclip(&["suggest"])), 2);
    assert!(!fs::exists(&plot).unwrap());
}

#[test]
fn what_is_not_finite_is_left_out_and_what_is_unreadable_refused() {
    let folder = Folder::new();
    let files = series(&folder, &[3.0, f32::NAN, 5.0, f32::INFINITY]);
    for device in devices() {
        let report = json(&args(&files, &["--device", &device]), 0);
        assert_eq!((&report["steps"], &report["norms"][1]["norm"]), (&2.into(), &Value::Null));
        let left_out = |i: usize| json!({ "file": files[i], "tensor": "a", "non_finite": 2 });
        assert_eq!(report["left_out"], json!([left_out(1), left_out(3)]), "{device}");
        assert!(close(&report["mean"], 4.0) && close(&report["max"], 5.0), "{report}");
        let text = stdout(&gradclip(&args(&files, &["--device", &device])));
        assert!(text.contains("step_001.safetensors` has 2 non-finite elements"), "{text}");
        assert!(text.contains("step_003.safetensors` has 2 non-finite elements"), "{text}");

        let output = gradclip(&args(&files[1..2], &["--device", &device, "--json"]));
        assert_eq!(code(&output), 3);
        assert!(
            stderr(&output).contains("step_001") && stderr(&output).contains("`a`"),
            "{}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "");
    }
    let plot = folder.path("plot.svg");
    for broken in [folder.write("broken", b"no gradients"), folder.path("missing")] {
        let files = [files[0].clone(), broken.clone()];
        let output = gradclip(&args(&files, &["--device", "cpu", "--plot", &plot]));
        assert_eq!(code(&output), 2);
        let error = stderr(&output);
        assert!(error.contains(&broken) && error.contains("INPUT") && !fs::exists(&plot).unwrap(), "{error}");
    }
}

#[test]
fn the_table_tells_it_with_bars() {
    let folder = Folder::new();
    let wide: Vec<f32> = (0..40).map(|i| 10f32.powf((i % 8) as f32 - 3.0)).chain([0.0]).collect();
    let files = series(&folder, &wide);
    let report = json(&args(&files, &["--device", "cpu"]), 0);
    assert_eq!(report["histogram"]["scale"], "log");
    assert_eq!(report["histogram"]["edges"][0], 0.0);
    let counts = report["histogram"]["counts"].as_array().unwrap();
    assert_eq!(counts.iter().map(|n| n.as_u64().unwrap()).sum::<u64>(), 41);
    let text = stdout(&gradclip(&args(&files, &["--device", "cpu"])));
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(
        text.contains("suggested           --max-norm 10000: percentile 90, exceeded in 0 of 41 steps"),
        "{text}"
    );
    assert!(text.contains("the usual first guess") && text.contains('█'), "{text}");

    // A single step is a series, and one of zeros too.
    for (norms, suggested) in [(&[5.0][..], "--max-norm 5:"), (&[0.0, 0.0], "--max-norm 0:")] {
        let text = stdout(&gradclip(&args(&series(&folder, norms), &["--device", "cpu"])));
        assert!(text.contains(suggested), "{text}");
    }
    // A norm that no f32 holds is no threshold.
    let huge = folder.write("huge", &f32_file(&[("a", &[3e38; 100])]));
    let report = json(&["suggest", &huge, "--device", "cpu"], 0);
    assert!(close(&report["mean"], 3e39) && close(&report["suggested"], f32::MAX.into()), "{report}");
}

/// What a picture says.
fn words(svg: &str) -> Vec<&str> {
    let lines = svg.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('<')).collect()
}

#[test]
fn the_picture_shows_steps_lines_and_bars() {
    let folder = Folder::new();
    let files = series(&folder, &[70.0, 10.0, f32::NAN, 35.0, 20.0, 30.0]);
    let plot = folder.path("norms.SVG");
    for device in devices() {
        let output = gradclip(&args(&files, &["--device", &device, "--plot", &plot, "--percentile", "75"]));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(stdout(&output).contains(&plot));
        let svg = fs::read_to_string(&plot).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        let words = words(&svg);
        for text in [
            "Gradient norms of 6 steps",
            "suggested threshold 35: percentile 75. Non-finite gradients left out: 1 step (×)",
            "norm (L2)",
            "step",
            "steps",
            "suggested: 35",
            "mean: 33",
            "percentile 10: 14",
            "percentile 99: 68.6",
        ] {
            assert!(words.contains(&text), "{device}: no `{text}` in {words:?}");
        }
        // The percentile that is suggested has no line of its own.
        assert!(!words.iter().any(|text| text.starts_with("percentile 75:")), "{words:?}");
        // A dot a step, and the bars that are not empty beside the white ground.
        assert_eq!(svg.matches("<circle").count(), 5, "{device}");
        assert_eq!(svg.matches("<rect").count(), 1 + 3, "{device}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
    // Of whatever norms there may be.
    for norms in [&[5.0][..], &[0.0], &[0.0, 1e-30, 1e30], &[2.0, 2.0], &[1e38, 1e38]] {
        let output = gradclip(&args(&series(&folder, norms), &["--device", "cpu", "--plot", &plot]));
        assert_eq!(code(&output), 0, "{norms:?}: {}", stderr(&output));
        let svg = fs::read_to_string(&plot).unwrap();
        assert!(
            !svg.contains("NaN") && words(&svg).iter().any(|w| w.starts_with("mean:")),
            "{norms:?}: {svg}"
        );
    }
    assert_eq!(folder.names().iter().filter(|name| name.starts_with(".gradclip")).count(), 0);
}

/// Norms as people log them, one series with gradients in their order.
#[test]
fn logs_are_series_too() {
    let folder = Folder::new();
    let lines = folder.write("norms.txt", b"# of a run\n1\n2.5\nnan\n");
    let table = folder.write("log.csv", b"step,loss,grad_norm\n1,9,3\n2,8,inf\n3,7,\n");
    let objects = folder.write("log.jsonl", b"{\"norm\": 4, \"lr\": 1}\n{\"eval\": 1}\n{\"norm\": NaN}\n");
    let plot = folder.path("norms.svg");
    let report = json(&["suggest", &lines, &table, &objects, "--percentile", "50", "--plot", &plot], 0);
    assert_eq!(
        (&report["steps"], &report["suggested"], &report["max"]),
        (&json!(4), &json!(2.75), &json!(4.0))
    );
    assert_eq!((&report["device"], &report["adapter"]), (&json!("cpu"), &Value::Null));
    let norms = report["norms"].as_array().unwrap();
    assert_eq!((norms.len(), &norms[1]), (7, &json!({ "file": lines, "line": 3, "norm": 2.5 })));
    let left_out: Vec<&Value> = report["left_out"].as_array().unwrap().iter().collect();
    let one = |file: &str, line: u64| json!({ "file": file, "line": line, "tensor": null, "non_finite": 1 });
    assert_eq!(left_out, [&one(&lines, 4), &one(&table, 3), &one(&objects, 3)]);
    let output = gradclip(&["suggest", &lines, &table, &objects]);
    let text = stdout(&output);
    assert!(text.contains("none, the norms were given") && text.contains("line 4 of"), "{text}");
    // What logs hold besides norms is said to be left out, once a log.
    assert_eq!(stderr(&output).lines().count(), 2, "{}", stderr(&output));
    assert!(stderr(&output).contains("1 line without a value of `grad_norm`"), "{}", stderr(&output));
    // Asked for by name, on standard input, and beside gradients.
    let fed = |args: &[&str], text: &[u8]| {
        let output = cli::gradclip_fed(&[args, &["--json", "--device", "cpu"]].concat(), text);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        serde_json::from_str::<Value>(&stdout(&output)).unwrap()
    };
    assert_eq!(fed(&["suggest", "-", "--column", "b"], b"a,b\n1,2\n3,4\n")["mean"], 3.0);
    let step = series(&folder, &[5.0]);
    let report = fed(&["suggest", &step[0], "-"], b"7\n");
    assert!(close(&report["mean"], 6.0) && report["norms"][1]["line"] == 1, "{report}");
    // All of them not finite.
    let none = folder.write("none", b"nan\ninf\n");
    let output = gradclip(&["suggest", &none]);
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).contains("line 1 of"), "{}", stderr(&output));
}

#[test]
fn shards_are_one_step() {
    let folder = Folder::new();
    let write = |step: usize, a: f32, b: f32| {
        folder.write(&format!("{step}/1.safetensors"), &f32_file(&[("a", &[a])]));
        folder.write(&format!("{step}/2.safetensors"), &f32_file(&[("b", &[b])]));
        let map = json!({ "weight_map": { "a": "1.safetensors", "b": "2.safetensors" } });
        folder.write(&format!("{step}/model.safetensors.index.json"), map.to_string().as_bytes())
    };
    let steps = [write(0, 3.0, 4.0), write(1, 5.0, 12.0)];
    for device in devices() {
        let report = json(&args(&steps, &["--device", &device]), 0);
        assert_eq!(
            (&report["min"], &report["max"], &report["steps"]),
            (&json!(5.0), &json!(13.0), &json!(2))
        );
    }
}

#[test]
fn logs_that_cannot_be_read_say_where() {
    let folder = Folder::new();
    let cases: [(&[u8], &[&str], &[&str]); 8] = [
        (b"1\nx\n", &[], &["line 2", "`x`"]),
        (b"1\n-1\n", &[], &["line 2", "0 or more"]),
        (b"a,b\n1,2\n", &[], &["--column", "`a`, `b`"]),
        (b"a,b\n1,2\n", &["--column", "c"], &["--column `c`", "`a`, `b`"]),
        (b"1\n", &["--column", "c"], &["--column `c`", "plain numbers"]),
        (b"step,norm\n1,\n", &[], &["at least one norm"]),
        (b"\x1f\x8b\x08\0", &[], &["gzip"]),
        (b"", &[], &["0 bytes"]),
    ];
    for (bytes, options, words) in cases {
        let input = folder.write("in", bytes);
        let error = cli::refused(&[&["suggest", &input], options].concat());
        assert!(error.contains("INPUT") || error.contains("--column"), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let step = series(&folder, &[1.0]);
    let error = cli::refused(&["suggest", &step[0], "--column", "a", "--device", "cpu"]);
    assert!(error.contains("--column `a`"), "{error}");
    let error = cli::refused(&["suggest", "-", "-"]);
    assert!(error.contains("named twice"), "{error}");
}
