//! The command line as its users see it: runs it, and writes and reads its files.
//!
//! Everything runs with `--device cpu` and, where there is an adapter, on that. An adapter is
//! required with `GRADCLIP_REQUIRE_GPU=1`; `GRADCLIP_TEST_ADAPTER=TEXT` picks one.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use gradclip_verify::compare::is_close;
use gradclip_verify::tensor::{Data, Element};
use gradclip_verify::tolerance;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

pub fn gradclip(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradclip")).args(args).output().unwrap()
}

/// Runs with these bytes on standard input.
pub fn gradclip_fed(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gradclip"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A program that refuses early closes its end.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

/// Runs, expects exit code 2 and nothing on standard output, and gives the one line that says why.
pub fn refused(args: &[&str]) -> String {
    let output = gradclip(args);
    let error = stderr(&output);
    assert_eq!((code(&output), stdout(&output).as_str()), (2, ""), "{args:?}: {error}");
    // Without a desktop and with no driver chosen, Mesa has an error of its own.
    let ours = |line: &&str| line.starts_with("error: ") && !line.starts_with("error: XDG_RUNTIME_DIR");
    let lines: Vec<&str> = error.lines().filter(ours).collect();
    assert_eq!((lines.len(), error.lines().last()), (1, Some(lines[0])), "{args:?}: {error}");
    lines[0].to_owned()
}

pub fn code(output: &Output) -> i32 {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("panicked"), "{error}");
    output.status.code().unwrap_or_else(|| panic!("killed: {error}"))
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs, expects an exit code, and gives the JSON printed.
pub fn json(args: &[&str], expected: i32) -> Value {
    let output = gradclip(&[args, &["--json"]].concat());
    assert_eq!(code(&output), expected, "{args:?}: {}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", stdout(&output)))
}

/// `cpu`, and what `--device` takes for the adapter, if there is one.
pub fn devices() -> Vec<String> {
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

pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data")
}

pub fn lstm() -> String {
    data().join("lstm_exploding.safetensors").to_str().unwrap().to_owned()
}

/// A folder that is removed at the end, and paths in it.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// A safetensors file with this header and data.
pub fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

pub fn doubles(values: &[f64]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

pub fn floats(values: &[f32]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

pub fn halves(values: &[f32]) -> Vec<u8> {
    Data::rounded(Element::F16, values).bytes().to_vec()
}

pub fn brains(values: &[f32]) -> Vec<u8> {
    Data::rounded(Element::Bf16, values).bytes().to_vec()
}

/// A file of f32 tensors, in this order.
pub fn f32_file(tensors: &[(&str, &[f32])]) -> Vec<u8> {
    let pieces = tensors.iter().map(|(name, values)| (*name, "F32", values.len(), floats(values)));
    any_file(&pieces.collect::<Vec<_>>())
}

/// Header order, data order and alphabetical order all differ; f32 data is unaligned; metadata,
/// spaces, an empty tensor, a scalar, an odd number of f16.
pub fn awkward() -> Vec<u8> {
    let header = r#"{"zeta":{"dtype":"F32","shape":[2],"data_offsets":[6,14]}, "alpha":{"dtype":"F16","shape":[3],"data_offsets":[0,6]},"__metadata__":{"format":"pt","note":"kept é"},"scalar":{"dtype":"F32","shape":[],"data_offsets":[18,22]},"none":{"dtype":"F32","shape":[4,0],"data_offsets":[14,14]}, "mid":{"dtype":"BF16","shape":[2,1],"data_offsets":[14,18]} } "#;
    let (alpha, mid) = (halves(&[1.0, 2.0, -2.0]), brains(&[2.0, 4.0]));
    file(header, &[alpha, floats(&[4.0, 2.0]), mid, floats(&[-6.0])].concat())
}

/// The elements of a tensor, exactly.
pub fn values(file: &[u8], name: &str) -> Vec<f64> {
    let parsed = SafeTensors::deserialize(file).unwrap();
    let view = parsed.tensor(name).unwrap();
    let element = match view.dtype() {
        Dtype::F64 => Element::F64,
        Dtype::F32 => Element::F32,
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::Bf16,
        other => panic!("{other}"),
    };
    Data::from_bytes(element, view.data()).values().collect()
}

/// One tensor of a file to be: name, type, elements, bytes.
pub type Piece<'a> = (&'a str, &'a str, usize, Vec<u8>);

/// A file of tensors of any types with one axis, in this order.
pub fn any_file(tensors: &[Piece<'_>]) -> Vec<u8> {
    let (mut entries, mut bytes) = (Vec::new(), Vec::new());
    for (name, dtype, elements, data) in tensors {
        let (begin, end) = (bytes.len(), bytes.len() + data.len());
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":[{elements}],"data_offsets":[{begin},{end}]}}"#
        ));
        bytes.extend(data);
    }
    file(&format!("{{{}}}", entries.join(",")), &bytes)
}

/// The bytes of a tensor and its type.
pub fn tensor(file: &[u8], name: &str) -> (String, Vec<u8>) {
    let parsed = SafeTensors::deserialize(file).unwrap();
    let view = parsed.tensor(name).unwrap();
    (view.dtype().to_string(), view.data().to_vec())
}

/// A number of the case files: a number, or text of one.
pub fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str().and_then(|text| text.parse().ok()))
}

pub fn norm(value: &Value) -> f64 {
    number(value).unwrap_or(f64::NAN)
}

/// The JSON of a case in its folder.
pub fn case(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).unwrap()
}

/// Whether these are the elements of a clipped `f32`.
pub fn close(got: &[f64], expected: &[f64]) -> bool {
    let close = |(&got, &expected)| is_close(got, expected, tolerance::SCALED_TWICE, 0.0);
    got.len() == expected.len() && got.iter().zip(expected).all(close)
}

pub fn assert_close(what: &str, got: &[f64], expected: &[f64]) {
    assert!(close(got, expected), "{what}: {got:?}, expected {expected:?}");
}
