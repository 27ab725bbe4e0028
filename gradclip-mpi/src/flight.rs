//! Collectives whose waits end: each is non-blocking, and tested until it is done or too late.

use std::ffi::{c_int, c_void};
use std::time::{Duration, Instant};

use mpi::ffi::{self, MPI_Datatype, MPI_Op, MPI_Request};

use crate::error::Error;
use crate::ranks::Ranks;

/// Tests in a row before a waiting rank lets others have its core.
const TESTS: u32 = 8;
/// How long it sleeps between tests after a while, so that a rank that is long in coming has the cores.
const NAP: Duration = Duration::from_micros(100);
/// How long it does not.
const AWAKE: Duration = Duration::from_millis(5);

/// How values of ranks become one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reduce {
    Max,
    Sum,
}

impl Reduce {
    fn op(self) -> MPI_Op {
        // SAFETY: constants of MPI's own, which are set once it is linked.
        unsafe {
            match self {
                Reduce::Max => ffi::RSMPI_MAX,
                Reduce::Sum => ffi::RSMPI_SUM,
            }
        }
    }
}

/// Elements that MPI has a type for.
pub(crate) trait Datum: Copy + Default {
    fn datatype() -> MPI_Datatype;
}

macro_rules! datum {
    ($($element:ty: $datatype:ident),+) => {
        $(impl Datum for $element {
            fn datatype() -> MPI_Datatype {
                // SAFETY: a constant of MPI's own.
                unsafe { ffi::$datatype }
            }
        })+
    };
}
datum!(u8: RSMPI_UINT8_T, u32: RSMPI_UINT32_T, u64: RSMPI_UINT64_T);

/// At most one collective under way, with the memory that it reads and writes.
pub(crate) struct Flight<T: Datum> {
    ranks: Ranks,
    pub(crate) sent: Vec<T>,
    pub(crate) received: Vec<T>,
    request: Option<MPI_Request>,
    since: Instant,
}

impl<T: Datum> std::fmt::Debug for Flight<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flight").field("under_way", &self.request.is_some()).finish_non_exhaustive()
    }
}

impl<T: Datum> Drop for Flight<T> {
    fn drop(&mut self) {
        if self.request.is_some() {
            // MPI may still read and write it, and there is no cancelling of collectives.
            std::mem::forget((std::mem::take(&mut self.sent), std::mem::take(&mut self.received)));
            self.ranks.lose();
        }
    }
}

/// A length as MPI counts.
fn count(what: &'static str, len: usize) -> Result<c_int, Error> {
    let given = || Error::Range { what, required: format!("at most {}", c_int::MAX), given: len.to_string() };
    c_int::try_from(len).map_err(|_| given())
}

impl<T: Datum> Flight<T> {
    pub(crate) fn new(ranks: Ranks, sent: Vec<T>, received: Vec<T>) -> Flight<T> {
        Flight { ranks, sent, received, request: None, since: Instant::now() }
    }

    /// Begins what `call` begins: it is given what is sent, what is received, the communicator and the request.
    fn begin(
        &mut self,
        what: &'static str,
        call: impl FnOnce(*const c_void, *mut c_void, ffi::MPI_Comm, *mut MPI_Request) -> c_int,
    ) -> Result<(), Error> {
        self.ranks.begin(what)?;
        if self.request.is_some() {
            return Err(Error::Lost { what });
        }
        // SAFETY: a constant of MPI's own.
        let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
        // The address of no bytes at all is 1, by which Open MPI means its MPI_IN_PLACE.
        let sent = if self.sent.is_empty() { std::ptr::null() } else { self.sent.as_ptr().cast() };
        let received =
            if self.received.is_empty() { std::ptr::null_mut() } else { self.received.as_mut_ptr().cast() };
        let code = call(sent, received, self.ranks.comm(), &mut request);
        check(what, code).map_err(|error| self.ranks.failed(error))?;
        (self.request, self.since) = (Some(request), Instant::now());
        Ok(())
    }

