//! What the command line says of files that are something else, and of names that are hostile.

#![allow(clippy::unwrap_used)]

#[path = "common/cli.rs"]
mod cli;

use cli::{Folder, code, f32_file, file, floats, gradclip, json, refused, stderr, stdout};

/// Files that people give by mistake, by their first bytes.
#[test]
fn files_are_named_for_what_they_seem_to_be() {
    let zip =
        |name: &str| [b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", name.as_bytes()].concat();
    let index =
        br#"{"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}"#;
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("index.json", index.to_vec(), &["an index of shards", ".safetensors.index.json"]),
        ("config.json", br#"{"hidden_size": 768}"#.to_vec(), &["seems to be JSON"]),
        (
            "old.pt",
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec(),
            &["pickle", "safetensors.torch.save_file"],
        ),
        ("new.pkl", b"\x80\x04\x95\x1f\0\0\0\0\0\0\0}\x94.".to_vec(), &["pickle"]),
        ("new.pt", zip("archive/data.pkl"), &["PyTorch", "torch.load"]),
        ("some.npz", zip("arr_0.npy"), &[".npz", "safetensors.numpy.save_file"]),
        ("some.zip", zip("readme"), &["zip archive"]),
        ("model.gguf", b"GGUF\x03\0\0\0\x23\x01\0\0\0\0\0\0".to_vec(), &["GGUF"]),
        ("a.npy", b"\x93NUMPY\x01\0v\0{'descr'".to_vec(), &[".npy"]),
        ("a.h5", b"\x89HDF\r\n\x1a\n\0\0\0\0".to_vec(), &["HDF5"]),
        ("norms.txt", b"0.5\n1.25\n".to_vec(), &["plain text"]),
        ("page.html", b"<!DOCTYPE html>\n<html lang=en>".to_vec(), &["web page"]),
        (
            "pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n".to_vec(),
            &["Git LFS pointer", "git lfs pull"],
        ),
        ("a.tar.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(), &["gzip"]),
        ("empty disk", vec![0; 4096], &["zeros"]),
    ];
    let folder = Folder::new();
    for (name, bytes, words) in cases {
        let input = folder.write(name, &bytes);
        for args in [
            &["norm", &input, "--device", "cpu"][..],
            &["clip", &input, "--max-norm", "1", "--device", "cpu"],
        ] {
            let error = refused(args);
            assert!(error.contains(&input), "{error}");
            assert!(words.iter().all(|word| error.contains(word)), "{name}: {error}");
            assert!(!error.contains("header should have"), "{error}");
        }
    }
    // A header that is broken stays one.
    let broken = folder.write("broken", &file(r#"{"a":"#, b""));
    assert!(refused(&["norm", &broken]).contains("its header is not the JSON of one"));
}

/// The same words every time, though names are kept in maps that have no order.
#[test]
fn the_same_words_every_run() {
    let folder = Folder::new();
    let entry = |name: &str, from: usize, to: usize| {
        format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{from},{to}]}}"#, to - from)
    };
    let same: Vec<String> = (0..20).map(|i| entry(&format!("t{i}"), 0, 4)).collect();
    let late: Vec<String> = (0..20).map(|i| entry(&format!("t{i}"), i * 4, i * 4 + 4)).collect();
    for (entries, data, says) in [
        (&same, 4, "tensor `t1` begins at byte 0 of the data, inside tensor `t0`"),
        (&late, 10, "tensor `t2` ends at byte 12 of the data, which has 10 bytes"),
    ] {
        let input = folder.write("in", &file(&format!("{{{}}}", entries.join(",")), &vec![0; data]));
        for _ in 0..8 {
            let error = refused(&["norm", &input, "--device", "cpu"]);
            assert!(error.contains(says), "{error}");
        }
    }
}

/// Names break no lines, turn no direction and reach no terminal, whatever is said of them; JSON keeps them.
#[test]
fn names_are_escaped_everywhere_but_in_json() {
    let folder = Folder::new();
    let (evil, shown) =
        ("\u{1b}[31mred\u{1b}[0m\n \u{202e}evil\u{9b}", r"\u{1b}[31mred\u{1b}[0m\n \u{202e}evil\u{9b}");
    let written = serde_json::Value::from(evil).to_string();
    let of = |dtype: &str, data: &[u8]| {
        let size = data.len();
        let elements = size / if dtype == "F32" { 4 } else { 1 };
        file(
            &format!(r#"{{{written}:{{"dtype":"{dtype}","shape":[{elements}],"data_offsets":[0,{size}]}}}}"#),
            data,
        )
    };
    let clean = |text: &str| !text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}');
    let cpu = ["--device", "cpu"];
    let f8 = folder.write("f8", &of("F8_E4M3", &[0]));
    let bad = folder.write("bad", &of("F32", &floats(&[f32::NAN])));
    let good = folder.write("good", &of("F32", &floats(&[3.0, 4.0])));
    let other = folder.write("other", &f32_file(&[("x", &[1.0])]));
    let (twice, holes) = (
        folder.write("twice", &file(&format!("{{{written}:1,{written}:2}}"), b"")),
        folder.write(
            "holes",
            &file(&format!(r#"{{{written}:{{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}}}"#), b"xx"),
        ),
    );
    let copy = folder.write("copy", &of("F32", &floats(&[3.0, 4.0])));
    for args in [
        &["norm", &f8][..],
        &["norm", &twice],
        &["norm", &holes],
        &["norm", &good, &copy],
        &["clip", &good, "--agc", "1", "--params", &other],
        &["clip", &good, "--max-norm", "1", "--group", "*=1", "--group", "*red*=2"],
    ] {
        let error = refused(&[args, &cpu].concat());
        assert!(error.contains(shown) && clean(&error), "{error}");
    }
    let args = [&["clip", &bad, "--max-norm", "1"], &cpu[..]].concat();
    let output = gradclip(&args);
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).contains(shown) && stderr(&output).lines().count() == 1, "{}", stderr(&output));
    // The table has room for the end of a name.
    assert!(stdout(&output).contains(r"evil\u{9b}`") && clean(&stdout(&output)), "{}", stdout(&output));
    assert_eq!(json(&args, 3)["first_non_finite"], evil);
    assert_eq!(json(&[&["norm", &good], &cpu[..]].concat(), 0)["tensors"][0]["name"], evil);
    let text = stdout(&gradclip(&[&["norm", &good], &cpu[..]].concat()));
    assert!(text.contains("evil") && clean(&text), "{text}");
    // A file's own name.
    let path = folder.write("a\nb", b"text");
    let error = refused(&["norm", &path]);
    assert!(error.contains(r"a\nb"), "{error}");
}
