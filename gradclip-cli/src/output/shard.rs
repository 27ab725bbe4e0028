//! One file of a set, written with its gradients as they are now.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

use clap::ValueEnum;

use super::head;
use crate::input::Set;

/// The element type of what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutType {
    /// Every tensor's own
    Same,
    /// F32 for every gradient: F16 and BF16 are widened before they are clipped, F64 is rounded after
    F32,
}

/// Takes bytes.
pub(crate) type Take<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

/// Gradients after the clip.
pub(crate) trait Clipped {
    /// Hands out the bytes of gradient `i` as they are to be written, in order. Every gradient is asked for
    /// once, in any order.
    fn pieces(&mut self, i: usize, take: Take<'_>) -> io::Result<()>;
}

/// Writes a file of the set: header, gradients, and whatever else it holds.
pub(crate) fn write(
    set: &Set,
    file: usize,
    clipped: &mut dyn Clipped,
    out: OutType,
    to: impl Write,
) -> io::Result<()> {
    let shard = &set.files[file];
    let own = set.gradients.iter().enumerate().filter(|(_, gradient)| gradient.file == file);
    let gradients: HashMap<usize, usize> = own.map(|(i, gradient)| (gradient.entry, i)).collect();
    let mut to = BufWriter::with_capacity(1 << 20, to);
    to.write_all(&head::head(shard, out))?;
    for entry in &shard.header.layout {
        match gradients.get(entry) {
            Some(&i) => clipped.pieces(i, &mut |bytes| to.write_all(bytes))?,
            None => to.write_all(shard.tensor(*entry))?,
        }
    }
    to.flush()
}
