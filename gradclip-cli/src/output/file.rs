//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::Failure;
use crate::text;

/// A file on its way: a temporary one in the same folder, renamed when it is complete.
#[derive(Debug)]
pub(crate) struct Output {
    option: &'static str,
    temporary: NamedTempFile,
    path: PathBuf,
}

impl Output {
    /// Makes sure, before any work is done, that the file which `option` names can be written.
    pub(crate) fn prepare(option: &'static str, path: &Path) -> Result<Output, Failure> {
        // A link stays one, and its target is replaced; a device or folder must never be.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if fs::metadata(&path).is_ok_and(|m| !m.is_file()) || path.file_name().is_none() {
            return Err(unwritable(option, &path, "it is something other than a file"));
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".gradclip-");
        // Temporary files are private unless told otherwise, and the result is not meant to be.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary =
            builder.tempfile_in(folder_of(&path)).map_err(|error| unwritable(option, &path, error))?;
        Ok(Output { option, temporary, path })
    }

    /// Writes the file, and gives it its name once it is whole and on the disk.
    pub(crate) fn commit(self, write: impl FnOnce(&File) -> io::Result<()>) -> Result<(), Failure> {
        let Output { option, temporary, path } = self;
        let written = write(temporary.as_file()).and_then(|()| temporary.as_file().sync_all());
        written.map_err(|error| unwritable(option, &path, error))?;
        temporary.persist(&path).map_err(|error| unwritable(option, &path, error.error))?;
        sync_folder(folder_of(&path)).map_err(|error| unwritable(option, &path, error))
    }
}

/// The folder that a path lies in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes names that were given, taken or exchanged in a folder last.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened, and need not be.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn unwritable(option: &str, path: &Path, problem: impl std::fmt::Display) -> Failure {
    let path = text::path(path);
    Failure::Usage(format!("{option} `{path}`: expected a file that can be written, but {problem}"))
}
