//! `gradclip norm`: measures only.

use std::path::PathBuf;

use gradclip::{Clip, NormType, Target};

use crate::args::device;
use crate::args::options;
use crate::args::precision::Precision;
use crate::failure::Failure;
use crate::input::{Files, Set};
use crate::job::Job;
use crate::summary::Summary;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Safetensors files, all of whose tensors are one gradient set; `*.safetensors.index.json` stands for the shards
    /// that it names, `-` for standard input. Tensors of integers and BOOL are left out
    #[arg(value_name = "INPUT", required = true)]
    input: Vec<PathBuf>,
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
    let set = Set::open(&Files::System, "INPUT", &args.input)?;
    let session = device::open_for(&args.device, &set, None)?;
    let done = Job::measure(&set, &clip).run(&session)?;
    let summary = Summary {
        report: &done.report,
        clip: &clip,
        set: &set,
        precision: Precision::of(&set, None),
        adapter: device::used(&session),
        written: None,
        norm_after: None,
    };
    summary.print(args.json, false)
}
