//! `gradclip clip`: file -> clip -> file and report.

use std::path::PathBuf;

use clap::ValueEnum;
use gradclip::{Clip, NonFinite, Report, Rule, Session, Target};

use crate::failure::Failure;
use crate::file::GradientFile;
use crate::output::Output;
use crate::params::Parameters;
use crate::rule::RuleArgs;
use crate::summary::Summary;
use crate::tensor::Tensor;
use crate::{device, options, text};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Safetensors file, all of whose tensors are one gradient set. Their types may be F32, F16 and
    /// BF16; a file with any other is refused
    #[arg(value_name = "INPUT.safetensors")]
    input: PathBuf,
    /// Write the clipped gradients: same names, shapes, types and metadata. Never leaves half a file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    rule: RuleArgs,
    /// Multiply the gradients by 1/S first: S is the loss scale or the number of accumulated steps
    #[arg(long, value_name = "S", default_value = "1", allow_hyphen_values = true,
        value_parser = options::unscale)]
    unscale: f32,
    /// What an infinite or NaN element does: with `--scope tensor` and `--block-rms` to its tensor,
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
    fn clip(&self) -> Clip {
        let policy = match self.on_nonfinite {
            Policy::Error => None,
            Policy::Skip => Some(NonFinite::Skip),
            Policy::Zero => Some(NonFinite::Zero),
            Policy::Sanitize => Some(NonFinite::Sanitize),
            Policy::Nan => Some(NonFinite::Nan),
        };
        self.rule.clip(policy).unscale(self.unscale)
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let clip = args.clip();
    clip.validate()?;
    let mut file = GradientFile::read("INPUT", &args.input)?;
    let parameters = args.rule.params.as_deref().map(|path| Parameters::read(path, &file)).transpose()?;
    let output = args.out.as_deref().map(|path| Output::prepare("--out", path)).transpose()?;
    let session = device::open(&args.device)?;
    let mut report = clipped(&session, &mut file, parameters.as_ref(), &clip)?;
    let refused = args.on_nonfinite == Policy::Error && clip.rule != Rule::Value && report.non_finite() > 0;
    if refused {
        refuse(&mut report);
    }
    let mut summary = Summary::new(&report, &clip, session.adapter());
    if let (Some(output), false) = (output, refused) {
        output.commit(|to| file.write(to))?;
        summary.written = args.out.as_deref();
    }
    if args.json {
        text::print_json(&summary.json())?
    } else {
        text::print(&summary.text())?
    }
    if refused { Err(non_finite(&report)) } else { Ok(()) }
}

fn clipped(
    session: &Session,
    file: &mut GradientFile,
    parameters: Option<&Parameters>,
    clip: &Clip,
) -> Result<Report, Failure> {
    let norms = if clip.rule == Rule::Value { Some(norms(session, &file.tensors, clip)?) } else { None };
    let mut report = session.clip(&mut file.grads(parameters), clip)?;
    // Value clipping itself looks at the largest magnitudes only.
    for (tensor, norm) in report.tensors.iter_mut().zip(norms.into_iter().flatten()) {
        tensor.norm = norm;
    }
    Ok(report)
}

/// The L2 norms of the tensors as a clip by norm would report them.
fn norms(session: &Session, tensors: &[Tensor], clip: &Clip) -> Result<Vec<f64>, Failure> {
    let policy = match clip.non_finite {
        NonFinite::Sanitize => NonFinite::Sanitize,
        _ => NonFinite::Skip,
    };
    let measure = Clip::measure().unscale(clip.unscale).on_non_finite(policy);
    // Unscaling and sanitising change elements, and belong to the clip that follows.
    let mut copies = tensors.to_vec();
    let mut grads: Vec<_> = copies.iter_mut().map(Tensor::grad).collect();
    let report = session.clip(&mut grads, &measure)?;
    Ok(report.tensors.iter().map(|t| t.norm).collect())
}

/// Nothing leaves this process, the tensors without non-finite elements included.
fn refuse(report: &mut Report) {
    for segment in &mut report.segments {
        (segment.clipped, segment.coefficient) = (false, 1.0);
    }
    report.clipped_segments = 0;
}

fn non_finite(report: &Report) -> Failure {
    let tensors = report.tensors.iter().filter(|t| t.non_finite > 0).count() as u64;
    Failure::NonFinite(format!(
        "tensor `{}` has non-finite elements ({} in {}); nothing was written. \
         `--on-nonfinite` has other ways: skip, zero, sanitize, nan",
        report.first_non_finite().unwrap_or_default(),
        text::count(report.non_finite()),
        text::counted(tensors, "tensor"),
    ))
}
