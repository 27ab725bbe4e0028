//! `gradclip clip`: files -> clip -> files and report.

use std::path::PathBuf;

use clap::ValueEnum;
use gradclip::{Clip, NonFinite, Report, Rule, Target};

use crate::args::device;
use crate::args::groups::GroupArgs;
use crate::args::options;
use crate::args::precision::Precision;
use crate::args::rule::RuleArgs;
use crate::failure::Failure;
use crate::input::{Parameters, Set, is_index};
use crate::job::Job;
use crate::output;
use crate::output::{Destination, OutType};
use crate::summary::Summary;
use crate::text;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Safetensors files, all of whose tensors are one gradient set; `*.safetensors.index.json` stands for the shards
    /// that it names, `-` for standard input. Gradients are F32, F16, BF16 and, on the CPU path, F64; integers and BOOL
    /// are passed through; any other type is refused
    #[arg(value_name = "INPUT", required = true)]
    input: Vec<PathBuf>,
    /// Write the clipped gradients: same names, shapes, types and metadata. With several INPUTs or an index a folder,
    /// with the shards by their names and the index; `-` is standard output. Never leaves half a file, nor some of the
    /// shards
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Element type of the gradients that are written
    #[arg(long, value_enum, default_value_t = OutType::Same)]
    out_type: OutType,
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
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device::target,
        help = device::HELP)]
    device: Target,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
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
    fn parameters(&self, set: &Set) -> Result<Option<Parameters>, Failure> {
        if self.rule.params.is_empty() {
            return Ok(None);
        }
        let excluded = self.groups.excluded(set)?;
        Parameters::open(&self.rule.params, &set.gradients, |i| !excluded[i]).map(Some)
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let set = Set::open("INPUT", &args.input)?;
    let parameters = args.parameters(&set)?;
    let precision = Precision::of(&set, parameters.as_ref());
    let clip = args.clip(precision)?;
    let parts = args.groups.parts(&set, precision)?;
    let folder = args.input.len() > 1 || args.input.iter().any(|input| is_index(input));
    let destination = Destination::prepare(args.out.as_deref(), &set, folder)?;
    let session = device::open_for(&args.device, &set, parameters.as_ref())?;
    let job =
        Job { set: &set, parts: &parts, parameters: parameters.as_ref(), clip: &clip, out: args.out_type };
    let mut done = job.run(&session)?;
    let adapter = device::used(&session);
    let refused =
        args.on_nonfinite == Policy::Error && clip.rule != Rule::Value && done.report.non_finite() > 0;
    let to_error = destination.is_standard();
    let mut norm_after = None;
    let mut written = None;
    if refused {
        refuse(&mut done.report);
    } else {
        destination.commit(&set, done.clipped.as_clipped(), args.out_type)?;
        norm_after = Some(done.clipped.norm()?);
        written = args.out.as_deref().map(output::written);
    }
    let report = &done.report;
    let summary = Summary { report, clip: &clip, set: &set, precision, adapter, written, norm_after };
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

fn non_finite(report: &Report) -> Failure {
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
