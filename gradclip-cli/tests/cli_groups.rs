//! `--group`, `--exclude` and `--total`: tensors with thresholds of their own and tensors left out, under every rule.

#![allow(clippy::unwrap_used)]

#[path = "common/cli.rs"]
mod cli;

use std::fs;

use cli::{
    Folder, assert_close, devices, f32_file, file, floats, gradclip, json, norm, refused, stderr, stdout,
    values,
};

/// Norms 5, 13, 17 and 50.
const TENSORS: [(&str, &[f32]); 4] = [
    ("layers.0.weight", &[3.0, 4.0]),
    ("layers.0.bias", &[5.0, 12.0]),
    ("layers.1.weight", &[8.0, 15.0]),
    ("head.weight", &[30.0, 40.0]),
];

/// Factors of the four tensors.
fn expect(what: &str, out: &str, factors: [f64; 4]) {
    let after = fs::read(out).unwrap();
    for ((name, before), factor) in TENSORS.iter().zip(factors) {
        let expected: Vec<f64> = before.iter().map(|&b| f64::from(b) * factor).collect();
        assert_close(&format!("{what}: {name}"), &values(&after, name), &expected);
    }
}

#[test]
fn groups_share_a_norm_and_the_rest_is_one() {
    let folder = Folder::new();
    let (input, out) = (folder.write("in", &f32_file(&TENSORS)), folder.path("out"));
    let (weights, rest) = ((25f64 + 289.0).sqrt(), 2669f64.sqrt());
    let all = (25f64 + 169.0 + 289.0 + 2500.0).sqrt();
    let no_head = 483f64.sqrt();
    let table: &[(&[&str], [f64; 4])] = &[
        (&["--max-norm", "10"], [10.0 / all; 4]),
        (
            &["--max-norm", "10", "--group", "layers.*.weight=2"],
            [2.0 / weights, 10.0 / rest, 2.0 / weights, 10.0 / rest],
        ),
        (
            &["--max-norm", "inf", "--group", "layers.0.*=7", "--group", "head.weight=5"],
            [7.0 / 194f64.sqrt(), 7.0 / 194f64.sqrt(), 1.0, 0.1],
        ),
        (&["--max-norm", "1", "--group", "*=inf"], [1.0; 4]),
        (
            &["--max-norm", "1", "--group", "layers.?.bias=0"],
            [1.0 / (2814f64).sqrt(), 0.0, 1.0 / 2814f64.sqrt(), 1.0 / 2814f64.sqrt()],
        ),
        // Left out: neither in the norm nor changed.
        (&["--max-norm", "10", "--exclude", "head.*"], [10.0 / no_head, 10.0 / no_head, 10.0 / no_head, 1.0]),
        (&["--max-norm", "22", "--exclude", "head.*"], [1.0; 4]),
        (
            &["--max-norm", "6", "--scope", "tensor", "--exclude", "*bias", "--exclude", "head.*"],
            [1.0, 1.0, 6.0 / 17.0, 1.0],
        ),
        (
            &["--max-norm", "1", "--group", "*.weight=5", "--exclude", "head.*"],
            [5.0 / weights, 1.0 / 13.0, 5.0 / weights, 1.0],
        ),
        (&["--max-norm", "1", "--exclude", "*"], [1.0; 4]),
        // A total limit besides.
        (&["--max-norm", "inf", "--scope", "tensor", "--total", "10"], [10.0 / all; 4]),
        (&["--max-norm", "5", "--scope", "tensor", "--total", "1000"], [1.0, 5.0 / 13.0, 5.0 / 17.0, 0.1]),
        (
            &["--max-norm", "inf", "--group", "head.*=5", "--total", "10"],
            [10.0 / all, 10.0 / all, 10.0 / all, 0.1],
        ),
    ];
    for device in devices() {
        for (options, factors) in table {
            let what = format!("{options:?} on {device}");
            let report = json(&[&["clip", &input, "--out", &out, "--device", &device], *options].concat(), 0);
            expect(&what, &out, *factors);
            let after: f64 = TENSORS
                .iter()
                .zip(factors)
                .map(|((_, v), f)| v.iter().map(|&v| (f64::from(v) * f).powi(2)).sum::<f64>())
                .sum();
            assert_close(&what, &[norm(&report["norm_after"])], &[after.sqrt()]);
            let whole = !["--group", "--scope"].iter().any(|option| options.contains(option));
            assert_eq!(report["norm"].is_null(), !whole, "{what}: {report}");
            let coefficients: Vec<f64> =
                report["tensors"].as_array().unwrap().iter().map(|t| norm(&t["coefficient"])).collect();
            assert_close(&what, &coefficients, factors);
        }
    }
}

