//! The registry: [`TABLE`](table::TABLE) has a row per kernel, with all that is known of it. A further kernel takes a
//! row there, its variant here, and its WGSL in `shaders/`.

/// Files of `shaders/` by their stems.
macro_rules! wgsl {
    ($($stem:literal),+ $(,)?) => {
        &[$($crate::kernels::File {
            stem: $stem,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $stem, ".wgsl")),
        }),+]
    };
}

mod finish;
mod form;
pub mod listing;
mod parts;
mod table;
mod text;

use crate::clip::Kind;
use crate::grad::DType;
use crate::plan::Pattern;

pub(crate) use form::{FORMS, Form, Loads};
use table::{Norms, Row, Tables};

/// A kernel: the place of its row in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    Reduce,
    ReduceShort,
    ReduceUnits,
    Partials,
    Sums,
    Threshold,
    Coefficient,
    Finish,
    ReduceFinish,
    Apply,
    ApplyUnits,
    Seams,
    Advance,
    UpdateSgd,
    UpdateMomentum,
    UpdateAdam,
    Accumulate,
}

/// What a kernel is compiled for. Kernels that read no gradients ignore `dtype` and `slots`, all but those whose row
/// names rules ignore `adapt`, all but the joint ones ignore `pattern`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub(crate) kernel: Kernel,
    pub(crate) kind: Kind,
    pub(crate) dtype: DType,
    pub(crate) slots: u32,
    pub(crate) workgroup_size: u32,
    /// One of the `ADAPT_` constants.
    pub(crate) adapt: u32,
    /// Where what belongs to a gradient is bound.
    pub(crate) pattern: Pattern,
    /// Whether the unscale factor depends on a loss scale, for kernels that reduce gradients.
    pub(crate) scaled: bool,
    /// For kernels that take whole chunks.
    pub(crate) form: Form,
    /// Whether loss scale or optimiser follow, for kernels that finish.
    pub(crate) advances: bool,
}

/// How a buffer of bind group 0 is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    Uniform,
    Read,
    ReadWrite,
}

/// A file of `shaders/`.
#[derive(Clone, Copy, Debug)]
struct File {
    /// Its path without the ending.
    stem: &'static str,
    text: &'static str,
}

impl Kernel {
    fn row(self) -> &'static Row {
        &table::TABLE[self as usize]
    }

    /// Stem of the file in `shaders/`; also the debug label.
    pub(crate) fn stem(self) -> &'static str {
        self.row().stem
    }

    /// Name of the entry point.
    pub(crate) fn entry(self) -> &'static str {
        self.row().entry
    }

    /// Whether its text depends on the norm.
    pub(crate) fn has_norm(self) -> bool {
        self.row().norms != Norms::Same
    }

    /// Whether its text depends on the rule of thresholds that adapt.
    pub(crate) fn has_rule(self) -> bool {
        !self.row().rules.is_empty()
    }

    /// Whether it works on gradients together with what belongs to them.
    fn is_joint(self) -> bool {
        self.row().roles > 1
    }

    /// How the gradients in group 1 are bound, for kernels that touch them.
    pub(crate) fn slots(self) -> Option<Binding> {
        self.row().slots
    }

    /// Whether it reads gradients chunk by chunk.
    pub(crate) fn reduces(self) -> bool {
        self.slots() == Some(Binding::Read)
    }

    /// Whether it does what lies between partials and gradients.
    pub(crate) fn finishes(self) -> bool {
        self.row().finishes
    }

    /// Whether it leaves out segments from `Job::until` on.
    pub(crate) fn leaves_out(self) -> bool {
        self.row().leaves_out
    }

    /// The form in which it exists nearest to the one wanted.
    pub(crate) fn form(self, kind: Kind, wanted: Form) -> Form {
        (self.row().form)(kind, wanted)
    }

    /// Rows that a workgroup of this size takes.
    pub(crate) fn rows_each(self, workgroup_size: u32) -> u32 {
        (self.row().rows_each)(workgroup_size)
    }

    /// Whether wgpu's checks of indices and loops can be left out: the argument of `gpu/trusted.rs` holds for it.
    pub(crate) fn needs_no_checks(self) -> bool {
        self.row().needs_no_checks == Some(self)
    }
}

impl Variant {
    /// The bindings of group 0 in order.
    pub(crate) fn bindings(&self) -> Vec<Binding> {
        match self.kernel.row().tables {
            Tables::Same(all) => all.to_vec(),
            Tables::Of(of) => of(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

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

    #[test]
    fn every_file_is_part_of_a_kernel_and_none_is_so_twice() {
        let (mut used, mut texts) = (BTreeSet::new(), BTreeMap::new());
        for variant in listing::every(256, &[1]) {
            let mut met = BTreeSet::new();
            for File { stem, text } in variant.parts() {
                assert!(met.insert(stem), "{stem} twice in {variant:?}");
                assert_eq!(*texts.entry(text).or_insert(stem), stem, "two files with one text");
                used.insert(stem.to_owned());
            }
        }
        for row in table::TABLE {
            assert!(used.contains(row.stem), "{}", row.stem);
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
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
