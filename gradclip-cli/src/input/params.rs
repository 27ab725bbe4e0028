//! `--params`: the parameters that the gradients of a set belong to.

use std::collections::HashMap;
use std::path::PathBuf;

use super::dtype::Class;
use super::source::{Files, STANDARD, shown, wrong};
use super::{Elements, Float, GRADIENTS, Gradient, Set};
use crate::failure::Failure;

const ARGUMENT: &str = "--params";
/// Files that a message names.
const NAMED: usize = 3;

/// Files with parameters, and which of their tensors belong to which gradients.
#[derive(Debug)]
pub(crate) struct Parameters {
    set: Set,
    /// File, tensor and type, one a gradient; none where a gradient needs no parameters.
    places: Vec<Option<(usize, usize, Float)>>,
}

impl Parameters {
    /// Finds the parameters of the gradients that need some. Anything else in the files may be of any type, as
    /// the counters in a model's checkpoint are.
    pub(crate) fn open(
        files: &Files<'_>,
        paths: &[PathBuf],
        gradients: &[Gradient],
        needed: impl Fn(usize) -> bool,
    ) -> Result<Parameters, Failure> {
        if let Some(path) = paths.iter().find(|path| path.as_os_str() == STANDARD) {
            return Err(wrong(ARGUMENT, path, "expected a file; standard input is for gradients alone"));
        }
        let set = Set::parameters(files, ARGUMENT, paths)?;
        let mut names = HashMap::new();
        for (f, file) in set.files.iter().enumerate() {
            names.extend(
                file.header.entries.iter().enumerate().map(|(e, entry)| (entry.name.as_str(), (f, e))),
            );
        }
        let one = |(i, gradient): (usize, &Gradient)| {
            if needed(i) { place(&set, &names, gradient).map(Some) } else { Ok(None) }
        };
        let places = gradients.iter().enumerate().map(one).collect::<Result<Vec<_>, Failure>>()?;
        Ok(Parameters { set, places })
    }

    /// Whether adapters do not have their type.
    pub(crate) fn double(&self) -> bool {
        self.places.iter().flatten().any(|(.., float)| *float == Float::F64)
    }

    /// The parameters of each gradient.
    pub(crate) fn elements(&self) -> Vec<Option<Elements<'_>>> {
        let one = |place: &Option<(usize, usize, Float)>| {
            place.map(|(file, entry, float)| Elements::new(float, self.set.files[file].tensor(entry)))
        };
        self.places.iter().map(one).collect()
    }
}

/// The tensor of this gradient's name, or the one that the files give this name besides its own.
fn place(
    set: &Set,
    names: &HashMap<&str, (usize, usize)>,
    gradient: &Gradient,
) -> Result<(usize, usize, Float), Failure> {
    let (name, shape) = (&gradient.shown, &gradient.shape);
    let expected = |files: String, but: String| {
        let of = format!("expected tensor `{name}` of shape {shape:?} as its gradient");
        Failure::Usage(format!("{ARGUMENT} {files}: {of}, but {but}"))
    };
    let kept = set.aliases.get(&gradient.name).unwrap_or(&gradient.name);
    let Some(&(file, i)) = names.get(kept.as_str()) else {
        let mut files: Vec<String> =
            set.files.iter().take(NAMED).map(|file| format!("`{}`", shown(&file.path))).collect();
        files.extend((set.files.len() > NAMED).then(|| "…".into()));
        return Err(expected(files.join(", "), "there is none of this name".into()));
    };
    let entry = &set.files[file].header.entries[i];
    let file_name = || format!("`{}`", shown(&set.files[file].path));
    if entry.shape != *shape {
        return Err(expected(file_name(), format!("its shape is {:?}", entry.shape)));
    }
    match entry.dtype.class {
        Class::Gradient(float) => Ok((file, i, float)),
        _ => {
            let but = format!("it is {}; parameters may be {GRADIENTS}", entry.dtype.name);
            Err(expected(file_name(), but))
        }
    }
}
