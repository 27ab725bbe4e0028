//! `gradclip clip`: file -> clip -> file and report.

use std::path::PathBuf;

use clap::ValueEnum;
use gradclip::{Clip, NonFinite, NormType, Report, Target};

use crate::failure::Failure;
use crate::file::{GradientFile, Output};
use crate::summary::Summary;
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
    /// Clip to this norm: 0 makes zeros, `inf` only measures
    #[arg(long, value_name = "C", allow_hyphen_values = true, value_parser = options::max_norm)]
    max_norm: f32,
    /// What shares one norm
    #[arg(long, value_enum, default_value_t = Sharing::Global)]
    scope: Sharing,
    /// Norm type: 2, 1, inf or any P above 0
    #[arg(long, value_name = "P", default_value = "2", allow_hyphen_values = true,
        value_parser = options::norm_type)]
    norm: NormType,
    /// Added to the norm in the quotient C / (norm + E); 1e-6 reproduces PyTorch
    #[arg(long, value_name = "E", default_value = "0", allow_hyphen_values = true,
        value_parser = options::eps)]
    eps: f32,
    /// Multiply the gradients by 1/S first: S is the loss scale or the number of accumulated steps
    #[arg(long, value_name = "S", default_value = "1", allow_hyphen_values = true,
        value_parser = options::unscale)]
    unscale: f32,
    /// What an infinite or NaN element does, with `--scope tensor` to its tensor
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
enum Sharing {
    /// The whole set
    Global,
    /// Each tensor by itself
    Tensor,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Policy {
    /// Exit with code 3, name the first such tensor, write nothing
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
        let clip = match self.scope {
            Sharing::Global => Clip::global_norm(self.max_norm),
            Sharing::Tensor => Clip::per_tensor_norm(self.max_norm),
        };
        let policy = match self.on_nonfinite {
            Policy::Error | Policy::Skip => NonFinite::Skip,
            Policy::Zero => NonFinite::Zero,
            Policy::Sanitize => NonFinite::Sanitize,
            Policy::Nan => NonFinite::Nan,
        };
        clip.norm_type(self.norm).eps(self.eps).unscale(self.unscale).on_non_finite(policy)
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let clip = args.clip();
    clip.validate()?;
    let mut file = GradientFile::read(&args.input)?;
    let output = args.out.as_deref().map(Output::prepare).transpose()?;
    let session = device::open(&args.device)?;
    let mut report = session.clip(&mut file.grads(), &clip)?;
    let refused = args.on_nonfinite == Policy::Error && report.non_finite() > 0;
    if refused {
        // Nothing leaves this process, the tensors without non-finite elements included.
        for segment in &mut report.segments {
            (segment.clipped, segment.coefficient) = (false, 1.0);
        }
    }
    let mut summary = Summary::new(&report, &clip, session.adapter());
    if let (Some(output), false) = (output, refused) {
        output.commit(&file)?;
        summary.written = args.out.as_deref();
    }
    if args.json {
        text::print_json(&summary.json())?
    } else {
        text::print(&summary.text())?
    }
    if refused { Err(non_finite(&report)) } else { Ok(()) }
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
