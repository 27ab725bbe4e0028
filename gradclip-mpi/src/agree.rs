//! What ranks agree on before the first step: rank 0 looks at what all of them declare, and tells all the same.

use std::collections::HashMap;

use gradclip::Clip;

use crate::error::Error;
use crate::flight::{Flight, Reduce};
use crate::pieces::Piece;
use crate::ranks::Ranks;
use crate::table::{Declared, Table, Tensor, agreed};

/// A clip and tensors that all ranks agreed on.
#[derive(Clone, Debug)]
pub struct Agreed {
    ranks: Ranks,
    clip: Clip,
    table: Table,
    pieces: Vec<Piece>,
    /// Of each tensor of the table, which piece of this rank it is.
    own: Vec<Option<usize>>,
    counts: Vec<bool>,
}

const WHAT: &str = "agreeing on clip and tensors";

impl Ranks {
    /// Agrees on a clip and on who holds what: every rank calls this with what it holds, in any order, which may be nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Disagree`] on every rank, with the same words, where clips differ, where a tensor is not told of alike, and where pieces are not
    /// the whole of a tensor; [`Error::Range`] for more than 2 GiB of declarations; and as every exchange.
    pub fn agree(&self, clip: &Clip, pieces: &[Piece]) -> Result<Agreed, Error> {
        let declared =
            serde_json::to_vec(&Declared { clip: *clip, pieces: pieces.to_vec() }).map_err(unread)?;
        let all = self.gathered(declared)?;
        let (verdict, counts) = match self.rank() {
            0 => told(&all)?,
            _ => (Vec::new(), Vec::new()),
        };
        let verdict: Result<Table, String> =
            serde_json::from_slice(&self.told_to_all(verdict)?).map_err(unread)?;
        let table = verdict.map_err(Error::Disagree)?;
        let mut flight = Flight::new(self.clone(), counts, vec![0u8; table.tensors.len()]);
        flight.scatter(WHAT)?;
        flight.wait(WHAT)?;
        let counts = flight.received.iter().map(|&counts| counts == 1).collect();
        let place: HashMap<&str, usize> = pieces.iter().map(Piece::name).zip(0..).collect();
        let own = table.tensors.iter().map(|tensor| place.get(tensor.name.as_str()).copied()).collect();
        Ok(Agreed { ranks: self.clone(), clip: *clip, table, pieces: pieces.to_vec(), own, counts })
    }

    /// The bytes of every rank, on rank 0.
    fn gathered(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, Error> {
        let mut lens = Flight::new(self.clone(), vec![own.len() as u64], Vec::new());
        lens.gather(WHAT)?;
        lens.wait(WHAT)?;
        // Rows of one length: what ranks declare is about as long everywhere.
        let [longest] = self.all_reduced(WHAT, [own.len() as u64], Reduce::Max)?;
        let most = i32::MAX as u64 / self.size() as u64;
        if longest > most {
            let required = format!("at most {most} on each of {} ranks", self.size());
            return Err(Error::Range {
                what: "bytes that a rank declares",
                required,
                given: longest.to_string(),
            });
        }
        let mut padded = own;
        padded.resize(longest as usize, 0);
        let mut rows = Flight::new(self.clone(), padded, Vec::new());
        rows.gather(WHAT)?;
        rows.wait(WHAT)?;
        let each = rows.received.chunks(longest.max(1) as usize).zip(&lens.received);
        Ok(each.map(|(row, &len)| row[..len as usize].to_vec()).collect())
    }

    /// The bytes of rank 0, on every rank.
    fn told_to_all(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        let mut len = Flight::new(self.clone(), Vec::new(), vec![bytes.len() as u64]);
        len.broadcast(WHAT)?;
        len.wait(WHAT)?;
        let mut received = bytes;
        received.resize(len.received[0] as usize, 0);
        let mut all = Flight::new(self.clone(), Vec::new(), received);
        all.broadcast(WHAT)?;
        all.wait(WHAT)?;
        Ok(std::mem::take(&mut all.received))
    }
}

/// What rank 0 makes of what all declared: a table or words, and which tensors each rank counts.
fn told(all: &[Vec<u8>]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let all: Result<Vec<Declared>, _> = all.iter().map(|own| serde_json::from_slice(own)).collect();
    let (verdict, counts) = match all.map_err(|e| e.to_string()).and_then(|all| agreed(&all)) {
        Ok((table, counts)) => (Ok(table), counts.concat().into_iter().map(u8::from).collect()),
        Err(words) => (Err(words), Vec::new()),
    };
    Ok((serde_json::to_vec(&verdict).map_err(unread)?, counts))
}

fn unread(error: serde_json::Error) -> Error {
    Error::Disagree(format!("what was declared cannot be read: {error}"))
}

impl Agreed {
    /// The ranks that agreed.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// The clip that they agreed on.
    pub fn clip(&self) -> &Clip {
        &self.clip
    }

    /// Names of all tensors, as every rank prepares them: in the order of rank 0, then what rank 1 has besides, and so on. Reports
    /// count tensors so.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.table.tensors.iter().map(|tensor| tensor.name.as_str())
    }

    /// Whether every tensor is cut at multiples of 16,384 elements, so that norms of type 1, 2 and infinity have the bits that one rank
    /// would have.
    pub fn exact(&self) -> bool {
        self.table.exact
    }

    /// One word a tensor: whether what lies here is counted here.
    pub(crate) fn counts(&self) -> &[bool] {
        &self.counts
    }

    /// Tensor by tensor in their common order: what all know of it, and which piece of this rank it is.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (&Tensor, Option<usize>)> {
        self.table.tensors.iter().zip(self.own.iter().copied())
    }

    /// That these are this rank's pieces as it declared them.
    pub(crate) fn check(&self, given: usize) -> Result<(), Error> {
        match given == self.pieces.len() {
            true => Ok(()),
            false => Err(gradclip::ClipError::Count { required: self.pieces.len(), given }.into()),
        }
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}
