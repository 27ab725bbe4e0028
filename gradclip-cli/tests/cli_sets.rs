//! Sets of files on the command line: indexes of shards, several files, standard input and output, and what is
//! written of each.

#![allow(clippy::unwrap_used)]

#[path = "common/cli.rs"]
mod cli;

use std::fs;
use std::path::Path;

use cli::{
    Folder, any_file, brains, code, data, devices, f32_file, file, floats, gradclip, gradclip_fed, halves,
    json, norm, number, refused, stderr, stdout, tensor, values,
};
use gradclip_verify::tolerance;
use serde_json::{Value, json};

const INDEX: &str = "model.safetensors.index.json";

/// An index as Hugging Face's libraries write it.
fn index(weights: &[(&str, &str)], metadata: &Value) -> Vec<u8> {
    let map: serde_json::Map<String, Value> =
        weights.iter().map(|(name, shard)| ((*name).to_owned(), (*shard).into())).collect();
    serde_json::to_vec_pretty(&json!({ "metadata": metadata, "weight_map": map })).unwrap()
}

/// Two shards of norms 5 and 12, whose set has 13, and their index.
fn shards(folder: &Folder) -> String {
    folder.write("in/two.safetensors", &f32_file(&[("a", &[3.0, 4.0])]));
    folder.write("in/one.safetensors", &f32_file(&[("b", &[12.0])]));
    let weights = [("a", "two.safetensors"), ("b", "one.safetensors")];
    folder.write(&format!("in/{INDEX}"), &index(&weights, &json!({ "total_size": 12 })))
}

