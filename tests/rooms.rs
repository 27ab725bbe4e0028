//! No module of the library imports one that ARCHITECTURE.md draws after it, and each is drawn: so there is no cycle.
//!
//! The section "The rooms" has a block of lines `folder: first, second, ...`. A module imports what stands before it in its
//! folder, and so does everything inside it; a parent stands after what is in its folder. Tests are left out.

#![allow(clippy::expect_used)]

#[path = "common/paths.rs"]
mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{read_dir, read_to_string};
use std::path::Path;

use paths::{paths, tokens, without_tests};

/// A module's path from the crate's root, whose own is empty.
type Module = Vec<String>;

/// The module that a path in `from` names, or names something of: `from` itself for paths to other crates.
fn resolved(path: &[String], from: &Module, modules: &BTreeMap<Module, String>) -> Module {
    let mut module = from.clone();
    for name in path {
        match name.as_str() {
            "crate" => module.clear(),
            "self" => {}
            "super" => drop(module.pop()),
            _ => {
                module.push(name.clone());
                if !modules.contains_key(&module) {
                    module.pop();
                    break;
                }
            }
        }
    }
    module
}

/// What breaks the order, which is of the modules in each folder; `self` is the parent of these, if not the last.
fn broken(order: &BTreeMap<Module, Vec<String>>, mut modules: BTreeMap<Module, String>) -> Vec<String> {
    let mut parsed: BTreeMap<_, _> =
        modules.iter().map(|(module, text)| (module.clone(), without_tests(&tokens(text)))).collect();
    let for_tests = |parsed: &BTreeMap<Module, (Vec<String>, BTreeSet<String>)>, module: &Module| {
        (0..module.len())
            .any(|at| parsed.get(&module[..at]).is_some_and(|(_, left_out)| left_out.contains(&module[at])))
    };
    modules.retain(|module, _| !for_tests(&parsed, module));
    parsed.retain(|module, _| modules.contains_key(module));
    let mut there: BTreeMap<Module, BTreeSet<&str>> =
        order.keys().map(|folder| (folder.clone(), BTreeSet::new())).collect();
    for (name, folder) in modules.keys().filter_map(|module| module.split_last()) {
        there.entry(folder.to_vec()).or_default().insert(name);
    }
    let mut broken = Vec::new();
    for (folder, there) in there {
        let drawn = order.get(&folder).map_or(&[][..], Vec::as_slice).iter().filter(|name| *name != "self");
        let drawn: Vec<&str> = drawn.map(String::as_str).collect();
        if drawn.len() != there.len() || BTreeSet::from_iter(drawn.iter().copied()) != there {
            broken.push(format!("src/{}: drawn {drawn:?}, there {there:?}", folder.join("/")));
        }
    }
    for (module, (tokens, _)) in &parsed {
        for path in paths(tokens) {
            let imported = resolved(&path, module, &modules);
            let shared = module.iter().zip(&imported).take_while(|(a, b)| a == b).count();
            let drawn = order.get(&module[..shared]).map_or(&[][..], Vec::as_slice);
            let place = |module: &Module| {
                let name = module.get(shared).map_or("self", String::as_str);
                drawn.iter().position(|drawn| drawn == name).unwrap_or(usize::MAX)
            };
            if imported != *module && place(&imported) >= place(module) {
                broken.push(format!("{} imports {}", module.join("::"), path.join("::")));
            }
        }
    }
    broken
}

/// The orders that the section draws.
fn drawn(architecture: &str) -> BTreeMap<Module, Vec<String>> {
    let section =
        architecture.split("\n## ").find(|section| section.starts_with("The rooms\n")).expect("a section");
    let block = section.split("```").nth(1).and_then(|block| block.strip_prefix("text\n")).expect("a block");
    let mut order = BTreeMap::new();
    for line in block.replace("\n  ", " ").lines() {
        let (folder, names) = line.split_once(':').expect("a folder");
        let folder: Module = folder.split('/').skip(1).map(str::to_owned).collect();
        let names = names.split(',').map(|name| name.trim().to_owned()).collect();
        assert_eq!(order.insert(folder, names), None, "{line}");
    }
    order
}

/// Reads the modules in a folder, which belongs to `parent`.
fn read(folder: &Path, parent: &Module, modules: &mut BTreeMap<Module, String>) {
    for entry in read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let mut module = parent.clone();
        if stem != "lib" && stem != "mod" {
            module.push(stem.to_owned());
        }
        if path.is_dir() && module != ["bin"] {
            read(&path, &module, modules);
        } else if path.is_file() {
            modules.insert(module, read_to_string(&path).expect("a text"));
        }
    }
}

#[test]
fn modules_import_what_is_drawn_before_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut modules = BTreeMap::new();
    read(&root.join("src"), &Module::new(), &mut modules);
    let order = drawn(&read_to_string(root.join("ARCHITECTURE.md")).expect("a text"));
    let broken = broken(&order, modules);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What breaks the order of a few modules, one of which has this text.
fn broken_by(path: &str, text: &str) -> Vec<String> {
    let architecture = "\n## The rooms\n\n```text\nsrc: a,\n  b\nsrc/b: c, d, self, e\n```\n";
    let module = |path: &str| path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let mut modules: BTreeMap<Module, String> = BTreeMap::new();
    for path in ["", "a", "b", "b/c", "b/d", "b/e"] {
        modules.insert(module(path), String::new());
    }
    modules.insert(module(path), text.to_owned());
    broken(&drawn(architecture), modules)
}

#[test]
fn what_breaks_the_order_is_seen() {
    for (path, fine) in [
        (
            "b/d",
            "use crate::a::{self, X as Y}; pub(in crate::b) fn f<'a>(x: &'a str) -> super::c::X { '\"'; a::f() }",
        ),
        (
            "b/c",
            "// use super::d;\n/* super::d */ const T: &str = \"super::d \\\" super::d\"; use std::{a, b::{d}};",
        ),
        (
            "b/c",
            "#[cfg(test)] mod tests { use super::super::d; fn f() { crate::b::d::f() } } #[cfg(test)] use super::d;",
        ),
        ("b", "pub use c::{X, Y}; use super::a; fn f() { d::f(); self::d::g(); e.f() }"),
        ("b/e", "use super::{X, c, d};"),
        ("", "pub use a::X; pub use b::*;"),
    ] {
        assert_eq!(broken_by(path, fine), Vec::<String>::new(), "{fine}");
    }
    for (path, text, found) in [
        ("b/c", "use crate::{a, b::{d::{X}}};", "b::c imports crate::b::d::X"),
        ("b/c", "pub(crate) use super::{d};", "b::c imports super::d"),
        ("b/c", "use super::*;", "b::c imports super::*"),
        ("b/c", "use crate::X;", "b::c imports crate::X"),
        ("b/c", "fn f() -> Vec<super::d::X> { 'x'; #[cfg(test)] g(); h() }", "b::c imports super::d::X"),
        (
            "b/c",
            "#[cfg(test)] fn f() {} fn g() { super::super::b::d::f() }",
            "b::c imports super::super::b::d::f",
        ),
        ("a", "use super::b::c::X;", "a imports super::b::c::X"),
        ("b", "use e::X;", "b imports e::X"),
        ("b", "fn f() { e::f() }", "b imports e::f"),
        ("b/f", "", r#"src/b: drawn ["c", "d", "e"], there {"c", "d", "e", "f"}"#),
    ] {
        assert_eq!(broken_by(path, text), [found], "{text}");
    }
}
