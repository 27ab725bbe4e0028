//! The registry: [`TABLE`](table::TABLE) has a row per kernel, with all that is known of it. A further kernel takes a
//! row there, its variant in `kernel.rs`, and its WGSL in `shaders/`.

/// Files of `shaders/` by their stems.
macro_rules! wgsl {
    ($($stem:literal),+ $(,)?) => {
        &[$($crate::kernels::kernel::File {
            stem: $stem,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $stem, ".wgsl")),
        }),+]
    };
}

mod base;
mod finish;
mod form;
mod kernel;
mod known;
pub mod listing;
mod parts;
mod row;
mod table;
mod text;
mod variant;

pub(crate) use form::{Form, Loads};
pub(crate) use kernel::{Binding, Kernel};
pub(crate) use variant::Variant;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use naga::valid::{Capabilities, ValidationFlags, Validator};

    use super::*;

    #[test]
    fn every_variant_is_valid_wgsl_without_extensions() {
        for variant in listing::every(256, &[1, 3]) {
            let source = variant.source();
            let module = naga::front::wgsl::parse_str(&source)
                .unwrap_or_else(|error| panic!("{}", error.emit_to_string(&source)));
            let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
            assert!(validator.validate(&module).is_ok(), "{variant:?}");
            assert!(module.entry_points.iter().any(|e| e.name == variant.kernel.entry()));
        }
    }

    #[test]
    fn every_row_stands_where_its_kernel_points() {
        for (place, row) in table::TABLE.iter().enumerate() {
            assert_eq!(row.kernel as usize, place, "{}", row.stem);
        }
        let stems: BTreeSet<_> = table::TABLE.iter().map(|row| row.stem).collect();
        assert_eq!(stems.len(), table::TABLE.len(), "{stems:?}");
    }

    // There are no files in WebAssembly.
    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn every_file_is_part_of_a_kernel_and_none_is_so_twice() {
        let (mut used, mut texts) = (BTreeSet::new(), std::collections::BTreeMap::new());
        for variant in listing::every(256, &[1]) {
            let mut met = BTreeSet::new();
            for super::kernel::File { stem, text } in variant.parts() {
                assert!(met.insert(stem), "{stem} twice in {variant:?}");
                assert_eq!(*texts.entry(text).or_insert(stem), stem, "two files with one text");
                used.insert(stem.to_owned());
            }
        }
        for row in table::TABLE {
            assert!(used.contains(row.stem), "{}", row.stem);
        }
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
        let mut there = BTreeSet::new();
        for folder in ["", "shared/"] {
            for file in root.join(folder).read_dir().unwrap() {
                let path = file.unwrap().path();
                if path.is_file() {
                    let stem = path.file_stem().unwrap().to_str().unwrap();
                    there.insert(format!("{folder}{stem}"));
                }
            }
        }
        assert_eq!(used, there);
    }
}
