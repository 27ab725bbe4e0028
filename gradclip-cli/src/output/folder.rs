//! A folder of shards that appears whole or not at all, at whatever moment this process ends.
//!
//! Everything is written into a temporary folder beside the target. Then one call to the system gives it the
//! target's name: a rename where the target is new or empty, else an exchange of both folders, after which the
//! old one is removed. What else lies in the target goes along.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::carry::carry;
use super::file::{folder_of, sync_folder};
use super::{Clipped, OutType, head, of, shard};
use crate::failure::Failure;
use crate::input::{Index, STANDARD, Set};
use crate::text;

/// A folder on its way.
#[derive(Debug)]
pub(crate) struct FolderOutput {
    option: &'static str,
    temporary: TempDir,
    target: PathBuf,
    /// Whether the target holds something.
    full: bool,
}

impl FolderOutput {
    /// Makes sure, before any work is done, that a folder at `path` can be made or replaced.
    pub(super) fn prepare(option: &'static str, path: &Path, set: &Set) -> Result<FolderOutput, Failure> {
        let wrong = |problem: String| unwritable(option, path, problem);
        let names = names(set).map_err(wrong)?;
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let found = fs::symlink_metadata(&target).ok();
        if found.as_ref().is_some_and(|found| !found.is_dir()) {
            return Err(wrong("it is something other than a folder".into()));
        }
        if target.file_name().is_none() {
            return Err(wrong("it has no name that could be given to another folder".into()));
        }
        let mut full = false;
        if found.is_some() {
            replaceable(&target).map_err(wrong)?;
            full = fs::read_dir(&target).map_err(|error| wrong(error.to_string()))?.next().is_some();
            if let Some(name) =
                names.iter().find(|name| fs::symlink_metadata(target.join(name)).is_ok_and(|m| m.is_dir()))
            {
                return Err(wrong(format!(
                    "`{}` in it is a folder, where a file is to be written",
                    text::path(name)
                )));
            }
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".gradclip-");
        // Temporary folders are private unless told otherwise, and the result is not meant to be.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let temporary = builder.tempdir_in(folder_of(&target)).map_err(|error| wrong(error.to_string()))?;
        if full {
            can_exchange(temporary.path()).map_err(|error| {
                wrong(format!("it holds files and cannot be exchanged with another folder at once ({error}); name a new one"))
            })?;
        }
        Ok(FolderOutput { option, temporary, target, full })
    }

    /// Writes all files, and gives the folder its name once they are whole and on the disk.
    pub(super) fn commit(self, set: &Set, clipped: &mut dyn Clipped, out: OutType) -> Result<(), Failure> {
        let (option, target) = (self.option, self.target.clone());
        self.write(set, clipped, out)
            .and_then(|()| self.publish())
            .map_err(|error| unwritable(option, &target, error))
    }

    fn write(&self, set: &Set, clipped: &mut dyn Clipped, out: OutType) -> io::Result<()> {
        let create = |name: &Path| {
            let path = self.temporary.path().join(name);
            fs::create_dir_all(folder_of(&path))?;
            File::create_new(path)
        };
        for (i, file) in set.files.iter().enumerate() {
            let to = create(&file.name)?;
            shard::write(set, i, clipped, out, &to)?;
            to.sync_all()?;
        }
        for (i, index) in set.indexes.iter().enumerate() {
            let own = || set.files.iter().filter(|file| file.index == Some(i));
            let size = |out| own().map(|file| head::size(file, out)).sum::<u64>();
            let mut to = create(name_of(index))?;
            match size(out) == size(OutType::Same) {
                true => to.write_all(&index.bytes)?,
                false => to.write_all(&index.resized(size(out)))?,
            }
            to.sync_all()?;
        }
        Ok(())
    }

    /// The one step, before which nothing and after which everything is there.
    fn publish(self) -> io::Result<()> {
        let FolderOutput { temporary, target, full, .. } = self;
        if fs::symlink_metadata(&target).is_ok() {
            carry(&target, temporary.path())?;
            fs::set_permissions(temporary.path(), fs::metadata(&target)?.permissions())?;
        }
        folders(temporary.path())?.iter().try_for_each(|folder| sync_folder(folder))?;
        if !full {
            fs::rename(temporary.path(), &target)?;
            // From here on there is nothing to remove.
            let _ = temporary.keep();
            return sync_folder(folder_of(&target));
        }
        exchange(temporary.path(), &target)?;
        sync_folder(folder_of(&target))?;
        remove_old(temporary, &target);
        Ok(())
    }
}

/// Removes the folder of before, and nothing that others put there meanwhile. The result is there whether this
/// succeeds or not.
fn remove_old(old: TempDir, target: &Path) {
    let path = old.path().to_owned();
    let removed = match carry(&path, target) {
        Ok(()) => old.close(),
        Err(error) => {
            let _ = old.keep();
            Err(error)
        }
    };
    if let Err(error) = removed {
        let path = text::path(&path);
        text::note(&format!("note: `{path}`, which holds the files of before, was left there: {error}"));
    }
}

/// The names of what is written, each once.
fn names(set: &Set) -> Result<Vec<&Path>, String> {
    let mut from: HashMap<&Path, &Path> = HashMap::new();
    let files = set.files.iter().map(|file| (file.name.as_path(), file.path.as_path()));
    let indexes = set.indexes.iter().map(|index| (name_of(index), index.path.as_path()));
    let mut names = Vec::new();
    for (name, path) in files.chain(indexes) {
        if path.as_os_str() == STANDARD {
            return Err("standard input has no name to be written under".into());
        }
        if let Some(first) = from.insert(name, path) {
            let name = text::path(name);
            return Err(format!("`{}` and `{}` would both be written as `{name}`", of(first), of(path)));
        }
        names.push(name);
    }
    Ok(names)
}

/// An index is read by its name, so it has one.
fn name_of(index: &Index) -> &Path {
    index.path.file_name().map_or(Path::new("model.safetensors.index.json"), Path::new)
}

/// Whether a folder may get another one in its place.
fn replaceable(target: &Path) -> Result<(), String> {
    let current = std::env::current_dir().and_then(fs::canonicalize);
    if current.is_ok_and(|current| current.starts_with(target)) {
        return Err("it is or holds the current folder, which cannot be replaced as a whole; run from elsewhere or name \
                    another folder"
            .into());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).map_err(|error| error.to_string());
        if device(target)? != device(folder_of(target))? {
            return Err(
                "a file system is mounted there, which cannot be replaced; name a folder within it".into()
            );
        }
    }
    Ok(())
}

/// All folders within and including one.
fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = vec![folder.to_owned()];
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all.extend(folders(&entry.path())?);
        }
    }
    Ok(all)
}

/// Tries on two folders of no use, in the place where it will be done.
fn can_exchange(within: &Path) -> io::Result<()> {
    let (a, b) = (within.join("a"), within.join("b"));
    fs::create_dir(&a)?;
    fs::create_dir(&b)?;
    exchange(&a, &b)?;
    fs::remove_dir(&a)?;
    fs::remove_dir(&b)
}

/// Gives each of two folders the other's name, at once.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).map_err(io::Error::from)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

fn unwritable(option: &str, path: &Path, problem: impl std::fmt::Display) -> Failure {
    let path = text::path(path);
    Failure::Usage(format!(
        "{option} `{path}`: expected a folder that can be made or replaced, but {problem}"
    ))
}
