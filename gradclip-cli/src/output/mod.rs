//! Results: files and folders that appear whole or not at all, and standard output.

mod carry;
mod file;
mod folder;
mod head;
mod shard;

use std::io::{self, IsTerminal, Write};
use std::path::Path;

pub(crate) use file::Output;
use folder::FolderOutput;
pub(crate) use shard::{Clipped, OutType, write};

use crate::failure::Failure;
use crate::input::{STANDARD, Set, shown};
use crate::text;

const OPTION: &str = "--out";

/// Where the clipped gradients go.
#[derive(Debug)]
pub(crate) enum Destination {
    Nowhere,
    Standard,
    File(Output),
    Folder(FolderOutput),
}

impl Destination {
    /// Makes sure, before any work is done, that the result can be written. `folder` says that it is one.
    pub(crate) fn prepare(out: Option<&Path>, set: &Set, folder: bool) -> Result<Destination, Failure> {
        match out {
            None => Ok(Destination::Nowhere),
            Some(path) if path.as_os_str() == STANDARD => match (folder, io::stdout().is_terminal()) {
                (true, _) => Err(Failure::Usage(format!(
                    "{OPTION} -: expected one INPUT that is a file, given {}; name a folder",
                    set.shown()
                ))),
                (_, true) => Err(Failure::Usage(format!(
                    "{OPTION} -: expected a file or a pipe, but it is a terminal"
                ))),
                _ => Ok(Destination::Standard),
            },
            Some(path) if folder => FolderOutput::prepare(OPTION, path, set).map(Destination::Folder),
            Some(path) => Output::prepare(OPTION, path).map(Destination::File),
        }
    }

    /// Whether standard output is taken.
    pub(crate) fn is_standard(&self) -> bool {
        matches!(self, Destination::Standard)
    }

    /// Writes the gradients, or where they go nowhere only has all of them made.
    pub(crate) fn commit(self, set: &Set, clipped: &mut dyn Clipped, out: OutType) -> Result<(), Failure> {
        match self {
            Destination::Nowhere => (0..set.gradients.len())
                .try_for_each(|i| clipped.pieces(i, &mut |_| Ok(())))
                .map_err(|error| Failure::Usage(error.to_string())),
            Destination::Standard => {
                let mut to = io::stdout().lock();
                let written = shard::write(set, 0, clipped, out, &mut to).and_then(|()| to.flush());
                written.map_err(|error| {
                    Failure::Usage(format!(
                        "{OPTION} -: expected standard output to be writable, but {error}"
                    ))
                })
            }
            Destination::File(output) => output.commit(|to| shard::write(set, 0, clipped, out, to)),
            Destination::Folder(folder) => folder.commit(set, clipped, out),
        }
    }
}

/// How a result is called in a line.
pub(crate) fn written(path: &Path) -> String {
    if path.as_os_str() == STANDARD { "standard output".into() } else { text::path(path) }
}

/// How an input is called in a message about a result.
fn of(path: &Path) -> String {
    shown(path)
}
