//! Run by mpirun with any number of ranks (`tests/run.sh`): every rank has the bits of a single one that holds everything, which each computes
//! for itself.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod device;
mod host;
mod peers;
mod refused;
mod set;

use std::time::Duration;

use gradclip_mpi::Ranks;

/// What all ranks call, with its name.
type Test = (&'static str, fn(&Ranks));

fn main() {
    let universe = gradclip_mpi::mpi::initialize().unwrap();
    let ranks = Ranks::new(&universe.world(), Duration::from_secs(120)).unwrap();
    let on_device = std::env::args().any(|arg| arg == "--device");
    let tests: &[Test] = if on_device {
        &[
            ("devices_have_the_bits_of_one_rank", device::devices_have_the_bits_of_one_rank),
            (
                "steps_on_devices_have_the_bits_of_one_rank",
                device::steps_on_devices_have_the_bits_of_one_rank,
            ),
        ]
    } else {
        &[
            (
                "what_ranks_disagree_about_is_an_error_on_all",
                refused::what_ranks_disagree_about_is_an_error_on_all,
            ),
            ("the_cpu_path_has_the_bits_of_one_rank", host::the_cpu_path_has_the_bits_of_one_rank),
            ("steps_have_the_bits_of_one_rank", host::steps_have_the_bits_of_one_rank),
            ("units_have_the_bits_of_one_rank", host::units_have_the_bits_of_one_rank),
            ("peers_have_the_same_on_ranks", peers::peers_have_the_same_on_ranks),
        ]
    };
    // A rank that fails would leave the others waiting.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    for (name, test) in tests {
        test(&ranks);
        if ranks.rank() == 0 {
            println!("test {name} on {} ranks ... ok", ranks.size());
        }
    }
}
