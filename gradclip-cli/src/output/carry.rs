//! What else lies in a folder that is about to be replaced goes along.

use std::fs;
use std::io;
use std::path::Path;

/// Gives everything in `from` that `to` lacks a place in `to`: the same files by hard links, or copies where
/// links fail.
pub(super) fn carry(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        let there = fs::symlink_metadata(&new).ok();
        match (entry.file_type()?.is_dir(), there) {
            (true, Some(there)) if !there.is_dir() => {
                return Err(io::Error::other(format!("`{}` is a folder", entry.path().display())));
            }
            (true, there) => {
                same_device(from, &old)?;
                if there.is_none() {
                    fs::create_dir(&new)?;
                }
                carry(&old, &new)?;
                if there.is_none() {
                    fs::set_permissions(&new, fs::metadata(&old)?.permissions())?;
                }
            }
            (false, None) => fs::hard_link(&old, &new).or_else(|_| copy(&old, &new))?,
            // Replaced by what was written.
            (false, Some(_)) => {}
        }
    }
    Ok(())
}

/// A folder with a file system of its own cannot be moved with the one that holds it.
fn same_device(from: &Path, folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if fs::metadata(from)?.dev() != fs::symlink_metadata(folder)?.dev() {
            return Err(io::Error::other(format!("`{}` is another file system", folder.display())));
        }
    }
    let _ = (from, folder);
    Ok(())
}

fn copy(old: &Path, new: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(old)?.file_type();
    if kind.is_file() {
        fs::copy(old, new)?;
        return fs::File::open(new)?.sync_all();
    }
    #[cfg(unix)]
    if kind.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(old)?, new);
    }
    Err(io::Error::other(format!("`{}` can be neither linked nor copied", old.display())))
}
