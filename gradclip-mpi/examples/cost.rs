//! How long the exchange of a step takes, by ranks and tensors: the median of many, beside the model in README.md.
//!
//! ```text
//! cargo build --release --example cost
//! for n in 1 2 4 8; do mpirun --oversubscribe -n $n target/release/examples/cost; done
//! ```

use std::error::Error;
use std::time::{Duration, Instant};

use gradclip_mpi::gradclip::Clip;
use gradclip_mpi::mpi::collective::SystemOperation;
use gradclip_mpi::mpi::traits::*;
use gradclip_mpi::{Piece, Ranks, mpi, shard_ranges};

const TURNS: usize = 101;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    let universe = mpi::initialize().ok_or("MPI was initialised before")?;
    let world = universe.world();
    let ranks = Ranks::new(&world, Duration::from_secs(60))?;
    // What FSDP exchanges: one float, once its ranks have norms of their own.
    let one = (0..TURNS)
        .map(|_| {
            world.barrier();
            let begun = Instant::now();
            let mut all = 0.0f32;
            world.all_reduce_into(&1.0f32, &mut all, SystemOperation::sum());
            begun.elapsed()
        })
        .collect();
    let one = median(one);
    for tensors in [1usize, 148, 1_000, 10_000, 100_000] {
        let names: Vec<String> = (0..tensors).map(|i| format!("t{i}")).collect();
        // One element on the first rank: what is measured is the exchange.
        let pieces = names
            .iter()
            .map(|name| Piece::part(name, 1, shard_ranges(1, ranks.size())[ranks.rank()].clone()));
        let pieces: Vec<Piece> = pieces.collect();
        let begun = Instant::now();
        let agreed = ranks.agree(&Clip::global_norm(1.0), &pieces)?;
        let agreeing = begun.elapsed();
        let mut memory: Vec<Vec<f32>> = pieces.iter().map(|p| vec![1.0; p.elements() as usize]).collect();
        let mut clipper = agreed.prepare(memory.iter_mut().map(|g| &mut g[..]))?;
        let mut times = Vec::new();
        for _ in 0..if tensors > 10_000 { TURNS / 5 } else { TURNS } {
            world.barrier();
            clipper.measure(memory.iter().map(|g| &g[..]))?;
            let begun = Instant::now();
            while !clipper.poll()? {
                std::hint::spin_loop();
            }
            times.push(begun.elapsed());
            clipper.apply(memory.iter_mut().map(|g| &mut g[..]))?;
        }
        if ranks.rank() == 0 {
            println!(
                "{} ranks, {tensors} tensors: {} bytes, exchange {:.1} us, one float {:.1} us, agreeing {:.1} ms",
                ranks.size(),
                clipper.exchanged_bytes(),
                median(times).as_secs_f64() * 1e6,
                one.as_secs_f64() * 1e6,
                agreeing.as_secs_f64() * 1e3,
            );
        }
    }
    Ok(())
}
