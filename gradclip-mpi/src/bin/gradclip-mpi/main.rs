//! Clips a sharded checkpoint of gradients by one norm over ranks, each of which reads, clips and writes some of its files.
//!
//! ```text
//! mpirun -n 4 gradclip-mpi clip model.safetensors.index.json --max-norm 1 --out clipped
//! ```

mod checkpoint;
mod device;
mod host;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use gradclip_mpi::gradclip::{Clip, NormType, Target};
use gradclip_mpi::mpi::traits::Communicator;
use gradclip_mpi::{Piece, Ranks, mpi};

use checkpoint::{File, Tensor, Written};

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
    norm: f64,
    /// The folder that the clipped checkpoint is written to, under the same names. It is made where it is missing.
    #[arg(long)]
    out: PathBuf,
    /// Where to compute: `auto` takes a GPU of the rank's machine, else the CPU path; `cpu`; `gpu`, which fails where there is no adapter; any
    /// other text an adapter whose `backend/name` contains it. Ranks of a machine take its adapters in turn.
    #[arg(long, default_value = "auto")]
    device: Target,
    /// Seconds that a rank waits for others.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
}

/// The result of this rank, where all ranks have one.
fn all<T>(ranks: &Ranks, what: &'static str, own: Result<T>) -> Result<T> {
    let others = ranks.alike(what, &[u8::from(own.is_ok())]);
    let own = own?;
    others.map_err(|_| format!("rank {}: {what}: another rank failed", ranks.rank()))?;
    Ok(own)
}

/// The number of this rank on its machine.
fn local(world: &impl Communicator) -> usize {
    world.split_shared(world.rank()).rank() as usize
}

fn read_own(ranks: &Ranks, index: &Path) -> Result<Vec<File>> {
    let folder = index.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names = checkpoint::files(index)?;
    let own = names.iter().skip(ranks.rank()).step_by(ranks.size());
    own.map(|name| checkpoint::read(folder, name)).collect()
}

fn clip(ranks: &Ranks, local: usize, arguments: &ClipArguments) -> Result<()> {
    let ClipArguments { index, max_norm, norm, out, device, .. } = arguments;
    let kind = match *norm {
        1.0 => NormType::One,
        2.0 => NormType::Two,
        f64::INFINITY => NormType::Inf,
        p => NormType::P(p),
    };
    let clip = Clip::global_norm(*max_norm).norm_type(kind);
    let device = all(ranks, "opening an adapter", device::open(device, local))?;
    let mut own = all(ranks, "reading files", read_own(ranks, index))?;
    let pieces: Vec<Piece> = own.iter().flat_map(|file| &file.tensors).map(Tensor::piece).collect();
    let agreed = ranks.agree(&clip, &pieces)?;
    let report = match &device {
        // A rank without an adapter is one among those that have one: the sums are the same.
        None => {
            all(ranks, "preparing", Ok(()))?;
            host::clip(&agreed, &mut own)?
        }
        Some(device) => all(ranks, "preparing", device.prepare(&agreed, &own))?.clip(&mut own)?,
    };
    let written = all(ranks, "writing files", Written::new(out, &own))?;
    all(ranks, "writing files", written.put())?;
    if ranks.rank() == 0 {
        std::fs::copy(index, out.join(index.file_name().unwrap_or_default()))?;
        println!("{}", serde_json::to_string_pretty(&report)?);
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
    let local = local(&world);
    let done = ranks.map_err(Box::from).and_then(|ranks| clip(&ranks, local, &arguments));
    if let Err(error) = done {
        eprintln!("gradclip-mpi: rank {}: {error}", world.rank());
        // Without MPI_Finalize, which would wait for ranks that are gone.
        std::process::exit(1);
    }
}
