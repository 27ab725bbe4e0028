//! `gradclip clip` without a file system: the same words, the same report, the same bytes.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;

use crate::commands::clip::{Args, Asked, Written, non_finite};
use crate::failure::Failure;
use crate::input::{Files, STANDARD};
use crate::output;
use crate::summary::Summary;

/// The command by itself.
#[derive(Parser)]
#[command(name = "gradclip clip")]
struct Command {
    #[command(flatten)]
    args: Args,
}

/// What a clip made of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClippedFile {
    /// The file that `gradclip clip` would have written.
    pub bytes: Vec<u8>,
    /// What it would have printed.
    pub report: String,
}

/// Why there is no such file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The exit code that `gradclip clip` would have had.
    pub code: u8,
    /// What it would have said on standard error, without `error: `.
    pub message: String,
    /// What it would have printed before that, where it measured something.
    pub report: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused { code: failure.code(), message: failure.to_string(), report: None }
    }
}

/// What clap says, without the word that begins each error.
fn unprefixed(words: &str) -> String {
    words.strip_prefix("error: ").unwrap_or(words).trim_end().to_owned()
}

/// Does what `gradclip clip` does with these arguments on the CPU path, to files that are looked up by their names.
///
/// # Errors
///
/// [`Refused`], as the command refuses it; also where there is more than one file to write, which takes a folder.
///
/// ```
/// use std::collections::HashMap;
///
/// let file = std::fs::read("../tests/data/lstm_exploding.safetensors")?;
/// let files = HashMap::from([("in.safetensors".into(), file.into())]);
/// let arguments = ["in.safetensors", "--max-norm", "1", "--out", "out.safetensors"];
/// let clipped = gradclip_cli::clip_in_memory(&arguments, &files)?;
/// assert!(clipped.report.contains("6.639851e7"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn clip_in_memory(
    arguments: &[&str],
    files: &HashMap<PathBuf, Arc<[u8]>>,
) -> Result<ClippedFile, Refused> {
    let all = std::iter::once("gradclip clip").chain(arguments.iter().copied());
    let Command { args } = Command::try_parse_from(all).map_err(|error| Refused {
        code: error.exit_code() as u8,
        message: unprefixed(&error.to_string()),
        report: None,
    })?;
    if args.folder() || args.input.iter().any(|input| input == Path::new(STANDARD)) {
        let expected = "INPUT: expected one safetensors file; several, an index and standard input are for the command line";
        return Err(Failure::Usage(expected.into()).into());
    }
    #[cfg(not(target_arch = "wasm32"))]
    if !matches!(args.device, gradclip::Target::Auto | gradclip::Target::Cpu) {
        return Err(Failure::Usage("--device: expected the CPU path".into()).into());
    }
    let asked = args.asked(&Files::Memory(files))?;
    let Asked { set, clip, precision, .. } = &asked;
    let mut done = asked.job().on_cpu()?;
    let mut bytes = Vec::new();
    let Written { refused, name: written, norm_after } = args.write(clip, &mut done, |clipped| {
        output::write(set, 0, clipped, args.out_type, &mut bytes)
            .map_err(|error| Failure::Usage(error.to_string()))
    })?;
    let report = &done.report;
    let summary = Summary { report, clip, set, precision: *precision, adapter: None, written, norm_after };
    let text = summary.shown(args.json);
    match refused {
        true => Err(Refused { report: Some(text), ..non_finite(report).into() }),
        false => Ok(ClippedFile { bytes, report: text }),
    }
}
