//! The command line and its files: what is kept, what is refused, and what is never left behind.

#![allow(clippy::unwrap_used)]

#[path = "common/cli.rs"]
mod cli;

use std::fs;

use cli::{
    Folder, awkward, code, devices, f32_file, file, floats, gradclip, json, lstm, norm, stderr, stdout,
    values,
};
use serde_json::Value;

#[test]
fn keeps_header_order_names_types_and_metadata() {
    let folder = Folder::new();
    let input = folder.write("in", &awkward());
    for device in devices() {
        let out = folder.path("out");
        // 1 + 4 + 4 + 16 + 4 + 4 + 16 + 36 = 85.
        let clip = ["clip", &input, "--out", &out, "--device", &device, "--max-norm"];
        let report = json(&[&clip[..], &["1"]].concat(), 0);
        let names: Vec<&str> =
            report["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["zeta", "alpha", "scalar", "none", "mid"], "{device}");
        assert_eq!(norm(&report["norm"]), f64::from(85f32.sqrt()));
        let (before, after) = (awkward(), fs::read(&out).unwrap());
        let header = before.len() - 22;
        assert!(before[..header] == after[..header] && before.len() == after.len(), "{device}");
        let factor = 1.0 / 85f64.sqrt();
        for name in names {
            for (b, a) in values(&before, name).iter().zip(values(&after, name)) {
                assert!((b * factor - a).abs() <= a.abs() / 256.0, "{device}: {name}: {b} {a}");
            }
        }
        assert!((values(&after, "alpha")[1] / (2.0 * factor) - 1.0).abs() < 5e-4);
        assert!((values(&after, "zeta")[0] / (4.0 * factor) - 1.0).abs() < 2e-7);

        // Not clipped: the same file to the last bit, also over itself.
        for threshold in ["10", "inf"] {
            json(&[&clip[..], &[threshold]].concat(), 0);
            assert!(fs::read(&out).unwrap() == before, "{device}");
        }
        let same = folder.write("same", &before);
        json(&["clip", &same, "--out", &same, "--device", &device, "--max-norm", "1"], 0);
        assert!(fs::read(&same).unwrap() == after, "{device}");
    }
    let mut names = folder.names();
    names.sort();
    assert_eq!(names, ["in", "out", "same"], "temporary files are left");
}

#[test]
fn refuses_broken_files() {
    let f32s = |shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let good = file(&f32s("[2]", "[0,8]"), &floats(&[3.0, 4.0]));
    let pair = |second: &str| {
        let first = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
        format!(r#"{{{first},"b":{{"dtype":"F32","shape":[2],"data_offsets":{second}}}}}"#)
    };
    // Eight of these add up to 2^64 - 8 bytes, which overflows with the header's own length.
    let huge: Vec<String> = (0..8u64)
        .map(|i| {
            let (size, begin) = ((1u64 << 61) - 1, i * ((1u64 << 61) - 1));
            format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{begin},{}]}}"#, begin + size)
        })
        .collect();
    let dtype = |name: &str, bytes: usize| {
        let header = format!(r#"{{"odd.one":{{"dtype":"{name}","shape":[1],"data_offsets":[0,{bytes}]}}}}"#);
        file(&header, &vec![0; bytes])
    };
    let broken: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "0 bytes"),
        ("short", vec![1, 2, 3], "3 bytes"),
        ("garbage", b"this is no safetensors file at all".to_vec(), "plain text"),
        ("no header", 0u64.to_le_bytes().to_vec(), "JSON"),
        ("huge header", [&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "18446744073709551615"),
        ("long header", [&1000u64.to_le_bytes()[..], b"{}"].concat(), "1000"),
        ("not JSON", file("{not json", b""), "JSON"),
        ("a list", file("[1,2]", b""), "JSON"),
        ("a deep list", file(&"[".repeat(100_000), b""), "JSON"),
        ("not UTF-8", [&4u64.to_le_bytes()[..], b"{\"\xff}"].concat(), "header"),
        ("truncated", good[..good.len() - 1].to_vec(), "`a` ends at byte 8"),
        (
            "longer",
            [&good[..], b"x"].concat(),
            "bytes 8 to 9 of the data, after the last tensor, belong to no tensor",
        ),
        (
            "wrong size",
            file(&f32s("[3]", "[0,8]"), &floats(&[3.0, 4.0])),
            "give it 8 bytes, which do not fit its shape [3] of F32",
        ),
        ("overflow", file(&f32s("[9223372036854775807,4]", "[0,8]"), &floats(&[3.0, 4.0])), "overflow"),
        ("sum overflow", file(&format!("{{{}}}", huge.join(",")), b""), "ends at byte"),
        ("backwards", file(&f32s("[2]", "[8,0]"), &floats(&[3.0, 4.0])), "go backwards"),
        (
            "overlap",
            file(&pair("[4,12]"), &floats(&[3.0, 4.0, 5.0])),
            "`b` begins at byte 4 of the data, inside tensor `a`",
        ),
        (
            "gap",
            file(&pair("[12,20]"), &floats(&[3.0; 5])),
            "bytes 8 to 12 of the data, before tensor `b`, belong to no tensor",
        ),
        ("beyond", file(&pair("[8,16]"), &floats(&[3.0; 3])), "`b` ends at byte 16"),
        ("no fields", file(r#"{"a":{}}"#, b""), "`dtype` that safetensors knows, and has none"),
        ("negative", file(&f32s("[2]", "[-8,0]"), b""), "whole numbers, given [-8,0]"),
        ("bad metadata", file(r#"{"__metadata__":{"a":1}}"#, b""), "not an object of texts"),
        ("unknown type", dtype("F128", 16), "F128"),
        (
            "f8",
            dtype("F8_E4M3", 1),
            "`odd.one` is F8_E4M3; gradients may be F64, F32, F16 or BF16: 8-bit floats",
        ),
        ("f8 of AMD", dtype("F8_E5M2FNUZ", 1), "`odd.one` is F8_E5M2FNUZ"),
        ("scales", dtype("F8_E8M0", 1), "`odd.one` is F8_E8M0"),
        (
            "complex",
            dtype("C64", 8),
            "`odd.one` is C64; gradients may be F64, F32, F16 or BF16: complex numbers",
        ),
        ("f4", file(&f32s("[2]", "[0,1]").replace("F32", "F4"), b"x"), "`a` is F4"),
        (
            "half a byte",
            file(&f32s("[3]", "[0,1]").replace("F32", "F4"), b"x"),
            "do not fit its shape [3] of F4",
        ),
        (
            "two of a name",
            file(
                r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#,
                b"",
            ),
            "the name `a` occurs twice",
        ),
        (
            "two of a field",
            file(r#"{"a":{"dtype":"F32","dtype":"F16","shape":[0],"data_offsets":[0,0]}}"#, b""),
            "the name `dtype` occurs twice",
        ),
    ];
    let folder = Folder::new();
    for (name, bytes, says) in broken {
        let input = folder.write("in", &bytes);
        let out = folder.path("out");
        for args in [
            &["clip", &input, "--max-norm", "1", "--device", "cpu", "--out", &out][..],
            &["norm", &input, "--device", "cpu"],
        ] {
            let output = gradclip(args);
            let error = stderr(&output);
            assert_eq!(code(&output), 2, "{name}: {error}");
            assert!(error.contains(&input) && error.contains("INPUT"), "{name}: {error}");
            assert!(error.contains(says), "{name}: expected `{says}` in: {error}");
            assert_eq!(stdout(&output), "", "{name}");
        }
    }
    assert_eq!(folder.names(), ["in"]);
    for input in [folder.path("missing"), folder.path("")] {
        let output = gradclip(&["norm", &input, "--device", "cpu"]);
        assert_eq!(code(&output), 2, "{input}");
        assert!(stderr(&output).contains(&input));
    }
}

#[test]
fn a_file_without_tensors_is_fine() {
    let folder = Folder::new();
    let out = folder.path("out");
    for bytes in [file("{}", b""), file(r#"{"__metadata__":{"a":"b"}}"#, b"")] {
        let input = folder.write("in", &bytes);
        for device in devices() {
            for scope in ["global", "tensor"] {
                let args = ["clip", &input, "--max-norm", "1", "--device", &device, "--out", &out];
                let report = json(&[&args[..], &["--scope", scope]].concat(), 0);
                let zero = if scope == "global" { Value::from(0.0) } else { Value::Null };
                assert_eq!((&report["norm"], &report["tensors"]), (&zero, &Value::Array(vec![])));
                assert!(fs::read(&out).unwrap() == bytes);
                assert_eq!(code(&gradclip(&args)), 0);
            }
        }
    }
}

#[test]
fn never_leaves_half_a_file() {
    let folder = Folder::new();
    let input = folder.write("in", &f32_file(&[("a", &[1.0, 2.0]), ("b", &[f32::NAN])]));
    let out = folder.write("out", b"what was there");
    let clip = ["clip", &input, "--max-norm", "1", "--device", "cpu", "--out"];
    // Non-finite: nothing is written.
    assert_eq!(code(&gradclip(&[&clip[..], &[&out]].concat())), 3);
    assert_eq!(fs::read(&out).unwrap(), b"what was there");
    // Where nothing can be written.
    for out in [folder.path(""), folder.path("missing/out"), folder.path("in/out"), "/".into(), "..".into()] {
        let output = gradclip(&[&clip[..], &[&out, "--on-nonfinite", "skip"]].concat());
        assert_eq!(code(&output), 2, "{out}");
        assert!(stderr(&output).contains("--out"), "{}", stderr(&output));
        assert_eq!(stdout(&output), "", "{out}");
    }
    let mut names = folder.names();
    names.sort();
    assert_eq!(names, ["in", "out"]);
}

#[cfg(unix)]
#[test]
fn output_goes_where_links_point_and_never_over_devices() {
    let folder = Folder::new();
    let (target, link) = (folder.write("target", b"old"), folder.path("link"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let input = lstm();
    let clip = ["clip", &input, "--max-norm", "1", "--device", "cpu", "--out"];
    assert_eq!(code(&gradclip(&[&clip[..], &[&link]].concat())), 0);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&target).unwrap().len(), fs::metadata(&input).unwrap().len());
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&target).unwrap().permissions());
    let plain =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder.write("x", b"")).unwrap().permissions());
    assert_eq!(mode, plain, "as private as any new file");
    assert_eq!(code(&gradclip(&[&clip[..], &["/dev/null"]].concat())), 2);
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}
