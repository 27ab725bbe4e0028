//! Ranks that exchange sums, and what is the same on all of them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use mpi::ffi::{self, MPI_Comm};
use mpi::raw::AsRaw;
use mpi::topology::{Communicator, SimpleCommunicator};

use crate::error::Error;
use crate::flight::{Flight, Reduce, check};

/// Ranks that exchange sums: a communicator of its own, whose errors are returned and whose waits end.
///
/// Clones are the same ranks. MPI is called by the thread that calls methods, which is to be the one that initialised it unless MPI was
/// initialised for more.
#[derive(Clone)]
pub struct Ranks {
    shared: Rc<Shared>,
}

struct Shared {
    comm: SimpleCommunicator,
    timeout: Duration,
    /// Whether a collective failed: others of it may still be under way, and nothing follows it.
    lost: Cell<bool>,
}

impl std::fmt::Debug for Ranks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shared { timeout, lost, .. } = &*self.shared;
        let (rank, size) = (self.rank(), self.size());
        f.debug_struct("Ranks")
            .field("rank", &rank)
            .field("size", &size)
            .field("timeout", timeout)
            .field("lost", lost)
            .finish()
    }
}

impl Ranks {
    /// The ranks of `comm`, which all of them call: its duplicate, so that no message of the program's own is taken for one of these. A rank
    /// that waits longer than `timeout` for the others ends in [`Error::Late`].
    ///
    /// # Errors
    ///
    /// [`Error::Range`] for more than [`MOST_RANKS`](gradclip::exchange::MOST_RANKS) ranks, [`Error::Mpi`] where MPI refuses.
    pub fn new(comm: &impl Communicator, timeout: Duration) -> Result<Ranks, Error> {
        let size = comm.size() as usize;
        if size > gradclip::exchange::MOST_RANKS {
            let required = format!("at most {}", gradclip::exchange::MOST_RANKS);
            return Err(Error::Range { what: "ranks", required, given: size.to_string() });
        }
        let comm = comm.duplicate();
        // SAFETY: the handle is that of a communicator that was just made, and the constant one of MPI's own.
        let code = unsafe { ffi::MPI_Comm_set_errhandler(comm.as_raw(), ffi::RSMPI_ERRORS_RETURN) };
        check("setting an error handler", code)?;
        Ok(Ranks { shared: Rc::new(Shared { comm, timeout, lost: Cell::new(false) }) })
    }

    /// The number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.shared.comm.rank() as usize
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.shared.comm.size() as usize
    }

    /// How long a rank waits for others.
    pub fn timeout(&self) -> Duration {
        self.shared.timeout
    }

    /// Whether a rank was lost: every further exchange is [`Error::Lost`]. A program ends by
    /// [`Communicator::abort`](mpi::topology::Communicator::abort) then, since `MPI_Finalize` waits for all ranks.
    pub fn lost(&self) -> bool {
        self.shared.lost.get()
    }

    /// That all ranks have the same bytes, a checkpoint's say: every rank calls this.
    ///
    /// # Errors
    ///
    /// [`Error::Disagree`] on every rank where they have not, and as every exchange.
    pub fn alike(&self, what: &'static str, bytes: &[u8]) -> Result<(), Error> {
        // FNV-1a: the same on every machine. A rank's own largest and smallest are those of all where all are alike.
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let all = self.all_reduced(what, [hash, !hash], Reduce::Max)?;
        match all[0] == !all[1] {
            true => Ok(()),
            false => {
                Err(Error::Disagree(format!("{what}: required the same on every rank, given different ones")))
            }
        }
    }

    /// Whole numbers of all ranks put together.
    pub(crate) fn all_reduced<const N: usize>(
        &self,
        what: &'static str,
        own: [u64; N],
        how: Reduce,
    ) -> Result<[u64; N], Error> {
        let mut flight = Flight::new(self.clone(), own.to_vec(), vec![0; N]);
        flight.all_reduce(what, how)?;
        flight.wait(what)?;
        let mut all = [0; N];
        all.copy_from_slice(&flight.received);
        Ok(all)
    }

    /// Something under way was given up.
    pub(crate) fn lose(&self) {
        self.shared.lost.set(true);
    }

    pub(crate) fn comm(&self) -> MPI_Comm {
        self.shared.comm.as_raw()
    }

    /// That no rank was lost so far.
    pub(crate) fn begin(&self, what: &'static str) -> Result<(), Error> {
        if self.lost() { Err(Error::Lost { what }) } else { Ok(()) }
    }

    /// An error after which nothing is exchanged any more.
    pub(crate) fn failed(&self, error: Error) -> Error {
        self.lose();
        error
    }
}
