//! Safetensors files: read whole, written with the same header and layout.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use gradclip::cpu::GradMut;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use crate::failure::Failure;
use crate::tensor::{Data, Element, Tensor};

/// Bytes of the length in front of the header.
const PREFIX: usize = 8;

/// The tensors of a file in the order in which its header names them.
#[derive(Debug)]
pub(crate) struct GradientFile {
    /// Length and header, as they were.
    head: Vec<u8>,
    pub(crate) tensors: Vec<Tensor>,
    /// Tensors by their place in the data.
    layout: Vec<usize>,
}

impl GradientFile {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<GradientFile, Failure> {
        let wrong = |problem: String| {
            let path = path.display();
            Failure::Usage(format!("INPUT `{path}`: expected a whole safetensors file, but {problem}"))
        };
        let io = |error: io::Error| wrong(error.to_string());
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(wrong("it is not a regular file".into()));
        }
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length < PREFIX as u64 {
            return Err(wrong(format!("it has {length} bytes and even the header's length takes {PREFIX}")));
        }
        // SAFETY: the mapping is private, read-only and dropped at the end of this function, which
        // copies out of it. Whoever writes to the file meanwhile can change the bytes read or have
        // this process killed, but bytes are all they are taken for here until they are copied.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        GradientFile::parse(&bytes).map_err(wrong)
    }

    fn parse(bytes: &[u8]) -> Result<GradientFile, String> {
        let entries = entries(bytes)?;
        let parsed = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let mut tensors = Vec::with_capacity(entries.len());
        let mut places = Vec::with_capacity(entries.len());
        for name in entries.keys().filter(|name| *name != "__metadata__") {
            let view = parsed.tensor(name).map_err(|error| error.to_string())?;
            let element = match view.dtype() {
                Dtype::F32 => Element::F32,
                Dtype::F16 => Element::F16,
                Dtype::BF16 => Element::Bf16,
                other => {
                    return Err(format!("tensor `{name}` is {other}; gradients may be F32, F16 or BF16"));
                }
            };
            places.push((view.data().as_ptr() as usize, view.data().len()));
            tensors.push(Tensor { name: name.clone(), data: Data::from_bytes(element, view.data()) });
        }
        let mut layout: Vec<usize> = (0..tensors.len()).collect();
        layout.sort_by_key(|&i| places[i]);
        let data: usize = tensors.iter().map(|t| t.data.bytes().len()).sum();
        Ok(GradientFile { head: bytes[..bytes.len() - data].to_vec(), tensors, layout })
    }

    pub(crate) fn grads(&mut self) -> Vec<GradMut<'_>> {
        self.tensors.iter_mut().map(Tensor::grad).collect()
    }

    fn write(&self, to: impl Write) -> io::Result<()> {
        let mut to = BufWriter::with_capacity(1 << 20, to);
        to.write_all(&self.head)?;
        for &i in &self.layout {
            to.write_all(self.tensors[i].data.bytes())?;
        }
        to.flush()
    }
}

/// The entries of the header in their order, none of which claims more than there is: safetensors
/// itself gives no order, and adds up offsets before it compares them with the file's length.
fn entries(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX>().ok_or("it is empty")?;
    let length = u64::from_le_bytes(*prefix);
    let header = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let header = header
        .ok_or_else(|| format!("its header should have {length} bytes and only {} follow", rest.len()))?;
    let entries: Map<String, Value> =
        serde_json::from_slice(header).map_err(|error| format!("its header is not JSON: {error}"))?;
    let data = (rest.len() - header.len()) as u64;
    for (name, entry) in &entries {
        if let Some(end) = entry.get("data_offsets").and_then(|o| o.get(1)).and_then(Value::as_u64)
            && end > data
        {
            return Err(format!("tensor `{name}` ends at byte {end} of the data, which has {data} bytes"));
        }
    }
    Ok(entries)
}

/// A file on its way: a temporary one in the same folder, renamed when it is complete.
#[derive(Debug)]
pub(crate) struct Output {
    temporary: NamedTempFile,
    path: PathBuf,
}

impl Output {
    /// Makes sure, before any work is done, that the file can be written.
    pub(crate) fn prepare(path: &Path) -> Result<Output, Failure> {
        // A link stays one, and its target is replaced; a device or folder must never be.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if fs::metadata(&path).is_ok_and(|m| !m.is_file()) || path.file_name().is_none() {
            return Err(unwritable(&path, "it is something other than a file"));
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".gradclip-");
        // Temporary files are private unless told otherwise, and the result is not meant to be.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(folder).map_err(|error| unwritable(&path, error))?;
        Ok(Output { temporary, path })
    }

    /// Writes the file, and gives it its name once it is whole and on the disk.
    pub(crate) fn commit(self, file: &GradientFile) -> Result<(), Failure> {
        let Output { temporary, path } = self;
        let written = file.write(temporary.as_file()).and_then(|()| temporary.as_file().sync_all());
        written.map_err(|error| unwritable(&path, error))?;
        temporary.persist(&path).map_err(|error| unwritable(&path, error.error))?;
        Ok(())
    }
}

fn unwritable(path: &Path, problem: impl std::fmt::Display) -> Failure {
    let path = path.display();
    Failure::Usage(format!("--out `{path}`: expected a file that can be written, but {problem}"))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
