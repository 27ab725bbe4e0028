//! `gradclip suggest` with rules that are simulated over the series: what they do is compared with plain programs in `f64`.

#![allow(clippy::unwrap_used)]

#[path = "common/cli.rs"]
mod cli;

use std::fs;

use cli::{Folder, code, gradclip, json, refused, stderr, stdout};
use serde_json::{Value, json};

/// What a program says of a series.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    clipped: Vec<usize>,
    skipped: Vec<usize>,
    /// Infinite for none, NaN where the norm was not finite.
    thresholds: Vec<f64>,
}

/// Steps one after the other: `threshold` and `spike` are given the norms that went through, and this one.
fn program(
    norms: &[f64],
    threshold: impl Fn(&[f64], f64) -> f64,
    spike: impl Fn(&[f64], f64) -> bool,
    spikes_are_remembered: bool,
) -> Expected {
    let (mut expected, mut known) = (Expected::default(), Vec::new());
    for (number, &norm) in (1..).zip(norms) {
        if !norm.is_finite() {
            expected.skipped.push(number);
            expected.thresholds.push(f64::NAN);
            continue;
        }
        let (limit, spike) = (threshold(&known, norm), spike(&known, norm));
        expected.thresholds.push(limit);
        if spike {
            expected.skipped.push(number);
        } else if norm > limit {
            expected.clipped.push(number);
        }
        if !spike || spikes_are_remembered {
            known.push(norm);
        }
    }
    expected
}