    /// `sent` of all ranks put together in `received`, which is as long.
    pub(crate) fn all_reduce(&mut self, what: &'static str, how: Reduce) -> Result<(), Error> {
        let n = count(what, self.sent.len())?;
        self.received.resize(self.sent.len(), T::default());
        self.begin(what, |sent, received, comm, request| {
            // SAFETY: both have n elements of this type, and stay where they are until the request is done or for ever.
            unsafe { ffi::MPI_Iallreduce(sent, received, n, T::datatype(), how.op(), comm, request) }
        })
    }

    /// `received` of rank 0 to all, which have as many.
    pub(crate) fn broadcast(&mut self, what: &'static str) -> Result<(), Error> {
        let n = count(what, self.received.len())?;
        self.begin(what, |_, received, comm, request| {
            // SAFETY: as above.
            unsafe { ffi::MPI_Ibcast(received, n, T::datatype(), 0, comm, request) }
        })
    }

    /// `sent`, one after the other in `received` of rank 0, which has as many of each rank.
    pub(crate) fn gather(&mut self, what: &'static str) -> Result<(), Error> {
        let n = count(what, self.sent.len())?;
        if self.ranks.rank() == 0 {
            self.received.resize(self.sent.len() * self.ranks.size(), T::default());
        }
        self.begin(what, |sent, received, comm, request| {
            // SAFETY: as above; rank 0 has n of each rank.
            unsafe { ffi::MPI_Igather(sent, n, T::datatype(), received, n, T::datatype(), 0, comm, request) }
        })
    }

    /// `sent` of rank 0, of which each rank has as many as `received` has room for.
    pub(crate) fn scatter(&mut self, what: &'static str) -> Result<(), Error> {
        let n = count(what, self.received.len())?;
        if self.ranks.rank() == 0 && self.sent.len() != self.received.len() * self.ranks.size() {
            return Err(Error::Lost { what });
        }
        self.begin(what, |sent, received, comm, request| {
            // SAFETY: as above; rank 0 was just seen to have n for each rank.
            unsafe { ffi::MPI_Iscatter(sent, n, T::datatype(), received, n, T::datatype(), 0, comm, request) }
        })
    }

    /// Whether it is done: lets MPI go on, and waits for nothing.
    pub(crate) fn test(&mut self, what: &'static str) -> Result<bool, Error> {
        let Some(request) = &mut self.request else { return Ok(true) };
        let mut done = 0;
        // SAFETY: the request was begun and is not done, as far as anybody was told.
        let code = unsafe { ffi::MPI_Test(request, &mut done, ffi::RSMPI_STATUS_IGNORE) };
        check(what, code).map_err(|error| self.ranks.failed(error))?;
        if done != 0 {
            self.request = None;
            return Ok(true);
        }
        let (required, given) = (self.ranks.timeout(), self.since.elapsed());
        match given > required {
            true => Err(self.ranks.failed(Error::Late { what, required, given })),
            false => Ok(false),
        }
    }

    /// Waits until it is done, or too late.
    pub(crate) fn wait(&mut self, what: &'static str) -> Result<(), Error> {
        let begun = Instant::now();
        let mut tests = 0u32;
        while !self.test(what)? {
            tests += 1;
            rest(tests, begun);
        }
        Ok(())
    }
}

/// Leaves the core to others between tests.
pub(crate) fn rest(tests: u32, since: Instant) {
    if since.elapsed() > AWAKE {
        std::thread::sleep(NAP);
    } else if tests.is_multiple_of(TESTS) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

/// What a call returned, in MPI's words.
pub(crate) fn check(what: &'static str, code: c_int) -> Result<(), Error> {
    if code == ffi::MPI_SUCCESS as c_int {
        return Ok(());
    }
    let mut text = vec![0u8; ffi::MPI_MAX_ERROR_STRING as usize + 1];
    let mut len: c_int = 0;
    // SAFETY: the room is as large as MPI asks for.
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut len) };
    text.truncate(len.max(0) as usize);
    Err(Error::Mpi { what, said: String::from_utf8_lossy(&text).into_owned() })
}
