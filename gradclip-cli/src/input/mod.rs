//! Inputs: safetensors files, indexes of shards, standard input. Everything that was named is one set.

mod dtype;
mod elements;
mod header;
mod index;
mod kind;
mod open;
mod params;
mod source;
mod spill;
mod strict;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub(crate) use dtype::{Class, Float, GRADIENTS};
pub(crate) use elements::Elements;
pub(crate) use header::{Header, PREFIX, fields};
pub(crate) use index::{Index, is_index};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use open::{Opened, opened};
pub(crate) use params::Parameters;
pub(crate) use source::{Files, STANDARD, Source, shown, wrong};

use spill::Spill;

use crate::failure::Failure;
use crate::text;

/// One gradient set: the tensors of some files, in the order of files and headers.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) files: Vec<Shard>,
    /// Kept, and written beside the files.
    pub(crate) indexes: Vec<Index>,
    /// What is clipped.
    pub(crate) gradients: Vec<Gradient>,
    /// Other names of tensors, by those names, as `__metadata__` gives them.
    aliases: HashMap<String, String>,
}

/// A file of a set.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    /// Its name in a folder of results, which is that in its index where it has one.
    pub(crate) name: PathBuf,
    /// Which index names it.
    pub(crate) index: Option<usize>,
    pub(crate) header: Header,
    source: Source,
    /// Copies of tensors that cannot be read where they lie.
    spill: OnceCell<Option<Spill>>,
}

/// A tensor to clip.
#[derive(Clone, Debug)]
pub(crate) struct Gradient {
    pub(crate) name: String,
    /// The name as it can stand in a line.
    pub(crate) shown: String,
    pub(crate) float: Float,
    pub(crate) shape: Vec<u64>,
    pub(crate) file: usize,
    /// Its place in the file's header.
    pub(crate) entry: usize,
}

impl Shard {
    /// Length and header, as they are in the file.
    pub(crate) fn head(&self) -> &[u8] {
        &self.source[..self.header.data]
    }

    /// The bytes of a tensor.
    pub(crate) fn tensor(&self, entry: usize) -> &[u8] {
        let copied = self.spill.get().and_then(Option::as_ref).and_then(|spill| spill.tensor(entry));
        copied.unwrap_or_else(|| &self.source[self.header.range(entry)])
    }
}

impl Set {
    /// The bytes of a gradient.
    pub(crate) fn bytes(&self, gradient: &Gradient) -> &[u8] {
        self.files[gradient.file].tensor(gradient.entry)
    }

    /// Lets large gradients be read in place, wherever their files have them.
    pub(crate) fn align(&self) -> Result<(), Failure> {
        for (i, file) in self.files.iter().enumerate() {
            let own: Vec<&Gradient> = self.gradients.iter().filter(|gradient| gradient.file == i).collect();
            let spill = Spill::of(file, &own).map_err(|error| {
                let why = "its tensors lie at odd addresses and have to be copied to a temporary file";
                wrong(
                    "INPUT",
                    &file.path,
                    format!("{why}, which failed ({error}); TMPDIR may name another folder"),
                )
            })?;
            // Once is enough.
            let _ = file.spill.set(spill);
        }
        Ok(())
    }

    /// The first gradient of doubles, which adapters do not have.
    pub(crate) fn double(&self) -> Option<&Gradient> {
        self.gradients.iter().find(|gradient| gradient.float == Float::F64)
    }

    /// All names of each gradient: its own, and those that `__metadata__` gives it besides.
    pub(crate) fn names(&self) -> Vec<Vec<&str>> {
        let mut others: HashMap<&str, Vec<&str>> = HashMap::new();
        for (alias, kept) in &self.aliases {
            others.entry(kept).or_default().push(alias);
        }
        let all = |gradient: &'_ Gradient| {
            others.get(gradient.name.as_str()).into_iter().flatten().copied().collect::<Vec<&str>>()
        };
        self.gradients
            .iter()
            .map(|gradient| std::iter::once(gradient.name.as_str()).chain(all(gradient)).collect())
            .collect()
    }

    /// How the set is called in a line.
    pub(crate) fn shown(&self) -> String {
        let one = |path: &Path| shown(path);
        match (self.files.as_slice(), self.indexes.as_slice()) {
            (_, [index]) if self.files.iter().all(|file| file.index.is_some()) => one(&index.path),
            ([file], _) => one(&file.path),
            (files, _) => text::counted(files.len() as u64, "file"),
        }
    }
}

#[cfg(test)]
mod tests;
