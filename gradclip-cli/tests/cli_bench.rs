//! `gradclip bench`: what it prints, and the sweep and picture of `--plot`.

#![allow(clippy::unwrap_used)]

#[path = "common/cli.rs"]
mod cli;

use std::fs;

use cli::{Folder, code, devices, gradclip, json, stderr, stdout};
use serde_json::Value;

const REGIMES: [(&str, u64); 2] = [("clipped", 12), ("not clipped", 4)];

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn close(value: &Value, expected: f64) -> bool {
    (number(value) / expected - 1.0).abs() < 1e-9
}

/// Whether the adapter that `device` names can tell the time.
fn has_clock(device: &str) -> bool {
    let folder = cli::lstm();
    let used = json(&["norm", &folder, "--device", device], 0)["adapter"].clone();
    let listed = json(&["devices"], 0);
    let adapter = listed["adapters"].as_array().unwrap().iter().find(|adapter| adapter["name"] == used);
    adapter.is_some_and(|adapter| adapter["features"].to_string().to_lowercase().contains("timestamp"))
}

/// Checks the arms' numbers against each other.
fn arms_are_consistent(arms: &Value, device: &str, elements: u64) {
    let arms = arms.as_array().unwrap();
    let names: Vec<&str> = arms.iter().map(|arm| arm["device"].as_str().unwrap()).collect();
    assert_eq!(names, if device == "cpu" { &["cpu"][..] } else { &["cpu", "gpu"] });
    for arm in arms {
        let copy = number(&arm["copy_gb_per_s"]);
        assert!(copy > 0.0, "{arm}");
        for (i, (name, bytes)) in REGIMES.into_iter().enumerate() {
            let regime = &arm["regimes"][i];
            let ms = number(&regime["median_ms"]);
            assert_eq!((&regime["regime"], &regime["bytes"]), (&name.into(), &(bytes * elements).into()));
            assert!(regime["min_ms"].as_f64() <= Some(ms) && Some(ms) <= regime["max_ms"].as_f64(), "{arm}");
            let rate = (bytes * elements) as f64 / ms / 1e6;
            assert!(
                close(&regime["gb_per_s"], rate) && close(&regime["share_of_copy"], rate / copy),
                "{arm}"
            );
            let cpu = number(&arms[0]["regimes"][i]["median_ms"]);
            assert!(close(&regime["speed_up"], cpu / ms), "{arm}");
            assert!(number(&regime["norm_relative_error"]) < gradclip_verify::tolerance::NORM, "{arm}");
        }
    }
}

#[test]
fn bench_measures_both_regimes() {
    for device in devices() {
        let args = ["bench", "--tensors", "7", "--elements", "1001", "--device", &device];
        let report = json(&args, 0);
        assert_eq!((&report["tensors"], &report["elements"]), (&7.into(), &7007.into()));
        arms_are_consistent(&report["arms"], &device, 7007);
        assert!(report.get("sweep").is_none() && report.get("crossovers").is_none());
        if device != "cpu" {
            let clock = has_clock(&device);
            for key in ["device_norm_ms", "device_apply_ms"] {
                let regimes = report["arms"][1]["regimes"].as_array().unwrap();
                assert!(
                    regimes.iter().all(|regime| (number(&regime[key]) >= 0.0) == clock),
                    "{key}: {report}"
                );
            }
        }
    }
}

#[test]
fn the_table_has_bytes_time_share_and_speed_up() {
    for device in devices() {
        let output = gradclip(&["bench", "--tensors", "3", "--elements", "1000", "--device", &device]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let text = stdout(&output);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let row = |line: &str| line.split(['│', '┆']).map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = text.lines().filter(|l| l.contains('┆')).map(row).collect();
        assert_eq!(rows[0][1..5], ["device", "regime", "MB", "median ms"]);
        assert_eq!(rows[0][6..9], ["GB/s", "of copy", "speed-up"]);
        assert_eq!(rows[1][1..4], ["cpu", "clipped", "0.0360"]);
        assert_eq!(rows[2][1..4], ["cpu", "not clipped", "0.0120"]);
        assert!(rows[1][7].ends_with(" %") && rows[1][8] == "1.00x", "{text}");
        // Where the device tells the time, it is there for norm and for apply.
        if device != "cpu" {
            assert!(rows[5][4].contains("norm ms") && rows[5][5] == "apply ms", "{text}");
            let told = rows[6..8].iter().flat_map(|row| &row[4..6]).all(|ms| ms.parse::<f64>().is_ok());
            assert_eq!(told, has_clock(&device), "{text}");
        }
    }
}

// ---------------------------------------------------------------- --plot

/// What a picture says. Every element in it is closed.
fn words(svg: &str) -> Vec<&str> {
    let (mut open, mut words) = (Vec::new(), Vec::new());
    for part in svg.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap();
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split_whitespace().next().unwrap()),
        }
        words.extend(Some(text.trim()).filter(|text| !text.is_empty()));
    }
    assert!(open.is_empty() && svg.starts_with("<svg "), "{open:?}");
    words
}

