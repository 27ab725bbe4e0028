//! Every file of Rust under tests/ and benches/, of each package, belongs to a program that cargo builds.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files of Rust in a folder, and in those below it.
fn files_below(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(path);
        }
    }
}

/// The file of `mod name;` that stands in `file`: folder a root or a `mod.rs`, else in the folder of the file's name.
fn module_file(file: &Path, root: bool, name: &str) -> PathBuf {
    let folder = file.parent().unwrap();
    let folder = match root || file.ends_with("mod.rs") {
        true => folder.to_owned(),
        false => folder.join(file.file_stem().unwrap()),
    };
    let flat = folder.join(format!("{name}.rs"));
    if flat.exists() { flat } else { folder.join(name).join("mod.rs") }
}

/// `a/b/../c` as `a/c`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part.as_os_str() == ".." {
            true => assert!(plain.pop()),
            false => plain.push(part),
        }
    }
    plain
}

/// Takes away a file and the modules that it declares.
fn take(file: &Path, root: bool, left: &mut BTreeSet<PathBuf>) {
    left.remove(file);
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut path = None;
    for line in text.lines().map(str::trim) {
        if let Some(named) = line.strip_prefix("#[path = \"") {
            path = named.split('"').next().map(|named| plain(&file.parent().unwrap().join(named)));
        }
        let declared = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ").strip_prefix("mod ");
        if let Some(name) = declared.and_then(|rest| rest.strip_suffix(';')) {
            let module = path.take().unwrap_or_else(|| module_file(file, root, name));
            take(&module, false, left);
        }
    }
}

#[test]
fn every_file_is_compiled() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    for package in ["", "gradclip-cli", "gradclip-verify", "gradclip-burn", "gradclip-web"] {
        for folder in ["tests", "benches"].map(|folder| home.join(package).join(folder)) {
            let mut left = BTreeSet::new();
            files_below(&folder, &mut left);
            // Cargo builds a program of each file next to the others, and of each folder with a `main.rs`.
            let roots: Vec<PathBuf> = left
                .iter()
                .filter(|file| file.parent() == Some(&folder) || file.ends_with("main.rs"))
                .cloned()
                .collect();
            roots.iter().for_each(|root| take(root, true, &mut left));
            assert!(left.is_empty(), "no program has {left:?}");
        }
    }
}