fn names(report: &Value) -> Vec<&str> {
    report["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect()
}

/// Names of everything in a folder, sorted.
fn entries(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

// ---------------------------------------------------------------- sets

#[test]
fn answers_as_torch_on_shards_of_hugging_face() {
    let folder = Folder::new();
    for case in ["hf_shards3_alias_header_clip", "hf_shards3_mixed_noclip"] {
        let path = data().join("cases2").join(case);
        let case = cli::case(&path);
        let input = path.join(case["input"].as_str().unwrap());
        let shards: Vec<&str> =
            case["shards"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
        let max_norm = case["args"]["max_norm"].to_string();
        for device in devices() {
            let out = folder.path("out");
            let args = ["clip", input.to_str().unwrap(), "--max-norm", &max_norm, "--eps", "1e-6"];
            let report = json(&[&args[..], &["--device", &device, "--out", &out]].concat(), 0);
            let exact = number(&case["true_norm"]).unwrap();
            assert!((norm(&report["norm"]) / exact - 1.0).abs() < tolerance::NORM_F32, "{report}");
            let mut written = entries(&out);
            written.retain(|name| name != INDEX);
            assert_eq!(written, shards, "{device}");
            assert!(fs::read(Path::new(&out).join(INDEX)).unwrap() == fs::read(&input).unwrap());
            let expected = case["expected"].as_str().map(|name| fs::read(path.join(name)).unwrap());
            for shard in &shards {
                let before = fs::read(input.with_file_name(shard)).unwrap();
                let after = fs::read(Path::new(&out).join(shard)).unwrap();
                match &expected {
                    Some(expected) => compare(&case, &before, &after, expected),
                    None => assert!(before == after, "{device}: {shard}"),
                }
            }
            fs::remove_dir_all(&out).unwrap();
        }
    }
}

/// The tensors of one shard with those of the peer, which has none under the name of an alias.
fn compare(case: &Value, before: &[u8], after: &[u8], expected: &[u8]) {
    let header = |bytes: &[u8]| 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert!(before[..header(before)] == after[..header(after)] && before.len() == after.len());
    let passed: Vec<&str> =
        case["passed_through"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for name in safetensors::SafeTensors::deserialize(after).unwrap().names() {
        let alias = case["alias"].get(name).and_then(Value::as_str).unwrap_or(name);
        let (dtype, bytes) = tensor(after, name);
        if passed.contains(&name) {
            assert_eq!(tensor(before, name).1, bytes, "{name}");
            continue;
        }
        let kind = match dtype.as_str() {
            "BF16" => "bfloat16",
            "F16" => "float16",
            _ => "float32",
        };
        let of = |key: &str| number(&case["tolerances"][kind][key]).unwrap();
        for (got, peer) in values(after, name).iter().zip(values(expected, alias)) {
            assert!(
                (got - peer).abs() <= of("atol") + of("rtol") * peer.abs(),
                "{name}: {got}, expected {peer}"
            );
        }
    }
}

#[test]
fn shards_and_files_are_one_set_in_their_order() {
    let folder = Folder::new();
    let index = shards(&folder);
    let (two, one) = (folder.path("in/two.safetensors"), folder.path("in/one.safetensors"));
    let extra = folder.write("extra", &f32_file(&[("d", &[84.0]), ("c", &[0.0])]));
    for device in devices() {
        let device = ["--device", device.as_str()];
        // Shards by their names, whatever the order in the index.
        let cases: [(&[&str], f64, &[&str]); 4] = [
            (&[&index], 13.0, &["b", "a"]),
            (&[&two, &one], 13.0, &["a", "b"]),
            (&[&index, &extra], 85.0, &["b", "a", "d", "c"]),
            (&[&extra, &two, &one], 85.0, &["d", "c", "a", "b"]),
        ];
        for (inputs, whole, order) in cases {
            let report = json(&[&["norm"], inputs, &device].concat(), 0);
            assert_eq!((&report["norm"], names(&report)), (&whole.into(), order.to_vec()));
            assert!(report["norm_after"].is_null());
            let report = json(&[&["clip"], inputs, &device, &["--max-norm", "1"]].concat(), 0);
            assert!((norm(&report["norm_after"]) - 1.0).abs() < tolerance::NORM_AFTER, "{report}");
        }
    }
}

#[test]
fn what_files_say_of_each_other_must_be_so() {
    let folder = Folder::new();
    let a = folder.write("a", &f32_file(&[("w", &[1.0])]));
    let b = folder.write("b", &f32_file(&[("w", &[1.0])]));
    let says = |args: &[&str], words: &[&str]| {
        let error = refused(&[&["norm", "--device", "cpu"], args].concat());
        assert!(words.iter().all(|word| error.contains(word)), "{args:?}: {error}");
    };
    says(&[&a, &b], &["INPUT", &a, &b, "`w`"]);
    says(&[&a, &a], &[&a, "named twice"]);
    says(&["-", "-"], &["standard input", "twice"]);
    // An index and the shards that it names.
    let whole = shards(&folder);
    says(
        &[&whole, &folder.path("in/one.safetensors")],
        &["one.safetensors", "named twice, by itself or by an index"],
    );
    folder.write("sub/x.safetensors", &f32_file(&[("x", &[1.0])]));
    let none = json!({});
    let cases: [(Vec<u8>, &[&str]); 11] = [
        (index(&[("w", "../a")], &none), &["`../a`", "not within the index's own folder"]),
        (index(&[("w", "/etc/passwd")], &none), &["not within"]),
        (index(&[("w", "x/../../a")], &none), &["not within"]),
        (index(&[("w", "")], &none), &["not within"]),
        (
            index(&[("w", "x.safetensors"), ("x", "x.safetensors")], &none),
            &["tensor `w` in shard `x.safetensors`", "neither"],
        ),
        (index(&[("x", "y.safetensors")], &none), &["y.safetensors", "No such file"]),
        (
            br#"{"weight_map":{"x":"x.safetensors","x":"y.safetensors"}}"#.to_vec(),
            &["the name `x` occurs twice"],
        ),
        (br#"{"weight_map":{"x":1}}"#.to_vec(), &["tensor `x`", "names 1 instead of a file"]),
        (br#"{"weights":{}}"#.to_vec(), &["no `weight_map`"]),
        (b"not JSON".to_vec(), &["seems to be plain text"]),
        (f32_file(&[("x", &[1.0])]), &["index of shards", "not JSON"]),
    ];
    for (bytes, words) in cases {
        says(&[&folder.write(&format!("sub/{INDEX}"), &bytes)], words);
    }
    // In another shard than the index says.
    folder.write("sub/y.safetensors", &f32_file(&[("y", &[1.0])]));
    let swapped = index(&[("x", "y.safetensors"), ("y", "x.safetensors")], &none);
    says(&[&folder.write(&format!("sub/{INDEX}"), &swapped)], &["tensor `x`", "it lies in"]);
}

#[test]
fn an_alias_counts_once_and_what_the_index_leaves_out_counts_too() {
    let folder = Folder::new();
    let header = r#"{"__metadata__":{"format":"pt","tied":"a"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"unlisted":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    folder.write("m/s.safetensors", &file(header, &floats(&[3.0, 4.0])));
    folder.write("m/t.safetensors", &f32_file(&[("b", &[12.0])]));
    let weights = [("tied", "s.safetensors"), ("a", "s.safetensors"), ("b", "t.safetensors")];
    let input = folder.write(&format!("m/{INDEX}"), &index(&weights, &json!({})));
    let report = json(&["norm", &input, "--device", "cpu"], 0);
    assert_eq!((&report["norm"], names(&report)), (&13.0.into(), vec!["a", "unlisted", "b"]));
    // The same in the index's own metadata, where some versions write it.
    folder.write("m/s.safetensors", &f32_file(&[("a", &[3.0]), ("unlisted", &[4.0])]));
    let error = refused(&["norm", &input, "--device", "cpu"]);
    assert!(error.contains("`tied`"), "{error}");
    folder.write(&format!("m/{INDEX}"), &index(&weights, &json!({ "tied": "a", "total_size": 12 })));
    assert_eq!(json(&["norm", &input, "--device", "cpu"], 0)["norm"], 13.0);
}

#[test]
fn parameters_are_found_by_aliases_and_in_shards() {
    let folder = Folder::new();
    let gradient = folder.write("g", &f32_file(&[("wte", &[3.0, 4.0]), ("b", &[12.0])]));
    let header = r#"{"__metadata__":{"format":"pt","wte":"lm_head"},"lm_head":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let tied = folder.write("p/1.safetensors", &file(header, &floats(&[0.0, 5.0])));
    let rest = folder.write("p/2.safetensors", &f32_file(&[("b", &[-100.0]), ("more", &[f32::NAN])]));
    let weights = [("lm_head", "1.safetensors"), ("b", "2.safetensors"), ("more", "2.safetensors")];
    let index = folder.write(&format!("p/{INDEX}"), &index(&weights, &json!({})));
    let out = folder.path("out");
    for device in devices() {
        let clip = ["clip", &gradient, "--agc", "0.5", "--device", &device, "--out", &out];
        for params in [&["--params", &index][..], &["--params", &tied, "--params", &rest]] {
            json(&[&clip[..], params].concat(), 0);
            let after = fs::read(&out).unwrap();
            // Norms 5 and 12, limits 2.5 and 50.
            assert_eq!((values(&after, "wte"), values(&after, "b")), (vec![1.5, 2.0], vec![12.0]));
        }
        let error = refused(&[&clip[..], &["--params", "-"]].concat());
        assert!(error.contains("standard input"), "{error}");
        let error = refused(&[&clip[..], &["--params", &tied]].concat());
        assert!(error.contains("--params") && error.contains("`b`") && error.contains(&tied), "{error}");
    }
}

// ---------------------------------------------------------------- element types

#[test]
fn integers_and_truth_values_pass_through() {
    let folder = Folder::new();
    let mut tensors = vec![("w", "F32", 2, floats(&[3.0, 4.0]))];
    let types = ["I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL"];
    for (i, dtype) in types.iter().enumerate() {
        let size = dtype.trim_start_matches(char::is_alphabetic).parse().unwrap_or(8) / 8;
        tensors.push((dtype, dtype, 3, (0..3 * size).map(|b| (b + i * 17) as u8).collect()));
    }
    let input = folder.write("in", &any_file(&tensors));
    let out = folder.path("out");
    for device in devices() {
        let args = ["clip", &input, "--max-norm", "1", "--device", &device, "--out", &out];
        let report = json(&args, 0);
        assert_eq!((&report["norm"], names(&report)), (&5.0.into(), vec!["w"]));
        let after = fs::read(&out).unwrap();
        for dtype in types {
            assert_eq!(tensor(&after, dtype), tensor(&fs::read(&input).unwrap(), dtype), "{device}");
        }
        let w = values(&after, "w");
        assert!((w[0] - 0.6).abs() < 1e-7 && (w[1] - 0.8).abs() < 1e-7, "{w:?}");
    }
}

#[test]
fn out_type_f32_widens_before_the_clip() {
    let folder = Folder::new();
    let one = any_file(&[
        ("mask", "BOOL", 1, vec![1]),
        ("h", "F16", 3, halves(&[1.0, 2.0, -4.0])),
        ("f", "F32", 1, floats(&[6.0])),
    ]);
    folder.write("m/1.safetensors", &one);
    folder.write("m/2.safetensors", &any_file(&[("b", "BF16", 1, brains(&[8.0]))]));
    let weights =
        [("mask", "1.safetensors"), ("h", "1.safetensors"), ("f", "1.safetensors"), ("b", "2.safetensors")];
    let text = index(&weights, &json!({ "format": "pt", "total_size": 13 }));
    let input = folder.write(&format!("m/{INDEX}"), &text);
    for device in devices() {
        let out = folder.path("out");
        let args = ["clip", &input, "--max-norm", "1", "--device", &device, "--out", &out];
        let report = json(&[&args[..], &["--out-type", "f32"]].concat(), 0);
        // 1 + 4 + 16 + 36 + 64 = 121.
        assert_eq!((&report["norm"], names(&report)), (&11.0.into(), vec!["h", "f", "b"]));
        let first = fs::read(format!("{out}/1.safetensors")).unwrap();
        let second = fs::read(format!("{out}/2.safetensors")).unwrap();
        assert_eq!(tensor(&first, "mask"), ("BOOL".into(), vec![1]));
        for (file, name, exact) in
            [(&first, "h", &[1.0, 2.0, -4.0][..]), (&first, "f", &[6.0]), (&second, "b", &[8.0])]
        {
            assert_eq!(tensor(file, name).0, "F32");
            // Rounded to f32, not to the input's own type; the norm is exact.
            let close =
                |(got, exact): (&f64, &f64)| (got / (exact / 11.0) - 1.0).abs() < tolerance::TWICE_ROUNDED;
            assert!(values(file, name).iter().zip(exact).all(close), "{device}: {:?}", values(file, name));
        }
        let length = u64::from_le_bytes(first[..8].try_into().unwrap());
        assert_eq!((8 + length) % 8, 0, "data begins where every type may");
        let order: Vec<String> = header(&first).keys().cloned().collect();
        assert_eq!(order, ["mask", "h", "f"]);
        let index = fs::read_to_string(format!("{out}/{INDEX}")).unwrap();
        assert_eq!(index, String::from_utf8(text.clone()).unwrap().replace(": 13", ": 21"));
        fs::remove_dir_all(&out).unwrap();
        // Nothing to widen: byte for byte, metadata and all.
        let plain = folder.write("plain", &cli::awkward());
        let same = folder.write("same", &f32_file(&[("a", &[0.5])]));
        for (input, kept) in [(&same, true), (&plain, false)] {
            let to = folder.path("to");
            json(
                &["clip", input, "--max-norm", "inf", "--out-type", "f32", "--out", &to, "--device", &device],
                0,
            );
            assert_eq!(fs::read(&to).unwrap() == fs::read(input).unwrap(), kept);
            assert_eq!(
                header(&fs::read(&to).unwrap()).get("__metadata__"),
                header(&fs::read(input).unwrap()).get("__metadata__")
            );
        }
    }
}

fn header(file: &[u8]) -> serde_json::Map<String, Value> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    serde_json::from_slice(&file[8..8 + length]).unwrap()
}

// ---------------------------------------------------------------- standard input and output

#[test]
fn standard_input_and_output_are_files_too() {
    let bytes = f32_file(&[("a", &[3.0, 4.0])]);
    for device in devices() {
        let clip = ["clip", "-", "--max-norm", "1", "--device", &device];
        let output = gradclip_fed(&[&clip[..], &["--out", "-"]].concat(), &bytes);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(values(&output.stdout, "a"), [f64::from(0.6f32), f64::from(0.8f32)], "{device}");
        assert!(stderr(&output).contains("norm after"), "{}", stderr(&output));
        let output = gradclip_fed(&[&clip[..], &["--out", "-", "--json"]].concat(), &bytes);
        let report: Value = serde_json::from_str(stderr(&output).lines().last().unwrap()).unwrap();
        assert_eq!((values(&output.stdout, "a").len(), &report["norm"]), (2, &5.0.into()));
        // Non-finite: no byte of a file.
        let output = gradclip_fed(&[&clip[..], &["--out", "-"]].concat(), &f32_file(&[("a", &[f32::NAN])]));
        assert!(code(&output) == 3 && output.stdout.is_empty());
    }
    let folder = Folder::new();
    let out = folder.path("out");
    let output = gradclip_fed(&["clip", "-", "--max-norm", "inf", "--device", "cpu", "--out", &out], &bytes);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(fs::read(&out).unwrap() == bytes);
    for (bytes, says) in [(&b""[..], "0 bytes"), (b"{}", "seems to be JSON")] {
        let output = gradclip_fed(&["norm", "-", "--device", "cpu"], bytes);
        assert!(code(&output) == 2 && stderr(&output).contains(says), "{}", stderr(&output));
        assert!(stderr(&output).contains("`standard input`"));
    }
    // One file only.
    let index = shards(&folder);
    let (a, b) = (folder.path("in/one.safetensors"), folder.path("in/two.safetensors"));
    for inputs in [&[index.as_str()][..], &[&a, &b]] {
        let error =
            refused(&[&["clip"], inputs, &["--max-norm", "1", "--device", "cpu", "--out", "-"]].concat());
        assert!(error.contains("--out -") && error.contains("expected one INPUT that is a file"), "{error}");
    }
    let output = gradclip_fed(
        &["clip", "-", &a, "--max-norm", "1", "--device", "cpu", "--out", &folder.path("set")],
        &f32_file(&[("x", &[1.0])]),
    );
    assert!(
        code(&output) == 2 && stderr(&output).contains("no name to be written under"),
        "{}",
        stderr(&output)
    );
    assert!(stdout(&output).is_empty());
}

// ---------------------------------------------------------------- folders

#[test]
fn a_folder_appears_as_a_whole_and_keeps_what_else_it_holds() {
    let folder = Folder::new();
    let input = shards(&folder);
    let clip = |out: &str, more: &[&str]| {
        gradclip(&[&["clip", &input, "--max-norm", "1", "--device", "cpu", "--out", out], more].concat())
    };
    let all = ["model.safetensors.index.json", "one.safetensors", "two.safetensors"];
    let (new, empty, full) = (folder.path("new"), folder.path("empty"), folder.path("full"));
    fs::create_dir(&empty).unwrap();
    for name in ["full/config.json", "full/deep/down/readme", "full/one.safetensors"] {
        folder.write(name, b"old");
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere", folder.path("full/link")).unwrap();
    for out in [&new, &empty, &full, &new] {
        let output = clip(out, &[]);
        assert_eq!(code(&output), 0, "{out}: {}", stderr(&output));
        assert!(stdout(&output).contains(out.as_str()));
        let mut found = entries(out);
        if *out == full {
            assert_eq!(fs::read(folder.path("full/deep/down/readme")).unwrap(), b"old");
            assert_eq!(fs::read(folder.path("full/config.json")).unwrap(), b"old");
            #[cfg(unix)]
            assert!(fs::symlink_metadata(folder.path("full/link")).unwrap().is_symlink());
            found.retain(|name| !["config.json", "deep", "link"].contains(&name.as_str()));
        }
        assert_eq!(found, all, "{out}");
        let b = values(&fs::read(format!("{out}/one.safetensors")).unwrap(), "b");
        assert!((b[0] - 12.0 / 13.0).abs() < 1e-7, "{out}");
    }
    // In place.
    let own = folder.path("in");
    assert_eq!(code(&clip(&own, &[])), 0);
    let again = json(&["norm", &input, "--device", "cpu"], 0);
    assert!((norm(&again["norm"]) - 1.0).abs() < tolerance::NORM_AFTER, "{again}");
    // Non-finite: everything stays.
    folder.write("in/one.safetensors", &f32_file(&[("b", &[f32::NAN])]));
    let before = fs::read(format!("{new}/two.safetensors")).unwrap();
    assert_eq!(code(&clip(&new, &[])), 3);
    assert!(fs::read(format!("{new}/two.safetensors")).unwrap() == before);
    let mut left = folder.names();
    left.sort();
    assert_eq!(left, ["empty", "full", "in", "new"], "temporary folders are left");
}

#[test]
fn folders_that_cannot_be_replaced_are_refused_before_any_work() {
    let folder = Folder::new();
    let input = shards(&folder);
    let says = |inputs: &[&str], out: &str, word: &str| {
        let error =
            refused(&[&["clip"], inputs, &["--max-norm", "1", "--device", "cpu", "--out", out]].concat());
        assert!(error.contains("--out") && error.contains(word), "{out}: {error}");
    };
    let file = folder.write("file", b"");
    says(&[&input], &file, "something other than a folder");
    says(&[&input], &folder.path("missing/out"), "No such file");
    says(&[&input], "/", "no name");
    folder.write("taken/one.safetensors/x", b"");
    says(&[&input], &folder.path("taken"), "`one.safetensors` in it is a folder");
    // The current folder, by any name, and whatever holds it.
    let inside = folder.path("in");
    for out in [".", "..", inside.as_str()] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_gradclip"))
            .current_dir(&inside)
            .args(["clip", INDEX, "--max-norm", "1", "--device", "cpu", "--out", out])
            .output()
            .unwrap();
        assert!(
            code(&output) == 2 && stderr(&output).contains("current folder"),
            "{out}: {}",
            stderr(&output)
        );
    }
    // Names that would fall together.
    let (a, b) =
        (folder.write("x/g", &f32_file(&[("a", &[1.0])])), folder.write("y/g", &f32_file(&[("b", &[1.0])])));
    says(&[&a, &b], &folder.path("out"), "would both be written as `g`");
    let mut left = folder.names();
    left.sort();
    assert_eq!(left, ["file", "in", "taken", "x", "y"]);
}

#[cfg(unix)]
#[test]
fn a_folder_keeps_its_permissions_and_other_files_their_inodes() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let folder = Folder::new();
    let input = shards(&folder);
    let other = folder.write("out/sub/other", b"x");
    fs::set_permissions(folder.path("out"), fs::Permissions::from_mode(0o750)).unwrap();
    let inode = fs::metadata(&other).unwrap().ino();
    let args = ["clip", &input, "--max-norm", "1", "--device", "cpu", "--out", &folder.path("out")];
    assert_eq!(code(&gradclip(&args)), 0);
    assert_eq!(fs::metadata(&other).unwrap().ino(), inode);
    assert_eq!(fs::metadata(folder.path("out")).unwrap().permissions().mode() & 0o777, 0o750);
    let new = folder.path("new");
    let args = ["clip", &input, "--max-norm", "1", "--device", "cpu", "--out", &new];
    assert_eq!(code(&gradclip(&args)), 0);
    fs::create_dir(folder.path("plain")).unwrap();
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&new), mode(&folder.path("plain")), "as private as any new folder");
}

/// `tests/kill_shards.sh` does the same with larger shards and 200 kills.
#[cfg(target_os = "linux")]
#[test]
fn a_set_killed_while_it_is_written_is_old_or_new() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kill_shards.sh");
    let output = std::process::Command::new("bash")
        .arg(script)
        .args(["20", "4"])
        .env("GRADCLIP", env!("CARGO_BIN_EXE_gradclip"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("neither 0"), "{}", stdout(&output));
}