fn last(known: &[f64], window: usize) -> &[f64] {
    &known[known.len().saturating_sub(window)..]
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn mean_threshold(known: &[f64], factor: f64, window: usize) -> f64 {
    if known.is_empty() { f64::INFINITY } else { factor * mean(last(known, window)) }
}

fn average_threshold(known: &[f64], factor: f64, decay: f64) -> f64 {
    let average = known.iter().copied().reduce(|average, norm| decay * average + (1.0 - decay) * norm);
    factor * average.unwrap_or(f64::INFINITY)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    (sorted[last / 2] + sorted[last.div_ceil(2)]) / 2.0
}

fn is_spike(known: &[f64], norm: f64, sigma: f64, window: usize) -> bool {
    let values = last(known, window);
    if known.len() + 1 < (window / 2).max(3) {
        return false;
    }
    let center = mean(values);
    let squares: f64 = values.iter().map(|value| (value - center).powi(2)).sum();
    norm - center > sigma * (squares / (values.len() - 1) as f64).sqrt()
}

/// Norms in a band that falls, with spikes, and steps that are not finite.
fn norms() -> Vec<f64> {
    let mut state = 7u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let norm = |i: usize| match i {
        17 | 40 | 41 => 9.0 + i as f64,
        25 => f64::NAN,
        55 => f64::INFINITY,
        _ => (3.0 - i as f64 / 40.0) * (0.7 + 0.6 * random()),
    };
    (0..80).map(norm).collect()
}

fn log(folder: &Folder, norms: &[f64]) -> String {
    let lines: Vec<String> = norms.iter().map(f64::to_string).collect();
    folder.write("norms.txt", lines.join("\n").as_bytes())
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

/// Whether a simulation is what a program says.
fn assert_is(rule: &Value, expected: &Expected) {
    assert_eq!(numbers(&rule["clipped_steps"]), expected.clipped, "{}", rule["rule"]);
    assert_eq!(numbers(&rule["skipped_steps"]), expected.skipped, "{}", rule["rule"]);
    assert_eq!(rule["clipped"], expected.clipped.len(), "{}", rule["rule"]);
    assert_eq!(rule["skipped"], expected.skipped.len(), "{}", rule["rule"]);
    assert_eq!(rule["raised"], 0, "{}", rule["rule"]);
    let thresholds = rule["thresholds"].as_array().unwrap();
    assert_eq!(thresholds.len(), expected.thresholds.len(), "{}", rule["rule"]);
    for (step, (got, &limit)) in (1..).zip(thresholds.iter().zip(&expected.thresholds)) {
        let close = match got.as_f64() {
            Some(got) => (got / limit - 1.0).abs() < 1e-5,
            None => limit.is_infinite(),
        };
        assert!(close || limit.is_nan(), "{}, step {step}: {got}, expected {limit}", rule["rule"]);
    }
}

fn names(report: &Value) -> Vec<&str> {
    report["rules"].as_array().unwrap().iter().map(|rule| rule["rule"].as_str().unwrap()).collect()
}

const RULES: [&str; 5] = ["max-norm=2.25", "mean=2,5", "average=1.5,0.9", "autoclip=50,10", "skip-z=1.5,6"];

fn with_rules<'a>(input: &'a str, rules: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let rules = rules.iter().flat_map(|rule| ["--rule", rule]);
    ["suggest", input].into_iter().chain(rules).chain(more.iter().copied()).collect()
}

#[test]
fn rules_do_what_plain_programs_say() {
    let folder = Folder::new();
    let norms = norms();
    let input = log(&folder, &norms);
    let report = json(&with_rules(&input, &RULES, &[]), 0);
    assert_eq!(names(&report), RULES);
    let never = |_: &[f64], _| false;
    let now = |known: &[f64], norm| [known, &[norm]].concat();
    let expected = [
        program(&norms, |_, _| 2.25, never, true),
        program(&norms, |known, _| mean_threshold(known, 2.0, 5), never, true),
        program(&norms, |known, _| average_threshold(known, 1.5, 0.9), never, true),
        program(&norms, |known, norm| median(last(&now(known, norm), 10)), never, true),
        program(&norms, |_, _| f64::INFINITY, |known, norm| is_spike(known, norm, 1.5, 6), true),
    ];
    for (rule, expected) in report["rules"].as_array().unwrap().iter().zip(&expected) {
        assert_is(rule, expected);
        assert!(expected.skipped.contains(&26) && expected.skipped.contains(&56));
    }
    // None of them is a trivial case.
    assert!(expected[..4].iter().all(|rule| (3..60).contains(&rule.clipped.len())), "{expected:?}");
    assert!(expected[4].clipped.is_empty() && expected[4].skipped.len() > 2, "{expected:?}");
}

#[test]
fn bounds_hold_for_every_rule_that_can_have_them() {
    let folder = Folder::new();
    let norms = norms();
    let input = log(&folder, &norms);
    let options = ["--skip-above", "20", "--at-least", "2.5", "--at-most", "4"];
    let report = json(&with_rules(&input, &["mean=2,5", "max-norm=1.5", "skip-z=3,8"], &options), 0);
    let above = |_: &[f64], norm| norm > 20.0;
    let bounded = |known: &[f64], _| mean_threshold(known, 2.0, 5).clamp(2.5, 4.0);
    let expected = program(&norms, bounded, above, false);
    assert!(expected.thresholds.contains(&2.5) && expected.thresholds.contains(&4.0), "{expected:?}");
    assert_is(&report["rules"][0], &expected);
    assert_is(&report["rules"][1], &program(&norms, |_, _| 1.5, above, false));
    // A z-score remembers spikes, unlike thresholds.
    let spike = |known: &[f64], norm| norm > 20.0 || is_spike(known, norm, 3.0, 8);
    assert_is(&report["rules"][2], &program(&norms, |_, _| f64::INFINITY, spike, true));
}

#[test]
fn the_usual_rules_need_no_names() {
    let folder = Folder::new();
    let input = log(&folder, &[1.0, 2.0, 4.0]);
    assert_eq!(json(&["suggest", &input], 0).get("rules"), None);
    let usual = ["max-norm=3", "autoclip=10,10000", "zclip=2.5,0.97,25", "average=2,0.99", "skip-z=6,128"];
    for options in [&["--simulate"][..], &["--skip-above", "9"], &["--at-least", "0"], &["--at-most", "inf"]]
    {
        let options = [&["suggest", &input, "--percentile", "75"], options].concat();
        assert_eq!(names(&json(&options, 0)), usual, "{options:?}");
    }
    let both = json(&with_rules(&input, &["mean"], &["--simulate", "--percentile", "75"]), 0);
    assert_eq!(names(&both), [&usual[..], &["mean=2,100"]].concat());
    let one = json(&with_rules(&input, &["max-norm"], &["--skip-above", "3"]), 0);
    assert_eq!(names(&one), ["max-norm=3.6"]);
    assert_eq!(one["rules"][0]["skipped_steps"], json!([3]));
}

/// AGGC raises norms, and what is no f32 is the largest.
#[test]
fn norms_are_raised_and_capped() {
    let folder = Folder::new();
    let input = log(&folder, &[1.0, 8.0, 0.25, 1.0, 3e39]);
    let largest = json(&with_rules(&input, &["max-norm=3e38"], &[]), 0);
    assert_eq!(largest["rules"][0]["clipped_steps"], json!([5]));
    let report = json(&with_rules(&input, &["aggc=0.5,2,0.9"], &["--skip-above", "1e38"]), 0);
    let aggc = &report["rules"][0];
    let steps = [&aggc["clipped_steps"], &aggc["raised_steps"], &aggc["skipped_steps"]];
    assert_eq!(steps, [&json!([2]), &json!([3]), &json!([5])]);
    assert_eq!((&aggc["thresholds"][0], &aggc["thresholds"][1]), (&Value::Null, &json!(2.0)));
    let text = stdout(&gradclip(&with_rules(&input, &["aggc=0.5,2,0.9"], &[])));
    assert!(text.contains("┆ raised ┆"), "{text}");
}

#[test]
fn the_table_has_a_row_a_rule() {
    let folder = Folder::new();
    let input = log(&folder, &[1.0, 2.0, f64::NAN, 4.0, 8.0]);
    let before = stdout(&gradclip(&["suggest", &input]));
    let rules = ["max-norm=2.5", "mean=1.5,2", "skip-z=1,4"];
    let after = stdout(&gradclip(&with_rules(&input, &rules, &[])));
    let table = after.strip_prefix(before.as_str()).unwrap().trim();
    let cells = |line: &str| line.split(['│', '┆']).map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = table.lines().map(cells).filter(|row| row.len() > 1).collect();
    let expected = [
        ["", "rule", "clipped", "of steps", "skipped", "last threshold", "median coefficient", ""],
        // 2.5 / 4 and 2.5 / 8; 1.5 / 2, 2.25 / 4 and 4.5 / 8.
        ["", "max-norm=2.5", "2", "40.0 %", "1", "2.5", "0.4688", ""],
        ["", "mean=1.5,2", "3", "60.0 %", "1", "4.5", "0.5625", ""],
        ["", "skip-z=1,4", "0", "0.0 %", "3", "none", "", ""],
    ];
    assert_eq!(rows, expected, "{table}");
}

#[test]
fn the_picture_has_a_panel_a_rule() {
    let folder = Folder::new();
    let norms = norms();
    let (input, plot) = (log(&folder, &norms), folder.path("rules.svg"));
    let report = json(&with_rules(&input, &RULES, &["--plot", &plot]), 0);
    let svg = fs::read_to_string(&plot).unwrap();
    let words: Vec<&str> = svg.lines().map(str::trim).filter(|line| !line.starts_with('<')).collect();
    for text in ["What rules would have done in 80 steps", "norm", "threshold", "clipped", "step"] {
        assert!(words.contains(&text), "no `{text}` in {words:?}");
    }
    assert!(words.contains(&"skipped, at the top: not finite"), "{words:?}");
    assert_eq!(words.iter().filter(|word| **word == "norm (L2)").count(), RULES.len());
    let (mut clipped, mut kept) = (0, 0);
    for rule in report["rules"].as_array().unwrap() {
        let title = format!(
            "{}: {} of 80 steps clipped, {} skipped",
            rule["rule"].as_str().unwrap(),
            rule["clipped"],
            rule["skipped"]
        );
        assert_eq!(words.iter().filter(|word| **word == title).count(), 1, "`{title}`: {words:?}");
        let own = rule["clipped"].as_u64().unwrap() as usize;
        clipped += own;
        kept += norms.len() - own - rule["skipped"].as_u64().unwrap() as usize;
    }
    // One of the legend.
    assert_eq!(svg.matches("<circle").count(), clipped + kept + 1);
    assert_eq!(svg.matches("r=\"4\"").count(), clipped + 1);
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    // Whatever there is.
    for norms in [&[5.0][..], &[0.0], &[0.0, 1e-30, 1e30, 3e39], &[2.0, 2.0], &[f64::NAN, 1.0, f64::NAN]] {
        let options = ["--simulate", "--skip-above", "3", "--plot", &plot];
        let output = gradclip(&with_rules(&log(&folder, norms), &["aggc=0.9,1.5,0.5"], &options));
        assert_eq!(code(&output), 0, "{norms:?}: {}", stderr(&output));
        let svg = fs::read_to_string(&plot).unwrap();
        assert!(!svg.contains("NaN") && svg.contains("--skip-above 3"), "{norms:?}: {svg}");
    }
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    let folder = Folder::new();
    let input = log(&folder, &[1.0, 2.0]);
    let plot = folder.path("rules.svg");
    // By the parser of options.
    let cases: [(&[&str], &str); 7] = [
        (&["--rule", "clip"], "expected max-norm[=C], autoclip[=P,WINDOW]"),
        (&["--rule", "max-norm=-1"], "expected 0 or more"),
        (&["--rule", "mean=2,0.5"], "expected WINDOW, a whole number, given `0.5`"),
        (&["--rule", "autoclip=101"], "percentile of 0 to 100, given 101"),
        (&["--skip-above", "-1"], "expected 0 or more"),
        (&["--at-least", "nan"], "expected 0 or more"),
        (&["--at-most", "1e39"], "expected at most 3.4028235e38, the largest f32"),
    ];
    for (options, message) in cases {
        let output = gradclip(&[&["suggest", &input, "--plot", &plot], options].concat());
        let error = stderr(&output);
        assert_eq!((code(&output), stdout(&output).as_str()), (2, ""), "{options:?}: {error}");
        let named = error.contains(options[0]) && error.contains(options[1]);
        assert!(named && error.contains(message), "{options:?}: {error}");
    }
    let bound = with_rules(&input, &["max-norm=1", "skip-z"], &["--plot", &plot, "--at-most", "3"]);
    let error = refused(&bound);
    assert!(error.contains("--at-most 3.0: expected a --rule whose threshold adapts"), "{error}");
    let error = refused(&["suggest", &input, "--plot", &plot, "--at-least", "3", "--at-most", "2.5"]);
    assert!(error.contains("--at-least 3.0: expected at most what --at-most says, which is 2.5"), "{error}");
    assert!(!fs::exists(&plot).unwrap());
}
