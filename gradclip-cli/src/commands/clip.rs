//! `gradclip clip`: files -> clip -> files and report.

use std::path::PathBuf;

use clap::ValueEnum;
#[cfg(not(target_arch = "wasm32"))]
use gradclip::Target;
use gradclip::{Clip, NonFinite, Report, Rule};

#[cfg(not(target_arch = "wasm32"))]
use crate::args::device;
use crate::args::groups::{GroupArgs, Part};
use crate::args::options;
use crate::args::precision::Precision;
use crate::args::rule::RuleArgs;
use crate::failure::Failure;
use crate::input::{Files, Parameters, Set, is_index};
use crate::job::{Done, Job};
use crate::output;
#[cfg(not(target_arch = "wasm32"))]
use crate::output::Destination;
use crate::output::{Clipped, OutType};
#[cfg(not(target_arch = "wasm32"))]
use crate::summary::Summary;
use crate::text;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Safetensors files, all of whose tensors are one gradient set; `*.safetensors.index.json` stands for the shards
    /// that it names, `-` for standard input. Gradients are F32, F16, BF16 and, on the CPU path, F64; integers and BOOL
    /// are passed through; any other type is refused
    #[arg(value_name = "INPUT", required = true)]
    pub(crate) input: Vec<PathBuf>,
    /// Write the clipped gradients: same names, shapes, types and metadata. With several INPUTs or an index a folder,
    /// with the shards by their names and the index; `-` is standard output. Never leaves half a file, nor some of the
    /// shards
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Element type of the gradients that are written
    #[arg(long, value_enum, default_value_t = OutType::Same)]
    pub(crate) out_type: OutType,
    #[command(flatten)]
    rule: RuleArgs,
    #[command(flatten)]
    groups: GroupArgs,
    /// Multiply the gradients by 1/S first: S is the loss scale or the number of accumulated steps
    #[arg(long, value_name = "S", default_value = "1", allow_hyphen_values = true,
        value_parser = options::scale)]
    unscale: f64,
    /// Let --unscale rewrite F16 as F16, which loses what is small. Without it that is refused; `--out-type f32` loses
    /// nothing
    #[arg(long)]
    lossy_unscale: bool,
    /// Round products towards zero, so that the norm of the result is at most C exactly
    #[arg(long)]
    never_above: bool,
    /// What an infinite or NaN element does: with `--scope tensor`, `--group` and `--block-rms` to its tensor or group,
    /// with `--agc` to its unit
    #[arg(long, value_enum, default_value_t = Policy::Error)]
    on_nonfinite: Policy,
    #[cfg(not(target_arch = "wasm32"))]
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device::target,
        help = device::HELP)]
    pub(crate) device: Target,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Policy {
    /// Exit with code 3, name the first such tensor, write nothing; with `--value` clamp infinities
    /// and leave NaN
    Error,
    /// Leave all gradients as they are
    Skip,
    /// Set all gradients to 0
    Zero,
    /// Set the offending elements to 0 and clip the rest
    Sanitize,
    /// Set all gradients to NaN
    Nan,
}

impl Args {
    fn clip(&self, precision: Precision) -> Result<Clip, Failure> {
        let policy = match self.on_nonfinite {
            Policy::Error => None,
            Policy::Skip => Some(NonFinite::Skip),
            Policy::Zero => Some(NonFinite::Zero),
            Policy::Sanitize => Some(NonFinite::Sanitize),
            Policy::Nan => Some(NonFinite::Nan),
        };
        let clip = self.rule.clip(policy, !self.groups.group.is_empty(), precision)?;
        let clip = clip.unscale(precision.inverse(self.unscale)?);
        // F16 that is written as F32 loses nothing.
        let clip = clip.lossy_unscale(self.lossy_unscale || self.out_type == OutType::F32);
        let clip = if self.never_above { clip.never_above(true) } else { clip };
        clip.validate()?;
        Ok(clip)
    }

    /// The parameters, where the rule needs some.
    fn parameters(&self, files: &Files<'_>, set: &Set) -> Result<Option<Parameters>, Failure> {
        if self.rule.params.is_empty() {
            return Ok(None);
        }
        let excluded = self.groups.excluded(set)?;
        Parameters::open(files, &self.rule.params, &set.gradients, |i| !excluded[i]).map(Some)
    }

