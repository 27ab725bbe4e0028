//! `gradclip norm`: measures only.

use std::path::PathBuf;

use gradclip::{Clip, NormType, Target};

use crate::failure::Failure;
use crate::file::GradientFile;
use crate::summary::Summary;
use crate::{device, options, text};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Safetensors file with tensors of F32, F16 and BF16; a file with any other is refused
    #[arg(value_name = "INPUT.safetensors")]
    input: PathBuf,
    /// Norm type: 2, 1, inf or any P above 0
    #[arg(long, value_name = "P", default_value = "2", allow_hyphen_values = true,
        value_parser = options::norm_type)]
    norm: NormType,
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device::target,
        help = device::HELP)]
    device: Target,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let clip = Clip::measure().norm_type(args.norm);
    let mut file = GradientFile::read("INPUT", &args.input)?;
    let session = device::open(&args.device)?;
    let report = session.clip(&mut file.grads(None), &clip)?;
    let summary = Summary::new(&report, &clip, session.adapter());
    if args.json { text::print_json(&summary.json()) } else { text::print(&summary.text()) }
}
