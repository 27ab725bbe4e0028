//! The two reductions of a step, one after the other, each under way while other work goes on.

use gradclip::exchange::Exchange;

use crate::error::Error;
use crate::flight::{Flight, Reduce, rest};
use crate::ranks::Ranks;

const EXPONENTS: &str = "the largest exponents of all ranks";
const SUMS: &str = "the sums of all ranks";

/// An exchange with the messages that carry it, allocated once.
#[derive(Debug)]
pub(crate) struct Reduction {
    exchange: Exchange,
    maxima: Flight<u32>,
    sums: Flight<u64>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is under way.
    Idle,
    Maxima,
    Sums,
    /// The sums of all ranks are there, and were not taken.
    Done,
}

impl Reduction {
    pub(crate) fn new(ranks: &Ranks, mut exchange: Exchange) -> Reduction {
        let maxima = exchange.maxima().len();
        let [_, bytes] = exchange.exchanged_bytes();
        let sums = bytes as usize / size_of::<u64>();
        Reduction {
            maxima: Flight::new(ranks.clone(), vec![0; maxima], vec![0; maxima]),
            sums: Flight::new(ranks.clone(), vec![0; sums], vec![0; sums]),
            exchange,
            stage: Stage::Idle,
        }
    }

    /// To begin it with what was measured here.
    pub(crate) fn exchange(&mut self) -> &mut Exchange {
        &mut self.exchange
    }

    /// Bytes that this rank hands over in a step.
    pub(crate) fn bytes(&self) -> u64 {
        self.exchange.exchanged_bytes().iter().sum()
    }

    /// Begins the first reduction of an exchange that has begun.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        if matches!(self.stage, Stage::Maxima | Stage::Sums) {
            return Err(Error::Lost { what: EXPONENTS });
        }
        self.maxima.sent.copy_from_slice(self.exchange.maxima());
        self.maxima.all_reduce(EXPONENTS, Reduce::Max)?;
        self.stage = Stage::Maxima;
        Ok(())
    }

    /// Goes on as far as it can without a wait; whether the sums of all ranks are there.
    pub(crate) fn poll(&mut self) -> Result<bool, Error> {
        if self.stage == Stage::Maxima && self.maxima.test(EXPONENTS)? {
            self.exchange.maxima().copy_from_slice(&self.maxima.received);
            self.sums.sent.copy_from_slice(self.exchange.aligned());
            self.sums.all_reduce(SUMS, Reduce::Sum)?;
            self.stage = Stage::Sums;
        }
        if self.stage == Stage::Sums && self.sums.test(SUMS)? {
            self.exchange.aligned().copy_from_slice(&self.sums.received);
            self.stage = Stage::Done;
        }
        Ok(self.stage == Stage::Done)
    }

    /// Waits for the sums of all ranks, and hands them out once.
    pub(crate) fn finish(&mut self) -> Result<&mut Exchange, Error> {
        if self.stage == Stage::Idle {
            return Err(Error::Range {
                what: "the second half of a step over ranks",
                required: "the first one before it".into(),
                given: "none".into(),
            });
        }
        let since = std::time::Instant::now();
        let mut tests = 0;
        while !self.poll()? {
            tests += 1;
            rest(tests, since);
        }
        self.stage = Stage::Idle;
        Ok(&mut self.exchange)
    }
}