#[test]
fn the_table_counts_groups_and_shows_the_norm_after() {
    let folder = Folder::new();
    let input = folder.write("in", &f32_file(&TENSORS));
    let cases: [(&[&str], &[&str]); 4] = [
        (
            &["--group", "head.*=5", "--exclude", "*.bias"],
            &["1 of 2 groups", "one a group (L2)", "norm after  22.53885"],
        ),
        (&["--scope", "tensor", "--exclude", "*.bias"], &["1 of 3 tensors", "one a tensor (L2)"]),
        (&["--exclude", "head.*"], &["21.97726 (L2)", "clipped      yes", "53.85165 (L2, of the whole set)"]),
        (
            &["--group", "*=inf", "--max-norm", "inf"],
            &["no, measured only", "54.61685 (L2, of the whole set)"],
        ),
    ];
    for (options, words) in cases {
        let max_norm = if options.contains(&"inf") { &[][..] } else { &["--max-norm", "20"] };
        let output = gradclip(&[&["clip", &input, "--device", "cpu"], max_norm, options].concat());
        let text = stdout(&output);
        assert!(words.iter().all(|word| text.contains(word)), "{options:?}: {text} {}", stderr(&output));
    }
}

#[test]
fn own_thresholds_are_those_of_each_tensor_under_other_rules() {
    let folder = Folder::new();
    let (input, out) = (folder.write("in", &f32_file(&TENSORS)), folder.path("out"));
    let params = folder.write(
        "params",
        &f32_file(&[
            ("layers.0.weight", &[6.0, 8.0]),
            ("layers.0.bias", &[0.0, 2.0]),
            ("layers.1.weight", &[1.0, 0.0]),
        ]),
    );
    let clamp = |limit: [f64; 4]| -> Vec<[f64; 2]> {
        TENSORS
            .iter()
            .zip(limit)
            .map(|((_, v), l)| [f64::from(v[0]).min(l), f64::from(v[1]).min(l)])
            .collect()
    };
    let root = 2f64.sqrt();
    for device in devices() {
        let run = |options: &[&str]| {
            json(&[&["clip", &input, "--out", &out, "--device", &device], options].concat(), 0);
            format!("{options:?} on {device}")
        };
        run(&["--value", "10", "--group", "*.bias=2", "--exclude", "head.*"]);
        let after = fs::read(&out).unwrap();
        for ((name, _), expected) in TENSORS.iter().zip(clamp([10.0, 2.0, 10.0, f64::INFINITY])) {
            assert_eq!(values(&after, name), expected, "{name} on {device}");
        }
        // Root mean squares: norms over the root of 2.
        let what = run(&["--block-rms", "1", "--group", "layers.0.*=2", "--exclude", "head.*"]);
        expect(&what, &out, [2.0 * root / 5.0, 2.0 * root / 13.0, root / 17.0, 1.0]);
        // Excluded tensors need no parameters. Norms of these 10, 2 and 1.
        let what =
            run(&["--agc", "0.1", "--params", &params, "--group", "layers.1.*=3", "--exclude", "head.*"]);
        expect(&what, &out, [1.0 / 5.0, 0.2 / 13.0, 3.0 / 17.0, 1.0]);
        run(&["--sign", "1", "--group", "layers.0.*=20", "--exclude", "head.*"]);
        let after = fs::read(&out).unwrap();
        let expected = [[3.0, 4.0], [5.0, 12.0], [1.0, 1.0], [30.0, 40.0]];
        for ((name, _), expected) in TENSORS.iter().zip(expected) {
            assert_eq!(values(&after, name), expected, "{name} on {device}");
        }
    }
    let error = refused(&["clip", &input, "--agc", "1", "--params", &params, "--device", "cpu"]);
    assert!(error.contains("`head.weight`"), "{error}");
}

#[test]
fn patterns_that_say_nothing_or_two_things_are_refused() {
    let folder = Folder::new();
    let input = folder.write("in", &f32_file(&TENSORS));
    let cases: [(&[&str], &[&str]); 12] = [
        (&["--group", "nothing.*=1"], &["--group `nothing.*`", "matches none"]),
        (&["--exclude", "head"], &["--exclude `head`", "matches none"]),
        (
            &["--group", "layers.*=1", "--group", "*.bias=2"],
            &["`layers.*`", "`*.bias`", "tensor `layers.0.bias`"],
        ),
        (&["--group", "*.bias=1", "--group", "*.bias=1"], &["`layers.0.bias`"]),
        (&["--group", "*.bias=1", "--scope", "tensor"], &["--scope tensor", "--group"]),
        (&["--group", "*.bias=1e39"], &["--group *.bias", "f32"]),
        (&["--total", "1"], &["total"]),
        (&["--total", "1e39"], &["--total"]),
        (&["--group", "*.bias"], &["--group"]),
        (&["--group", "*.bias=-1"], &["--group"]),
        (&["--group", "=1"], &["--group"]),
        (&["--total", "-1"], &["--total"]),
    ];
    for (options, words) in cases {
        let output = gradclip(&[&["clip", &input, "--max-norm", "1", "--device", "cpu"], options].concat());
        let error = stderr(&output);
        assert_eq!(cli::code(&output), 2, "{options:?}: {error}");
        assert!(words.iter().all(|word| error.contains(word)), "{options:?}: {error}");
    }
    // A name that `__metadata__` gives a tensor besides its own is a name of it.
    let header = r#"{"__metadata__":{"lm_head.weight":"wte.weight"},"wte.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let tied = folder.write("tied", &file(header, &floats(&[3.0, 4.0])));
    let report = json(&["clip", &tied, "--max-norm", "1", "--exclude", "lm_head.*", "--device", "cpu"], 0);
    assert_eq!((&report["clipped"], &report["norm_after"]), (&false.into(), &5.0.into()));
}
