//! Clips a sharded checkpoint of gradients by one norm over ranks, each of which reads, clips and writes some of its files.
//!
//! ```text
//! mpirun -n 4 gradclip-mpi clip model.safetensors.index.json --max-norm 1 --out clipped
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use gradclip_mpi::gradclip::cpu::SliceMut;
use gradclip_mpi::gradclip::{Clip, DType, NormType};
use gradclip_mpi::mpi::traits::Communicator;
use gradclip_mpi::{Piece, Ranks, mpi};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One gradient norm over the ranks of an MPI job.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Clips the norm of all tensors of a sharded checkpoint: file i is read, clipped and written by rank i modulo ranks.
    Clip(ClipArguments),
}

#[derive(clap::Args)]
struct ClipArguments {
    /// The index of the checkpoint, `model.safetensors.index.json`, whose files lie beside it.
    index: PathBuf,
    /// The largest norm allowed.
    #[arg(long)]
    max_norm: f64,
    /// 1, 2, inf, or any p above 0.
    #[arg(long, default_value_t = 2.0)]
    norm_type: f64,
    /// The folder that the clipped checkpoint is written to, under the same names. It is made where it is missing.
    #[arg(long)]
    out: PathBuf,
    /// Seconds that a rank waits for others.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
}

/// A file in memory, and the floating-point tensors in it.
struct File {
    name: String,
    bytes: Vec<u8>,
    tensors: Vec<Tensor>,
}

struct Tensor {
    name: String,
    /// Where it lies in the file.
    range: Range<usize>,
    data: Data,
}

enum Data {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Data {
    fn read(dtype: Dtype, bytes: &[u8]) -> Option<Data> {
        match dtype {
            Dtype::F32 => Some(Data::F32(bytemuck::pod_collect_to_vec(bytes))),
            Dtype::F16 => Some(Data::F16(bytemuck::pod_collect_to_vec(bytes))),
            Dtype::BF16 => Some(Data::Bf16(bytemuck::pod_collect_to_vec(bytes))),
            _ => None,
        }
    }

    fn piece(&self, name: &str) -> Piece {
        let (len, dtype) = match self {
            Data::F32(v) => (v.len(), DType::F32),
            Data::F16(v) => (v.len(), DType::F16),
            Data::Bf16(v) => (v.len(), DType::Bf16),
        };
        Piece::whole(name, len as u64).dtype(dtype)
    }

    fn slice(&mut self) -> SliceMut<'_> {
        match self {
            Data::F32(v) => SliceMut::from(&mut v[..]),
            Data::F16(v) => SliceMut::from(&mut v[..]),
            Data::Bf16(v) => SliceMut::from(&mut v[..]),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Data::F32(v) => bytemuck::cast_slice(v),
            Data::F16(v) => bytemuck::cast_slice(v),
            Data::Bf16(v) => bytemuck::cast_slice(v),
        }
    }
}

/// The files that an index names, in the order of their names.
fn files(index: &Path) -> Result<Vec<String>> {
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

fn read(folder: &Path, name: &str) -> Result<File> {
    let path = folder.join(name);
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let bytes = std::fs::read(&path).map_err(|e| told(&e))?;
    // The whole file is checked before any of it is taken.
    SafeTensors::deserialize(&bytes).map_err(|e| told(&e))?;
    let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| told(&e))?;
    let begin = size_of::<u64>() + header;
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let range = begin + info.data_offsets.0..begin + info.data_offsets.1;
        match (info.dtype, Data::read(info.dtype, &bytes[range.clone()])) {
            (_, Some(data)) => tensors.push(Tensor { name, range, data }),
            // What counts steps or holds flags is no gradient, and stays as it is.
            (
                Dtype::BOOL
                | Dtype::U8
                | Dtype::I8
                | Dtype::I16
                | Dtype::U16
                | Dtype::I32
                | Dtype::U32
                | Dtype::I64
                | Dtype::U64,
                None,
            ) => {}
            (other, None) => {
                let name = name.escape_debug();
                return Err(
                    told(&format!("tensor `{name}`: required F32, F16 or BF16, given {other:?}")).into()
                );
            }
        }
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(File { name: name.to_owned(), bytes, tensors })
}

/// The result of this rank, where all ranks have one.
fn all<T>(ranks: &Ranks, what: &'static str, own: Result<T>) -> Result<T> {
    let others = ranks.alike(what, &[u8::from(own.is_ok())]);
    let own = own?;
    others.map_err(|_| format!("rank {}: {what}: another rank failed", ranks.rank()))?;
    Ok(own)
}

/// Beside their places: nothing is there under its name before all ranks have written.
fn write(out: &Path, file: &File) -> Result<(PathBuf, PathBuf)> {
    let (to, beside) = (out.join(&file.name), out.join(format!(".{}.part", file.name)));
    std::fs::create_dir_all(out)?;
    std::fs::write(&beside, &file.bytes).map_err(|e| format!("{}: {e}", beside.display()))?;
    Ok((beside, to))
}

fn slices(own: &mut [File]) -> impl Iterator<Item = SliceMut<'_>> {
    own.iter_mut().flat_map(|file| &mut file.tensors).map(|tensor| tensor.data.slice())
}

fn clip(ranks: &Ranks, arguments: &ClipArguments) -> Result<()> {
    let ClipArguments { index, max_norm, norm_type, out, .. } = arguments;
    let kind = match *norm_type {
        1.0 => NormType::One,
        2.0 => NormType::Two,
        f64::INFINITY => NormType::Inf,
        p => NormType::P(p),
    };
    let clip = Clip::global_norm(*max_norm).norm_type(kind);
    let folder = index.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let own = files(index).and_then(|names| {
        let own = names.iter().skip(ranks.rank()).step_by(ranks.size());
        own.map(|name| read(folder, name)).collect::<Result<Vec<File>>>()
    });
    let mut own = all(ranks, "reading files", own)?;
    let tensors = own.iter().flat_map(|file| &file.tensors);
    let pieces: Vec<Piece> = tensors.map(|t| t.data.piece(&t.name)).collect();
    let agreed = ranks.agree(&clip, &pieces)?;
    let mut over = agreed.prepare(slices(&mut own))?;
    over.clip(slices(&mut own))?;
    for file in &mut own {
        for tensor in &file.tensors {
            file.bytes[tensor.range.clone()].copy_from_slice(tensor.data.bytes());
        }
    }
    let written = own.iter().map(|file| write(out, file)).collect::<Result<Vec<_>>>();
    for (from, to) in all(ranks, "writing files", written)? {
        std::fs::rename(from, to)?;
    }
    all(ranks, "writing files", Ok(()))?;
    if ranks.rank() == 0 {
        std::fs::create_dir_all(out)?;
        std::fs::copy(index, out.join(index.file_name().unwrap_or_default()))?;
        println!("{}", serde_json::to_string_pretty(&over.report())?);
    }
    Ok(())
}

fn main() {
    let Arguments { command: Command::Clip(arguments) } = Arguments::parse();
    let Some(universe) = mpi::initialize() else {
        eprintln!("gradclip-mpi: MPI was initialised before");
        std::process::exit(1);
    };
    let world = universe.world();
    let ranks = Ranks::new(&world, Duration::from_secs(arguments.timeout));
    let done = ranks.map_err(Box::from).and_then(|ranks| clip(&ranks, &arguments));
    if let Err(error) = done {
        eprintln!("gradclip-mpi: rank {}: {error}", world.rank());
        // Without MPI_Finalize, which would wait for ranks that are gone.
        std::process::exit(1);
    }
}
