//! The norm of a file of gradients whose rows are cut over ranks as FSDP2 cuts them, a line of JSON a rank: what `benches/fsdp.py` lays beside PyTorch's.
//!
//! ```text
//! cargo build --release --example shards
//! mpirun --oversubscribe -n 4 target/release/examples/shards gradients.safetensors
//! mpirun --oversubscribe -n 4 target/release/examples/shards gradients.safetensors --shards 2    # two copies of two shards
//! ```

use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use gradclip_mpi::gradclip::cpu::SliceMut;
use gradclip_mpi::gradclip::{Clip, DType};
use gradclip_mpi::{Piece, Ranks, mpi, shard_ranges};
use half::bf16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// One norm over the shards of a file.
#[derive(Parser)]
struct Arguments {
    /// Gradients of F32 or BF16.
    file: PathBuf,
    /// Shards that a tensor is cut into, of which rank i has the one of number i modulo shards: as many as ranks, unless set.
    #[arg(long)]
    shards: Option<usize>,
    /// Where tensors are cut.
    #[arg(long, value_enum, default_value_t = Cuts::Rows)]
    cuts: Cuts,
    /// Tensors of which every rank has a copy.
    #[arg(long, value_delimiter = ',')]
    replicated: Vec<String>,
    #[arg(long, default_value_t = 1.0)]
    max_norm: f64,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Cuts {
    /// Rows, the same number on each rank but for the last, as `torch.chunk` has them.
    Rows,
    /// At multiples of 16,384 elements.
    Chunks,
}

/// The elements of a tensor that lie here.
enum Data {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Data {
    fn slice(&mut self) -> SliceMut<'_> {
        match self {
            Data::F32(v) => SliceMut::from(&mut v[..]),
            Data::Bf16(v) => SliceMut::from(&mut v[..]),
        }
    }

    /// The largest finite magnitude, and whether an element is NaN.
    fn largest(&self) -> (f32, bool) {
        let all: Vec<f32> = match self {
            Data::F32(v) => v.clone(),
            Data::Bf16(v) => v.iter().map(|x| x.to_f32()).collect(),
        };
        let finite = all.iter().filter(|x| x.is_finite());
        (finite.fold(0.0, |most, x| most.max(x.abs())), all.iter().any(|x| x.is_nan()))
    }
}

/// Elements of shard `own` of `shards`, counted in the whole tensor.
fn held(shape: &[u64], own: usize, shards: usize, cuts: Cuts) -> Range<u64> {
    let elements: u64 = shape.iter().product();
    if cuts == Cuts::Chunks {
        return shard_ranges(elements, shards)[own].clone();
    }
    let rows = shape.first().copied().unwrap_or(1);
    let each = rows.div_ceil(shards as u64);
    let cut = |shard: usize| (each * shard as u64).min(rows) * elements.checked_div(rows).unwrap_or(0);
    cut(own)..cut(own + 1)
}

/// What lies here of a tensor.
fn read(name: &str, view: &TensorView<'_>, held: Range<u64>) -> Result<(Piece, Data), Box<dyn Error>> {
    let whole = view.shape().iter().product::<usize>() as u64;
    let size = view.dtype().bitsize() / 8;
    let bytes = &view.data()[held.start as usize * size..held.end as usize * size];
    let (dtype, data) = match view.dtype() {
        Dtype::F32 => (DType::F32, Data::F32(bytemuck::pod_collect_to_vec(bytes))),
        Dtype::BF16 => (DType::Bf16, Data::Bf16(bytemuck::pod_collect_to_vec(bytes))),
        other => return Err(format!("tensor `{name}`: required F32 or BF16, given {other:?}").into()),
    };
    Ok((Piece::part(name, whole, held).dtype(dtype), data))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let universe = mpi::initialize().ok_or("MPI was initialised before")?;
    let ranks = Ranks::new(&universe.world(), Duration::from_secs(60))?;
    let shards = arguments.shards.unwrap_or(ranks.size()).max(1);
    let bytes = std::fs::read(&arguments.file)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let mut names = file.names();
    names.sort_unstable();

    let (mut pieces, mut grads) = (Vec::new(), Vec::new());
    for name in names {
        let view = file.tensor(name)?;
        let shape: Vec<u64> = view.shape().iter().map(|&n| n as u64).collect();
        let held = match arguments.replicated.iter().any(|replicated| replicated == name) {
            true => 0..shape.iter().product(),
            false => held(&shape, ranks.rank() % shards, shards, arguments.cuts),
        };
        let (piece, data) = read(name, &view, held)?;
        pieces.push(piece);
        grads.push(data);
    }
    let agreed = ranks.agree(&Clip::global_norm(arguments.max_norm), &pieces)?;
    let mut clipper = agreed.prepare(grads.iter_mut().map(Data::slice))?;
    clipper.clip(grads.iter_mut().map(Data::slice))?;

    let report = clipper.report().ok_or("a report after a step")?;
    let norm = report.norm().ok_or("a norm of the whole set")?;
    let clipped: Vec<(f32, bool)> = grads.iter().map(Data::largest).collect();
    let line = serde_json::json!({
        "rank": ranks.rank(),
        "exact_cuts": agreed.exact(),
        "bits": format!("{:08x}", (norm as f32).to_bits()),
        "coefficient": report.coefficient(),
        "skipped": report.skipped_steps == 1,
        "non_finite": report.non_finite(),
        "first_non_finite": report.first_non_finite(),
        "largest_after": clipped.iter().map(|(most, _)| *most).fold(0.0, f32::max),
        "nan_after": clipped.iter().any(|(_, nan)| *nan),
    });
    println!("{line}");
    Ok(())
}
