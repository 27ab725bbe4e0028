//! Large tensors that a file has at odd addresses, copied to where they can be read in place.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::ops::Range;

use super::source::Source;
use super::{Float, Gradient, Shard};

/// Bytes of such tensors that are copied into memory one by one, rather than into a file.
const FEW: usize = 64 << 20;
/// Tensors begin at multiples of this in the copy.
const ALIGNMENT: usize = 8;

/// A file without a name, in the system's folder for temporary files, which goes when the process does.
#[derive(Debug)]
pub(super) struct Spill {
    map: Source,
    /// Tensors by their places in the header.
    places: HashMap<usize, Range<usize>>,
}

impl Spill {
    /// Copies what has to be copied of a file, nothing where that is little.
    pub(super) fn of(shard: &Shard, gradients: &[&Gradient]) -> io::Result<Option<Spill>> {
        // What lies in memory already is copied there once more.
        if matches!(shard.source, Source::Given(_)) {
            return Ok(None);
        }
        let odd: Vec<&&Gradient> = gradients
            .iter()
            .filter(|gradient| !aligned(shard.tensor(gradient.entry), gradient.float))
            .collect();
        if odd.iter().map(|gradient| shard.tensor(gradient.entry).len()).sum::<usize>() <= FEW {
            return Ok(None);
        }
        let file = tempfile::tempfile()?;
        let mut to = BufWriter::new(&file);
        let (mut at, mut places) = (0, HashMap::new());
        for gradient in odd {
            let bytes = shard.tensor(gradient.entry);
            to.write_all(bytes)?;
            let padding = bytes.len().next_multiple_of(ALIGNMENT) - bytes.len();
            to.write_all(&[0; ALIGNMENT][..padding])?;
            places.insert(gradient.entry, at..at + bytes.len());
            at += bytes.len() + padding;
        }
        to.flush()?;
        drop(to);
        Ok(Some(Spill { map: Source::map(&file)?, places }))
    }

    /// The copy of a tensor, where there is one.
    pub(super) fn tensor(&self, entry: usize) -> Option<&[u8]> {
        self.places.get(&entry).map(|place| &self.map[place.clone()])
    }
}

fn aligned(bytes: &[u8], float: Float) -> bool {
    bytes.as_ptr().addr().is_multiple_of(float.size())
}
