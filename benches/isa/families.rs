//! RADV reads the family it pretends to be when it is loaded: each has a process of its own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::figures::Row;
use crate::options::Options;

/// Where manifests of drivers lie.
const FOLDERS: [&str; 3] = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// The rows of a family, from this program started again.
pub(crate) fn figures(family: &str, options: &Options) -> Result<Vec<Row>, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(&options.arguments).arg("--one-family").env("RADV_FORCE_FAMILY", family);
    if std::env::var_os("VK_DRIVER_FILES").is_none() {
        let manifest =
            manifest().ok_or("RADV is not installed (no radeon_icd*.json): mesa-vulkan-drivers has it")?;
        command.env("VK_DRIVER_FILES", &manifest).env("VK_ICD_FILENAMES", &manifest);
    }
    // Mesa's layer that reorders devices; it looks for a display and prints errors without one.
    command.env("NODEVICE_SELECT", "1").stdout(Stdio::piped());
    let output = command.output().map_err(|error| format!("{family}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{family}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| Row::read(line).ok_or(format!("{family} said: {line}"))).collect()
}

fn manifest() -> Option<PathBuf> {
    let files = FOLDERS.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let mut named: Vec<PathBuf> = files
        .map(|file| file.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("radeon_icd") && name.ends_with(".json")
        })
        .collect();
    // The one for this machine before those of others.
    named.sort_by_key(|path| !path.to_string_lossy().contains(std::env::consts::ARCH));
    named.into_iter().next()
}
