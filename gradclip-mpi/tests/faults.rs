//! Run by mpirun with three ranks, of which one dies or never calls (`tests/run.sh`): the others end with an error in time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use gradclip::Clip;
use gradclip_mpi::{Error, Piece, Ranks, shard_ranges};

const TIMEOUT: Duration = Duration::from_secs(3);
const ELEMENTS: u64 = 200_000;

fn main() {
    let how = std::env::args().nth(1).unwrap();
    let universe = gradclip_mpi::mpi::initialize().unwrap();
    let world = universe.world();
    let ranks = Ranks::new(&world, TIMEOUT).unwrap();
    let own = shard_ranges(ELEMENTS, ranks.size())[ranks.rank()].clone();
    let mut g = vec![1.0f32; (own.end - own.start) as usize];
    let agreed = ranks.agree(&Clip::global_norm(1.0), &[Piece::part("w", ELEMENTS, own)]).unwrap();
    let mut over = agreed.prepare([&mut g[..]]).unwrap();
    over.clip([&mut g[..]]).unwrap();
    let before = g.clone();
    if ranks.rank() == 1 {
        match how.as_str() {
            // Between the halves, with a reduction under way.
            "dies" => {
                over.measure([&g[..]]).unwrap();
                std::process::abort();
            }
            "silent" => std::thread::sleep(3 * TIMEOUT),
            other => panic!("{other}"),
        }
        std::process::exit(0);
    }
    let since = Instant::now();
    let error = over.clip([&mut g[..]]).unwrap_err();
    let took = since.elapsed();
    assert!(matches!(error, Error::Late { .. } | Error::Mpi { .. }), "{error}");
    assert!(took < 2 * TIMEOUT, "{took:?}");
    assert!(ranks.lost());
    // No element was written, and nothing more is exchanged.
    assert!(g.iter().zip(&before).all(|(a, b)| a.to_bits() == b.to_bits()));
    let again = over.clip([&mut g[..]]).unwrap_err();
    assert!(matches!(again, Error::Lost { .. }), "{again}");
    println!("rank {} ended after {took:.1?}: {error}", ranks.rank());
    // `MPI_Finalize` would wait for the one that is gone.
    std::process::exit(0);
}
