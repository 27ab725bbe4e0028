//! Where the bytes of an input come from: a file that is mapped, or standard input.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::failure::Failure;
use crate::text;

/// Stands for standard input among the arguments.
pub(crate) const STANDARD: &str = "-";

/// All bytes of an input. A file's are mapped and not read, so they take no memory of their own.
#[derive(Debug)]
pub(crate) enum Source {
    Mapped(Mmap),
    /// There is nothing to map in an empty file.
    Empty,
    /// Never was a file of this system.
    Given(Arc<[u8]>),
}

/// Where inputs are found by their paths.
#[derive(Debug)]
pub(crate) enum Files<'a> {
    /// On this system, `-` being standard input.
    System,
    /// Among these names alone.
    Memory(&'a HashMap<PathBuf, Arc<[u8]>>),
}

impl Files<'_> {
    /// The bytes at a path.
    pub(super) fn open(&self, path: &Path) -> io::Result<Source> {
        match self {
            Files::System => Source::open(path),
            Files::Memory(files) => match files.get(path) {
                Some(bytes) => Ok(Source::Given(bytes.clone())),
                None => Err(io::Error::other("there is no such file")),
            },
        }
    }
}

impl Source {
    /// Opens a file, or for `-` standard input, which is copied into a file that has no name.
    pub(super) fn open(path: &Path) -> io::Result<Source> {
        if path.as_os_str() == STANDARD {
            let mut file = tempfile::tempfile()?;
            io::copy(&mut io::stdin().lock(), &mut file)?;
            return Source::map(&file);
        }
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Source::map(&File::open(path)?)
    }

    pub(super) fn map(file: &File) -> io::Result<Source> {
        if file.metadata()?.len() == 0 {
            return Ok(Source::Empty);
        }
        // SAFETY: the mapping is private and read-only. Whoever writes to the file meanwhile can change
        // the bytes read, or have this process killed by shortening it; that is all they can do, for every
        // value of a byte is a valid one where they are used: as bytes, integers and floats.
        unsafe { Mmap::map(file) }.map(Source::Mapped)
    }
}

impl Deref for Source {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Source::Mapped(map) => map,
            Source::Empty => &[],
            Source::Given(bytes) => bytes,
        }
    }
}

/// How an input is called in messages.
pub(crate) fn shown(path: &Path) -> String {
    if path.as_os_str() == STANDARD { "standard input".into() } else { text::path(path) }
}

/// What is wrong with the input that `argument` names.
pub(crate) fn wrong(argument: &str, path: &Path, problem: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("{argument} `{}`: {problem}", shown(path)))
}

/// What is wrong with a safetensors file, as a sentence.
pub(crate) fn broken(problem: impl std::fmt::Display) -> String {
    format!("expected a whole safetensors file, but {problem}")
}
