//! How long the exchange of a step takes, by ranks and tensors, beside the model in README.md and beside what MPI takes for one float: medians of many
//! on each rank, and of ranks the slowest.
//!
//! ```text
//! cargo build --release --example cost
//! for n in 1 2 4 8; do mpirun --oversubscribe -n $n target/release/examples/cost; done
//! for n in 2 4 8; do mpirun --oversubscribe -n $n target/release/examples/cost 1 148 1000; done    # these numbers of tensors
//! ```
//!
//! Ranks that are hosts of their own, with a delay between them: `benches/network/network.sh`.

use std::error::Error;
use std::time::{Duration, Instant};

use gradclip_mpi::gradclip::Clip;
use gradclip_mpi::mpi::collective::SystemOperation;
use gradclip_mpi::mpi::topology::SimpleCommunicator;
use gradclip_mpi::mpi::traits::*;
use gradclip_mpi::{HostClip, Piece, Ranks, mpi, shard_ranges};

const TURNS: usize = 51;
const TENSORS: [usize; 5] = [1, 148, 1_000, 10_000, 100_000];

/// The median of this rank's times in µs; of all ranks the longest, since a step goes on when the last has its sums.
fn slowest(world: &SimpleCommunicator, mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let own = times.get(times.len() / 2).map_or(0.0, |median| median.as_secs_f64() * 1e6);
    let mut all = 0.0f64;
    world.all_reduce_into(&own, &mut all, SystemOperation::max());
    all
}

/// Four bytes from the first rank to the last and back, as MPI sends them: 2 α of the model.
fn there_and_back(world: &SimpleCommunicator) -> f64 {
    let (first, last) = (0, world.size() - 1);
    let (first_rank, last_rank) = (world.process_at_rank(first), world.process_at_rank(last));
    let mut times = Vec::new();
    world.barrier();
    for turn in 0..TURNS as i32 {
        let begun = Instant::now();
        if last == 0 {
            break;
        } else if world.rank() == first {
            last_rank.send(&turn);
            last_rank.receive::<i32>();
            times.push(begun.elapsed());
        } else if world.rank() == last {
            first_rank.receive::<i32>();
            first_rank.send(&turn);
        }
    }
    slowest(world, times)
}

/// What FSDP exchanges: one float, once its ranks have norms of their own.
fn one_float(world: &SimpleCommunicator) -> f64 {
    let time = |_| {
        world.barrier();
        let begun = Instant::now();
        let mut all = 0.0f32;
        world.all_reduce_into(&1.0f32, &mut all, SystemOperation::sum());
        begun.elapsed()
    };
    slowest(world, (0..TURNS).map(time).collect())
}

/// The time until the sums of all ranks are there. Cores are shared as [`HostClip::apply`] shares them while it waits.
fn exchange(clipper: &mut HostClip) -> Result<Duration, gradclip_mpi::Error> {
    let begun = Instant::now();
    for tests in 1u32.. {
        if clipper.poll()? {
            break;
        }
        if tests.is_multiple_of(8) {
            std::thread::yield_now();
        }
    }
    Ok(begun.elapsed())
}

fn main() -> Result<(), Box<dyn Error>> {
    let given = std::env::args().skip(1).map(|n| n.parse()).collect::<Result<Vec<usize>, _>>()?;
    let universe = mpi::initialize().ok_or("MPI was initialised before")?;
    let world = universe.world();
    let ranks = Ranks::new(&world, Duration::from_secs(60))?;
    let (message, one) = (there_and_back(&world), one_float(&world));
    for &tensors in if given.is_empty() { &TENSORS[..] } else { &given } {
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
        for _ in 0..if tensors > 10_000 { TURNS / 3 } else { TURNS } {
            world.barrier();
            clipper.measure(memory.iter().map(|g| &g[..]))?;
            times.push(exchange(&mut clipper)?);
            clipper.apply(memory.iter_mut().map(|g| &mut g[..]))?;
        }
        let exchange = slowest(&world, times);
        if ranks.rank() == 0 {
            println!(
                "{} ranks, {tensors} tensors: {} bytes, exchange {exchange:.1} us, one float {one:.1} us, there and back {message:.1} us, agreeing {:.1} ms",
                ranks.size(),
                clipper.exchanged_bytes(),
                agreeing.as_secs_f64() * 1e3,
            );
        }
    }
    Ok(())
}