    /// Opens what is asked about, and checks what is asked.
    pub(crate) fn asked(&self, files: &Files<'_>) -> Result<Asked, Failure> {
        let set = Set::open(files, "INPUT", &self.input)?;
        let parameters = self.parameters(files, &set)?;
        let precision = Precision::of(&set, parameters.as_ref());
        let clip = self.clip(precision)?;
        let parts = self.groups.parts(&set, precision)?;
        Ok(Asked { set, parameters, precision, clip, parts, out: self.out_type })
    }

    /// Whether the result is a folder.
    pub(crate) fn folder(&self) -> bool {
        self.input.len() > 1 || self.input.iter().any(|input| is_index(input))
    }

    /// Has the gradients written, unless what was found forbids it.
    pub(crate) fn write(
        &self,
        clip: &Clip,
        done: &mut Done<'_>,
        write: impl FnOnce(&mut dyn Clipped) -> Result<(), Failure>,
    ) -> Result<Written, Failure> {
        let strict = self.on_nonfinite == Policy::Error && clip.rule != Rule::Value;
        if strict && done.report.non_finite() > 0 {
            refuse(&mut done.report);
            return Ok(Written { refused: true, name: None, norm_after: None });
        }
        write(done.clipped.as_clipped())?;
        let name = self.out.as_deref().map(output::written);
        Ok(Written { refused: false, name, norm_after: Some(done.clipped.norm()?) })
    }
}

/// What is to be done to which gradients.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) set: Set,
    pub(crate) parameters: Option<Parameters>,
    pub(crate) precision: Precision,
    pub(crate) clip: Clip,
    parts: Vec<Part>,
    out: OutType,
}

impl Asked {
    pub(crate) fn job(&self) -> Job<'_> {
        let Asked { set, parameters, clip, parts, out, .. } = self;
        Job { set, parts, parameters: parameters.as_ref(), clip, out: *out }
    }
}

/// What became of the gradients.
#[derive(Debug)]
pub(crate) struct Written {
    /// Whether nothing was written, for what is not finite.
    pub(crate) refused: bool,
    /// Where they went, in words.
    pub(crate) name: Option<String>,
    /// The norm of all gradients as they were written.
    pub(crate) norm_after: Option<f64>,
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let asked = args.asked(&Files::System)?;
    let Asked { set, clip, precision, .. } = &asked;
    let destination = Destination::prepare(args.out.as_deref(), set, args.folder())?;
    let session = device::open_for(&args.device, set, asked.parameters.as_ref())?;
    let mut done = asked.job().run(&session)?;
    let adapter = device::used(&session);
    let to_error = destination.is_standard();
    let write = |clipped: &mut dyn Clipped| destination.commit(set, clipped, args.out_type);
    let Written { refused, name: written, norm_after } = args.write(clip, &mut done, write)?;
    let report = &done.report;
    let summary = Summary { report, clip, set, precision: *precision, adapter, written, norm_after };
    summary.print(args.json, to_error)?;
    if refused { Err(non_finite(report)) } else { Ok(()) }
}

/// Nothing leaves this process, the tensors without non-finite elements included.
fn refuse(report: &mut Report) {
    for segment in &mut report.segments {
        (segment.clipped, segment.coefficient) = (false, 1.0);
    }
    report.clipped_segments = 0;
}

/// Why nothing was written.
pub(crate) fn non_finite(report: &Report) -> Failure {
    let mut found = report.tensors.iter().filter(|t| t.non_finite > 0);
    let what = match found.next() {
        // One of the gradient counts before those of its parameter.
        Some(t) if t.non_finite == t.non_finite_parameters => {
            format!("the parameter of tensor `{}` (--params)", text::escaped(&t.name))
        }
        first => format!("tensor `{}`", text::escaped(first.map_or("", |t| &*t.name))),
    };
    let tensors = found.count() as u64 + 1;
    Failure::NonFinite(format!(
        "{what} has non-finite elements ({} in {}); nothing was written. \
         `--on-nonfinite` has other ways: skip, zero, sanitize, nan",
        text::count(report.non_finite()),
        text::counted(tensors, "tensor"),
    ))
}