/// The crossovers that follow from a sweep, to a size of it before each.
fn crossed_after(sweep: &[Value], regime: usize) -> Vec<u64> {
    let gpu_wins = |point: &Value| number(&point["arms"][1]["regimes"][regime]["speed_up"]) > 1.0;
    let pairs = sweep.windows(2).filter(|pair| gpu_wins(&pair[0]) != gpu_wins(&pair[1]));
    pairs.map(|pair| pair[0]["elements"].as_u64().unwrap()).collect()
}

#[test]
fn the_sweep_is_drawn_and_listed() {
    let folder = Folder::new();
    for device in devices() {
        let plot = folder.path(&format!("{}.svg", devices().iter().position(|d| *d == device).unwrap()));
        let args = ["bench", "--tensors", "1", "--elements", "1000", "--device", &device, "--plot", &plot];
        let report = json(&args, 0);
        arms_are_consistent(&report["arms"], &device, 1000);
        let sweep = report["sweep"].as_array().unwrap();
        let sizes: Vec<u64> = sweep.iter().map(|point| point["elements"].as_u64().unwrap()).collect();
        assert!(sizes.starts_with(&[1000, 3162, 10_000]) && sizes.is_sorted(), "{sizes:?}");
        sweep.iter().zip(&sizes).for_each(|(point, &n)| arms_are_consistent(&point["arms"], &device, n));

        let svg = fs::read_to_string(&plot).unwrap();
        let words = words(&svg);
        let mut crossings = 0;
        let crossovers = report["crossovers"].as_array().unwrap();
        assert_eq!(crossovers.len(), if device == "cpu" { 0 } else { 2 });
        for (i, (regime, _)) in REGIMES.into_iter().enumerate() {
            assert!(words.contains(&format!("CPU, {regime}").as_str()), "{words:?}");
            assert_eq!(words.contains(&format!("GPU, {regime}").as_str()), device != "cpu", "{words:?}");
            let on_device = words.contains(&format!("on the device, {regime}").as_str());
            assert_eq!(on_device, device != "cpu" && has_clock(&device), "{words:?}");
            if device != "cpu" {
                let told = words
                    .iter()
                    .any(|text| text.starts_with(&format!("{regime}: ")) && text.contains("crossover"));
                let found = crossovers[i]["elements"].as_array().unwrap();
                let expected = crossed_after(sweep, i);
                assert!(told && crossovers[i]["regime"] == regime, "{words:?} {crossovers:?}");
                assert_eq!(found.len(), expected.len(), "{crossovers:?} {expected:?}");
                assert!(found.iter().zip(&expected).all(|(at, &before)| number(at) >= before as f64));
                crossings += found.len();
            }
        }
        let lines =
            words.iter().filter(|text| text.ends_with(", clipped") || text.ends_with(", not clipped"));
        assert_eq!(svg.matches("<circle").count(), lines.count() * sizes.len() + crossings);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
    assert_eq!(folder.names().len(), devices().len(), "no temporary file is left");
}

#[test]
fn the_sweep_is_a_table_for_people() {
    let folder = Folder::new();
    let plot = folder.path("cpu.SVG");
    let output =
        gradclip(&["bench", "--tensors", "1", "--elements", "1000", "--device", "cpu", "--plot", &plot]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.lines().all(|line| line.chars().count() <= 100) && text.contains(&plot), "{text}");
    assert!(text.contains("one tensor") && text.contains("│ not clipped ┆       3,162 ┆"), "{text}");
    assert!(words(&fs::read_to_string(&plot).unwrap()).contains(&"no GPU was timed with it"));
}

#[test]
fn a_plot_that_cannot_be_written_is_wrong_usage() {
    let folder = Folder::new();
    for name in ["plot.png", "plot", "no/such/folder/plot.svg"] {
        let plot = folder.path(name);
        let output = gradclip(&["bench", "--preset", "tiny", "--device", "cpu", "--plot", &plot]);
        assert_eq!(code(&output), 2, "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains("--plot") && stdout(&output).is_empty(), "{}", stderr(&output));
    }
    assert!(folder.names().is_empty());
}
