//! The command line as its users see it: every option, exit codes, files, JSON, and the answers of
//! other libraries in `tests/data/cases` (PyTorch, TensorFlow, Keras and Optax, run on a CPU).
//!
//! Everything runs with `--device cpu` and, where there is an adapter, on that. An adapter is
//! required with `GRADCLIP_REQUIRE_GPU=1`; `GRADCLIP_TEST_ADAPTER=TEXT` picks one.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn gradclip(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradclip")).args(args).output().unwrap()
}

fn code(output: &Output) -> i32 {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("panicked"), "{error}");
    output.status.code().unwrap_or_else(|| panic!("killed: {error}"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs, expects an exit code, and gives the JSON printed.
fn json(args: &[&str], expected: i32) -> Value {
    let output = gradclip(&[args, &["--json"]].concat());
    assert_eq!(code(&output), expected, "{args:?}: {}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", stdout(&output)))
}

/// `cpu`, and what `--device` takes for the adapter, if there is one.
fn devices() -> Vec<String> {
    static GPU: OnceLock<Option<String>> = OnceLock::new();
    let gpu = GPU.get_or_init(|| {
        let wanted = std::env::var("GRADCLIP_TEST_ADAPTER").unwrap_or_else(|_| "gpu".into());
        let found = !json(&["devices"], 0)["adapters"].as_array().unwrap().is_empty();
        let required = std::env::var("GRADCLIP_REQUIRE_GPU").is_ok_and(|v| v == "1");
        assert!(found || !required, "GRADCLIP_REQUIRE_GPU=1, but there is no adapter");
        found.then_some(wanted)
    });
    std::iter::once("cpu".to_owned()).chain(gpu.clone()).collect()
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn lstm() -> String {
    data().join("lstm_exploding.safetensors").to_str().unwrap().to_owned()
}

/// A folder that is removed at the end, and paths in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// A safetensors file with this header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A file of f32 tensors, in this order.
fn f32_file(tensors: &[(&str, &[f32])]) -> Vec<u8> {
    let (mut entries, mut bytes) = (Vec::new(), Vec::new());
    for (name, values) in tensors {
        let (begin, end) = (bytes.len(), bytes.len() + 4 * values.len());
        let len = values.len();
        entries.push(format!(r#""{name}":{{"dtype":"F32","shape":[{len}],"data_offsets":[{begin},{end}]}}"#));
        bytes.extend(floats(values));
    }
    file(&format!("{{{}}}", entries.join(",")), &bytes)
}

/// The elements of a tensor, exactly.
fn values(file: &[u8], name: &str) -> Vec<f64> {
    let parsed = SafeTensors::deserialize(file).unwrap();
    let view = parsed.tensor(name).unwrap();
    let pair = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
    match view.dtype() {
        Dtype::F32 => {
            view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect()
        }
        Dtype::F16 => view.data().chunks(2).map(|b| half::f16::from_bits(pair(b)).into()).collect(),
        Dtype::BF16 => view.data().chunks(2).map(|b| half::bf16::from_bits(pair(b)).into()).collect(),
        other => panic!("{other}"),
    }
}

/// A number of the case files: a number, or text of one.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str().and_then(|text| text.parse().ok()))
}

fn norm(value: &Value) -> f64 {
    number(value).unwrap_or(f64::NAN)
}

// ---------------------------------------------------------------- the answers of other libraries

/// The options that make gradclip compute what a case computed.
fn options(case: &Value) -> Vec<String> {
    let args = &case["args"];
    let threshold = ["max_norm", "clip_norm", "clipnorm", "global_clipnorm"]
        .iter()
        .find_map(|key| number(&args[key]))
        .unwrap();
    let mut options = vec!["--max-norm".to_owned(), threshold.to_string()];
    if case["peer"].as_str().unwrap().starts_with("torch") {
        options.extend(["--eps", "1e-6"].map(str::to_owned));
    }
    // Both clip each tensor by itself.
    if args.get("clipnorm").is_some() || args.get("axes").is_some() {
        options.extend(["--scope", "tensor"].map(str::to_owned));
    }
    if let Some(scale) = number(&args["scale"]) {
        options.extend(["--unscale".to_owned(), scale.to_string()]);
    }
    options
}

#[test]
fn answers_as_other_libraries_do() {
    let folder = Folder::new();
    let mut count = 0;
    for entry in fs::read_dir(data().join("cases")).unwrap() {
        let path = entry.unwrap().path();
        let case: Value = serde_json::from_slice(&fs::read(path.join("case.json")).unwrap()).unwrap();
        for device in devices() {
            run_case(&path, &case, &device, &folder);
            count += 1;
        }
    }
    assert!(count >= 31, "only {count} cases");
}

fn run_case(path: &Path, case: &Value, device: &str, folder: &Folder) {
    let what = format!("{} on {device}", case["name"].as_str().unwrap());
    let input = match case.get("generate") {
        Some(generate) => {
            let values =
                vec![number(&generate["fill"]).unwrap() as f32; generate["n"].as_u64().unwrap() as usize];
            folder.write("generated", &f32_file(&[("g.0000", &values)]))
        }
        None => path.join(case["input"].as_str().unwrap()).to_str().unwrap().to_owned(),
    };
    let out = folder.path("out");
    let _ = fs::remove_file(&out);
    let options = options(case);
    let mut args = vec!["clip", &input, "--device", device, "--out", &out];
    args.extend(options.iter().map(String::as_str));
    let threshold = number(&Value::from(options[1].as_str())).unwrap();
    let true_norm = norm(&case["true_norm"]);
    if threshold < 0.0 {
        assert_eq!(code(&gradclip(&args)), 2, "{what}");
        return;
    }
    if !true_norm.is_finite() {
        // A non-finite element is an error unless a policy is asked for.
        assert_eq!(json(&args, 3)["clipped"], false, "{what}");
        assert!(!Path::new(&out).exists(), "{what}");
        if true_norm.is_nan() && !case["expected"].is_null() {
            args.extend(["--on-nonfinite", "nan"]);
            json(&args, 0);
            compare(case, path, &fs::read(&out).unwrap(), &what);
        }
        return;
    }
    let report = json(&args, 0);
    let (before, after) = (fs::read(&input).unwrap(), fs::read(&out).unwrap());
    if !report["norm"].is_null() {
        let error = (norm(&report["norm"]) / true_norm - 1.0).abs();
        assert!(error < 1.2e-7, "{what}: norm {} is not {true_norm}", report["norm"]);
    }
    assert_eq!(report["clipped"], true_norm > threshold * (1.0 + 1e-9), "{what}");
    if true_norm <= threshold {
        assert!(before == after, "{what}: changed though it is within the threshold");
    } else if !case["expected"].is_null() || case.get("exact").is_some() {
        compare(case, path, &after, &what);
    }
    if let Some(generate) = case.get("generate") {
        let n = generate["n"].as_f64().unwrap();
        let clipped = (values(&after, "g.0000")[0].powi(2) * n).sqrt();
        assert!((clipped / threshold - 1.0).abs() < 2e-7, "{what}: {clipped}");
    }
}

/// |out - expected| <= atol + rtol * |expected|, with NaN in the same places.
fn compare(case: &Value, path: &Path, got: &[u8], what: &str) {
    let wrong = case["peer_wrong"].as_array().unwrap().contains(&"output".into());
    let name = if wrong { "exact.safetensors" } else { "expected.safetensors" };
    let expected = fs::read(path.join(name)).unwrap();
    let atol = number(&case["atol"]).unwrap_or(0.0);
    for tensor in case["tensors"].as_array().unwrap() {
        let tensor = tensor.as_str().unwrap();
        let half = SafeTensors::deserialize(got).unwrap().tensor(tensor).unwrap().dtype() == Dtype::F16;
        // Beside an exact answer only our own rounding is allowed: four steps of f32, or one of f16.
        let rtol = number(&case["rtol"]).unwrap_or(if half { 4.9e-4 } else { 2.4e-7 });
        let (got, expected) = (values(got, tensor), values(&expected, tensor));
        assert_eq!(got.len(), expected.len(), "{what}: {tensor}");
        for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
            let close = (g.is_nan() && e.is_nan()) || g == e || (g - e).abs() <= atol + rtol * e.abs();
            assert!(close, "{what}: {tensor}[{i}] is {g:e}, expected {e:e}");
        }
    }
}

// ---------------------------------------------------------------- files

/// Header order, data order and alphabetical order all differ; f32 data is unaligned; metadata,
/// spaces, an empty tensor, a scalar, an odd number of f16.
fn awkward() -> Vec<u8> {
    let header = r#"{"zeta":{"dtype":"F32","shape":[2],"data_offsets":[6,14]}, "alpha":{"dtype":"F16","shape":[3],"data_offsets":[0,6]},"__metadata__":{"format":"pt","note":"kept é"},"scalar":{"dtype":"F32","shape":[],"data_offsets":[18,22]},"none":{"dtype":"F32","shape":[4,0],"data_offsets":[14,14]}, "mid":{"dtype":"BF16","shape":[2,1],"data_offsets":[14,18]} } "#;
    let half = |v: f32| half::f16::from_f32(v).to_le_bytes();
    let brain = |v: f32| half::bf16::from_f32(v).to_le_bytes();
    let alpha = [half(1.0), half(2.0), half(-2.0)].concat();
    let mid = [brain(2.0), brain(4.0)].concat();
    file(header, &[alpha, floats(&[4.0, 2.0]), mid, floats(&[-6.0])].concat())
}

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
        ("garbage", b"this is no safetensors file at all".to_vec(), "header"),
        ("no header", 0u64.to_le_bytes().to_vec(), "JSON"),
        ("huge header", [&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "18446744073709551615"),
        ("long header", [&1000u64.to_le_bytes()[..], b"{}"].concat(), "1000"),
        ("not JSON", file("{not json", b""), "JSON"),
        ("a list", file("[1,2]", b""), "JSON"),
        ("a deep list", file(&"[".repeat(100_000), b""), "JSON"),
        ("not UTF-8", [&4u64.to_le_bytes()[..], b"{\"\xff}"].concat(), "header"),
        ("truncated", good[..good.len() - 1].to_vec(), "`a` ends at byte 8"),
        ("longer", [&good[..], b"x"].concat(), "not fully covered"),
        ("wrong size", file(&f32s("[3]", "[0,8]"), &floats(&[3.0, 4.0])), "shape"),
        ("overflow", file(&f32s("[9223372036854775807,4]", "[0,8]"), &floats(&[3.0, 4.0])), "overflow"),
        ("sum overflow", file(&format!("{{{}}}", huge.join(",")), b""), "ends at byte"),
        ("backwards", file(&f32s("[2]", "[8,0]"), &floats(&[3.0, 4.0])), "offset"),
        ("overlap", file(&pair("[4,12]"), &floats(&[3.0, 4.0, 5.0])), "offset"),
        ("gap", file(&pair("[12,20]"), &floats(&[3.0; 5])), "offset"),
        ("beyond", file(&pair("[8,16]"), &floats(&[3.0; 3])), "`b` ends at byte 16"),
        ("no fields", file(r#"{"a":{}}"#, b""), "JSON"),
        ("negative", file(&f32s("[2]", "[-8,0]"), b""), "JSON"),
        ("bad metadata", file(r#"{"__metadata__":{"a":1}}"#, b""), "JSON"),
        ("unknown type", dtype("F128", 16), "F128"),
        ("f64", dtype("F64", 8), "`odd.one` is F64; gradients may be F32, F16 or BF16"),
        ("i64", dtype("I64", 8), "`odd.one` is I64"),
        ("bool", dtype("BOOL", 1), "`odd.one` is BOOL"),
        ("f8", dtype("F8_E4M3", 1), "`odd.one` is F8_E4M3"),
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
    assert!(stderr(&output).contains("device: cpu") && stderr(&output).contains("mesa-vulkan-drivers"));
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
        let expected = "device adapter backend norm coefficient clipped non_finite first_non_finite tensors";
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

// ---------------------------------------------------------------- verify and bench

#[test]
fn verify_passes() {
    for device in devices() {
        let report = json(&["verify", "--device", &device], 0);
        assert_eq!(report["passed"], true);
        let rows = report["rows"].as_array().unwrap();
        let checked: Vec<&str> = rows.iter().map(|row| row["shader"].as_str().unwrap()).collect();
        match device.as_str() {
            "cpu" => assert_eq!(checked, ["norm", "power", "coefficient", "apply"]),
            _ => {
                let shaders = "reduce tensors segments coefficient apply seams power";
                assert_eq!(checked, shaders.split(' ').collect::<Vec<_>>());
                let exact = rows.iter().filter(|row| row["shader"] != "power");
                exact.for_each(|row| assert_eq!(row["max_ulp"], 0.0, "{row}"));
            }
        }
        for row in rows {
            assert!(row["cases"].as_u64().unwrap() > 50 && row["compared"].as_u64().unwrap() > 500, "{row}");
        }
    }
}

#[test]
fn bench_measures_both_regimes() {
    for device in devices() {
        let args = ["bench", "--tensors", "7", "--elements", "1001", "--device", &device];
        let report = json(&args, 0);
        assert_eq!((&report["tensors"], &report["elements"]), (&7.into(), &7007.into()));
        let arms = report["arms"].as_array().unwrap();
        assert_eq!(arms.len(), if device == "cpu" { 1 } else { 2 });
        for arm in arms {
            assert!(arm["copy_gb_per_s"].as_f64().unwrap() > 0.0);
            let regimes = arm["regimes"].as_array().unwrap();
            for (regime, (name, bytes)) in regimes.iter().zip([("clipped", 12), ("not clipped", 4)]) {
                assert_eq!((&regime["regime"], &regime["bytes"]), (&name.into(), &(bytes * 7007).into()));
                assert!(regime["min_ms"].as_f64() <= regime["median_ms"].as_f64());
                assert!(regime["norm_relative_error"].as_f64().unwrap() < 1.2e-7);
            }
        }
    }
}
