//! A sharded checkpoint of gradients: files in memory, and what is written in their places.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use gradclip_mpi::Piece;
use gradclip_mpi::gradclip::DType;
use safetensors::{Dtype, SafeTensors};

use crate::Result;

/// A file in memory, and the floating-point tensors in it.
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) tensors: Vec<Tensor>,
}

pub(crate) struct Tensor {
    pub(crate) name: String,
    /// Where it lies in the file.
    pub(crate) range: Range<usize>,
    pub(crate) dtype: DType,
}

impl Tensor {
    pub(crate) fn elements(&self) -> u64 {
        self.range.len() as u64 / if self.dtype == DType::F32 { 4 } else { 2 }
    }

    pub(crate) fn piece(&self) -> Piece {
        Piece::whole(&*self.name, self.elements()).dtype(self.dtype)
    }
}

/// The files that an index names, in the order of their names.
pub(crate) fn files(index: &Path) -> Result<Vec<String>> {
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", index.display());
    let text = std::fs::read(index).map_err(|e| told(&e))?;
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(|e| told(&e))?;
    let map = json["weight_map"].as_object().ok_or_else(|| told(&"required a `weight_map`, given none"))?;
    let names: Option<BTreeSet<String>> = map.values().map(|name| name.as_str().map(str::to_owned)).collect();
    let names = names.ok_or_else(|| told(&"required names of files in `weight_map`"))?;
    match names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        Some(name) => Err(told(&format!("required files beside it, given `{}`", name.escape_debug())).into()),
        None => Ok(names.into_iter().collect()),
    }
}

pub(crate) fn read(folder: &Path, name: &str) -> Result<File> {
    let path = folder.join(name);
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let bytes = std::fs::read(&path).map_err(|e| told(&e))?;
    // The whole file is checked before any of it is taken.
    SafeTensors::deserialize(&bytes).map_err(|e| told(&e))?;
    let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| told(&e))?;
    let begin = size_of::<u64>() + header;
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::Bf16,
            other if counts(other) => continue,
            other => {
                let name = name.escape_debug();
                let words = format!("tensor `{name}`: required F32, F16 or BF16, given {other:?}");
                return Err(told(&words).into());
            }
        };
        let range = begin + info.data_offsets.0..begin + info.data_offsets.1;
        tensors.push(Tensor { name, range, dtype });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(File { name: name.to_owned(), bytes, tensors })
}

/// What counts steps or holds flags is no gradient, and stays as it is.
fn counts(dtype: Dtype) -> bool {
    let wide = matches!(dtype, Dtype::I32 | Dtype::U32 | Dtype::I64 | Dtype::U64);
    wide || matches!(dtype, Dtype::BOOL | Dtype::U8 | Dtype::I8 | Dtype::I16 | Dtype::U16)
}

/// Files beside their places, which are gone again unless they are put there.
pub(crate) struct Written {
    files: Vec<(PathBuf, PathBuf)>,
}

impl Written {
    pub(crate) fn new(out: &Path, files: &[File]) -> Result<Written> {
        std::fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
        let mut written = Written { files: Vec::new() };
        for file in files {
            let (beside, to) = (out.join(format!(".{}.part", file.name)), out.join(&file.name));
            written.files.push((beside.clone(), to));
            std::fs::write(&beside, &file.bytes).map_err(|e| format!("{}: {e}", beside.display()))?;
        }
        Ok(written)
    }

    pub(crate) fn put(mut self) -> Result<()> {
        while let Some((from, to)) = self.files.pop() {
            std::fs::rename(&from, &to).map_err(|e| format!("{}: {e}", to.display()))?;
        }
        Ok(())
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // One that is not there was never written.
        self.files.iter().for_each(|(beside, _)| drop(std::fs::remove_file(beside)));
    }
}
