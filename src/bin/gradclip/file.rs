//! Safetensors files: read whole, written with the same header and layout.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use gradclip::cpu::GradMut;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::params::Parameters;
use crate::tensor::{Data, Element, Tensor};

/// Bytes of the length in front of the header.
const PREFIX: usize = 8;

/// The tensors of a file in the order in which its header names them.
#[derive(Debug)]
pub(crate) struct GradientFile {
    /// Length and header, as they were.
    head: Vec<u8>,
    pub(crate) tensors: Vec<Tensor>,
    /// One a tensor.
    pub(crate) shapes: Vec<Vec<u64>>,
    /// Tensors by their place in the data.
    layout: Vec<usize>,
}

impl GradientFile {
    /// Reads the file that `argument` of the command names.
    pub(crate) fn read(argument: &str, path: &Path) -> Result<GradientFile, Failure> {
        mapped(argument, path, |bytes| GradientFile::parse(bytes).map_err(broken))
    }

    fn parse(bytes: &[u8]) -> Result<GradientFile, String> {
        let (entries, parsed) = parsed(bytes)?;
        let mut tensors = Vec::with_capacity(entries.len());
        let mut shapes = Vec::with_capacity(entries.len());
        let mut places = Vec::with_capacity(entries.len());
        for name in entries.keys().filter(|name| *name != "__metadata__") {
            let view = parsed.tensor(name).map_err(|error| error.to_string())?;
            let data = data(&view)
                .ok_or_else(|| format!("tensor `{name}` is {}; gradients may be {TYPES}", view.dtype()))?;
            places.push((view.data().as_ptr() as usize, view.data().len()));
            shapes.push(view.shape().iter().map(|&n| n as u64).collect());
            tensors.push(Tensor { name: name.clone(), data });
        }
        let mut layout: Vec<usize> = (0..tensors.len()).collect();
        layout.sort_by_key(|&i| places[i]);
        let data: usize = tensors.iter().map(|t| t.data.bytes().len()).sum();
        Ok(GradientFile { head: bytes[..bytes.len() - data].to_vec(), tensors, shapes, layout })
    }

    /// The gradients to clip, with the parameters that belong to them where there are any.
    pub(crate) fn grads<'a>(&'a mut self, parameters: Option<&'a Parameters>) -> Vec<GradMut<'a>> {
        let tensors = self.tensors.iter_mut().zip(&self.shapes).enumerate();
        tensors
            .map(|(i, (tensor, shape))| {
                let grad = tensor.grad().shape(shape);
                match parameters {
                    Some(parameters) => grad.parameter(parameters.get(i)),
                    None => grad,
                }
            })
            .collect()
    }

    /// Writes what was read, with the tensors as they are now.
    pub(crate) fn write(&self, to: impl Write) -> io::Result<()> {
        let mut to = BufWriter::with_capacity(1 << 20, to);
        to.write_all(&self.head)?;
        for &i in &self.layout {
            to.write_all(self.tensors[i].data.bytes())?;
        }
        to.flush()
    }
}

/// The element types that are read, in words.
pub(crate) const TYPES: &str = "F32, F16 or BF16";

/// The elements of a tensor, `None` where they are of another type.
pub(crate) fn data(view: &TensorView<'_>) -> Option<Data> {
    let element = match view.dtype() {
        Dtype::F32 => Element::F32,
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::Bf16,
        _ => return None,
    };
    Some(Data::from_bytes(element, view.data()))
}

/// What is wrong with a file, as a sentence.
pub(crate) fn broken(problem: impl std::fmt::Display) -> String {
    format!("expected a whole safetensors file, but {problem}")
}

/// Gives a file's bytes to `read`; its error follows the names of argument and file.
pub(crate) fn mapped<T>(
    argument: &str,
    path: &Path,
    read: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<T, Failure> {
    let wrong = |problem: String| Failure::Usage(format!("{argument} `{}`: {problem}", path.display()));
    let io = |error: io::Error| wrong(broken(error));
    if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(wrong(broken("it is not a regular file")));
    }
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    if length < PREFIX as u64 {
        let short = format!("it has {length} bytes and even the header's length takes {PREFIX}");
        return Err(wrong(broken(short)));
    }
    // SAFETY: the mapping is private, read-only and dropped at the end of this function, and what
    // `read` returns cannot borrow from it. Whoever writes to the file meanwhile can change the bytes
    // read or have this process killed, but bytes are all they are taken for until they are copied.
    let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
    read(&bytes).map_err(wrong)
}

/// The header's entries in their order, and the tensors.
pub(crate) fn parsed(bytes: &[u8]) -> Result<(Map<String, Value>, SafeTensors<'_>), String> {
    let entries = entries(bytes)?;
    let parsed = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    Ok((entries, parsed))
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

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
