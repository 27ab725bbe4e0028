//! A set that is larger than the memory it may take: on the CPU path files are mapped, decided over and written piece
//! by piece. `GRADCLIP_TEST_GIB=16` tries a larger set than the default.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "common/cli.rs"]
mod cli;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use cli::{Folder, norm};
use gradclip_verify::tolerance;
use serde_json::Value;

/// Memory of its own that the process may take, in KiB: far below the files, and below the 1 GiB promised.
const MOST: u64 = 300 << 10;

/// A sparse file of one F32 tensor, all zeros but for 3 at its beginning and 4 at its end. `odd` shifts the data to an
/// address at which floats cannot be read.
fn sparse(path: &str, name: &str, bytes: u64, odd: bool) {
    let mut header =
        format!(r#"{{"{name}":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{bytes}]}}}}"#, bytes / 4);
    header += &" ".repeat((8 - header.len() % 8) % 8 + usize::from(odd));
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(&3f32.to_le_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + bytes).unwrap();
    file.seek(SeekFrom::End(-4)).unwrap();
    file.write_all(&4f32.to_le_bytes()).unwrap();
}

/// The largest amount of memory of its own that a process was seen to have, in KiB, and its output.
fn watched(args: &[&str]) -> (u64, Value) {
    let child =
        Command::new(env!("CARGO_BIN_EXE_gradclip")).args(args).stdout(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let watcher = std::thread::spawn(move || {
        let mut most = 0;
        // Pages of files are not counted, nor is a process that has ended.
        while let Some(line) = fs::read_to_string(&status)
            .ok()
            .and_then(|text| text.lines().find(|line| line.starts_with("RssAnon:")).map(str::to_owned))
        {
            most = most.max(line.split_whitespace().nth(1).unwrap().parse().unwrap());
            std::thread::sleep(Duration::from_millis(2));
        }
        most
    });
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    (watcher.join().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_set_larger_than_its_memory_is_clipped() {
    let gib: u64 = std::env::var("GRADCLIP_TEST_GIB").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let bytes = gib << 29;
    let folder = Folder::new();
    let (a, b, out) = (folder.path("a.safetensors"), folder.path("b.safetensors"), folder.path("out"));
    sparse(&a, "a", bytes, false);
    sparse(&b, "b", bytes, true);
    let (most, report) =
        watched(&["clip", &a, &b, "--max-norm", "1", "--device", "cpu", "--json", "--out", &out]);
    assert!(most > 1 << 10, "{most} KiB: nothing was seen");
    assert!(most < MOST, "{most} KiB");
    assert!((norm(&report["norm"]) / 50f64.sqrt() - 1.0).abs() < tolerance::NORM_F32, "{report}");
    assert!((norm(&report["norm_after"]) - 1.0).abs() < tolerance::NORM_AFTER, "{report}");
    for name in ["a", "b"] {
        let file = fs::read(format!("{out}/{name}.safetensors")).unwrap();
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let data = &file[8 + length..];
        assert_eq!(data.len() as u64, bytes);
        let at = |i: usize| f32::from_le_bytes(data[i..i + 4].try_into().unwrap());
        for (value, exact) in [(at(0), 3.0), (at(data.len() - 4), 4.0)] {
            assert!((f64::from(value) / (exact / 50f64.sqrt()) - 1.0).abs() < 2e-7, "{name}: {value}");
        }
        assert!(data[4..data.len() - 4].iter().all(|&byte| byte == 0), "{name}");
        fs::remove_file(format!("{out}/{name}.safetensors")).unwrap();
    }
}
