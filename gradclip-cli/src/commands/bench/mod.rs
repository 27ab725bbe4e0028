//! `gradclip bench`: CPU against GPU on this machine, clipped and not clipped.

mod arm;
mod cpu;
mod crossing;
mod gpu;
mod picture;
mod report;
mod room;
mod sweep;
mod time;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use gradclip::{Scope, Target};

use crate::args::device;
use crate::args::options;
use crate::commands::bench::report::Findings;
use crate::commands::bench::sweep::Sweep;
use crate::commands::bench::time::Pace;
use crate::commands::bench::work::Work;
use crate::failure::Failure;
use crate::output::Output;
use crate::text;
use gradclip_verify::gpu::Gpu;
use gradclip_verify::sets;
use gradclip_verify::sets::scope::{self, Cut};

/// Bandwidth is measured over at least this many elements, so that no cache holds them.
const LEAST_COPIED: u64 = 1 << 24;
/// More tensors than any model has; each takes some memory by itself.
const MOST_TENSORS: i64 = 1_000_000;
const PACE: Pace = Pace { budget: Duration::from_secs(10), rounds: (5, 51) };

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tensors of a well-known model; resnet50 by default
    #[arg(long, value_name = "NAME", conflicts_with_all = ["tensors", "elements"],
        value_parser = PossibleValuesParser::new(sets::PRESETS.map(|preset| preset.name)))]
    preset: Option<String>,
    /// This many tensors, together with --elements
    #[arg(long, value_name = "N", requires = "elements",
        value_parser = clap::value_parser!(u32).range(1..=MOST_TENSORS))]
    tensors: Option<u32>,
    /// Elements of each tensor, together with --tensors
    #[arg(long, value_name = "M", requires = "tensors", value_parser = clap::value_parser!(u64).range(1..))]
    elements: Option<u64>,
    /// What shares one norm: all, each tensor, each output's weights (the first axis counts outputs, or
    /// the last one), each row
    #[arg(long, value_name = "SCOPE", default_value = "global",
        value_parser = PossibleValuesParser::new(scope::NAMES))]
    scope: String,
    /// Which GPU to time beside the CPU, as in `gradclip clip`; `cpu` times the CPU alone
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device::target)]
    device: Target,
    /// Also time one tensor of 1,000 elements, then of more, as far as memory and about 30 seconds allow,
    /// and draw time against elements into an SVG file, with the crossover marked
    #[arg(long, value_name = "FILE.svg", value_parser = options::svg)]
    plot: Option<PathBuf>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let output = args.plot.as_deref().map(|path| Output::prepare("--plot", path)).transpose()?;
    let (name, shapes) = shapes_of(args)?;
    let (scope, cut) = cut(args, &shapes)?;
    let adapter = device::adapter(&args.device)?;
    let elements: u64 = shapes.iter().map(|shape| shape.iter().product::<u64>()).sum();
    let room = elements.max(LEAST_COPIED);
    if let Some(missing) = room::missing(elements, room, adapter.as_ref()) {
        return Err(Failure::Usage(format!("--preset, --tensors, --elements: {name} {missing}")));
    }
    let gpu = adapter.as_ref().map(Gpu::open).transpose()?;
    let sweep = output.is_some().then(|| Sweep::measure(adapter.as_ref(), gpu.as_ref())).transpose()?;
    if let (Some(output), Some(sweep)) = (output, &sweep) {
        let picture = sweep.picture()?;
        output.commit(|mut to| std::io::Write::write_all(&mut to, picture.as_bytes()))?;
    }
    let work = Work::new(shapes, scope, cut, room);
    let arms = time::arms(&work, gpu.as_ref(), &PACE)?;
    let (scope, sweep, plot) = (&*args.scope, sweep.as_ref(), args.plot.as_deref());
    let findings = Findings { name: &name, scope, work: &work, arms: &arms, sweep, plot };
    if args.json { text::print_json(&findings.json()) } else { text::print(&findings.text()) }
}

/// Name of the gradient set, and its shapes.
fn shapes_of(args: &Args) -> Result<(String, Vec<Vec<u64>>), Failure> {
    if let (Some(tensors), Some(elements)) = (args.tensors, args.elements) {
        let name = format!("{tensors} x {elements}");
        return match elements.checked_mul(tensors.into()).and_then(|n| n.checked_mul(64)) {
            Some(_) => Ok((name, vec![vec![elements]; tensors as usize])),
            None => Err(Failure::Usage(format!("--tensors, --elements: {name} does not fit any memory"))),
        };
    }
    let name = args.preset.as_deref().unwrap_or(sets::DEFAULT);
    let shapes = sets::shapes(name).ok_or_else(|| Failure::Usage(format!("--preset: no `{name}`")))?;
    Ok((name.to_owned(), shapes))
}

fn cut(args: &Args, shapes: &[Vec<u64>]) -> Result<(Scope, Cut), Failure> {
    let wrong = |what: &str| Failure::Usage(format!("--scope {}: {what}", args.scope));
    let scope = args.scope.parse().map_err(|_| wrong("no such scope"))?;
    let same = "expected tensors that all have as many rows, as `--preset splats` has";
    Ok((scope, Cut::new(scope, shapes).ok_or_else(|| wrong(same))?))
}
