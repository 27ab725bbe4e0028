//! A character transformer that trains on the GPU with nothing but wgpu and this crate.
//!
//! `cargo run --release --example train_transformer -- [--check] [--stop-at STEP] [--resume FILE] [FILE.svg]`
//!
//! It reads the crate's own licences, and learns to foretell their next character. What a training loop has
//! is here:
//!
//! - parameters of bf16 that the kernels read, and masters of f32 that AdamW moves;
//! - gradients of four micro-batches accumulated to a step, clipped to a global norm of 1;
//! - a loss scale that follows the gradients, which the device reads where it lies;
//! - a cosine schedule after a warm-up;
//! - telemetry and losses a few steps late, for which the device never waits; a progress bar, a log, a plot;
//! - a saved run, as a safetensors file: one that was stopped goes on with the bits that it would have had.
//!
//! ```text
//! train_transformer whole.svg
//! train_transformer --stop-at 100 part.svg
//! train_transformer --resume part.safetensors part.svg
//! cmp whole.csv part.csv
//! ```
//!
//! `--check` compares the backward pass with differences of a forward pass in f64 on the CPU.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gradclip::{Checkpoint, adapter_name, adapters};

#[path = "train_transformer/check.rs"]
mod check;
#[path = "train_transformer/dispatches.rs"]
mod dispatches;
#[path = "train_transformer/gpu.rs"]
mod gpu;
#[path = "train_transformer/late.rs"]
mod late;
#[path = "common/legend.rs"]
mod legend;
#[path = "train_transformer/log.rs"]
mod log;
#[path = "train_transformer/model.rs"]
mod model;
#[path = "train_transformer/network.rs"]
mod network;
#[path = "train_transformer/plot.rs"]
mod plot;
#[path = "train_transformer/text.rs"]
mod text;
#[path = "train_transformer/train.rs"]
mod train;

use gpu::Gpu;
use log::Log;
use text::Text;
use train::{STEPS, Training};

fn main() -> Result<(), Box<dyn Error>> {
    let asked = Asked::from(std::env::args().skip(1))?;
    let adapter = adapters().into_iter().next().ok_or("no adapter: a software driver for Vulkan will do")?;
    let gpu = Gpu::open(&adapter)?;
    println!("{}", adapter_name(&adapter.get_info()));
    let text = Text::licences();
    if asked.check {
        return check::backward(&gpu, &text);
    }

    let started = Instant::now();
    let training = Training::new(&gpu, &text)?;
    let (first, mut log) = match &asked.resume {
        None => (0, Log::default()),
        Some(file) => {
            let bytes = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
            let step = training.load(&gpu, &Checkpoint::from_bytes(&bytes)?)?;
            (step, Log::read(&file.with_extension("csv"), step)?)
        }
    };
    let last = asked.stop_at.unwrap_or(STEPS).min(STEPS);
    train::run(&gpu, &training, first..last, &mut log)?;
    println!("{} steps in {:.1} s", last.saturating_sub(first), started.elapsed().as_secs_f64());

    let csv = asked.file.with_extension("csv");
    log.write(&csv)?;
    plot::draw(&asked.file, &log, &text)?;
    println!("logged to {}, drawn to {}", csv.display(), asked.file.display());
    if last < STEPS {
        let file = asked.file.with_extension("safetensors");
        std::fs::write(&file, training.save(&gpu)?.to_bytes()?)?;
        println!("stopped; go on with --resume {}", file.display());
        return Ok(());
    }
    learned(&log, &text)
}

/// Whether the last losses are below what pairs of characters alone could give.
fn learned(log: &Log, text: &Text) -> Result<(), Box<dyn Error>> {
    let (loss, most) = (log.last_loss(), text.bigram_entropy());
    println!(
        "loss {loss:.3} over the last steps; the best table of pairs has {most:.3}, chance {:.3}",
        text.chance()
    );
    if loss.is_nan() || loss > most {
        return Err(format!("did not learn: loss {loss:.3}, at most {most:.3} expected").into());
    }
    Ok(())
}

/// What the command line says.
struct Asked {
    check: bool,
    stop_at: Option<u64>,
    resume: Option<PathBuf>,
    file: PathBuf,
}

impl Asked {
    fn from(mut arguments: impl Iterator<Item = String>) -> Result<Asked, Box<dyn Error>> {
        let file = Path::new("train_transformer.svg").into();
        let mut asked = Asked { check: false, stop_at: None, resume: None, file };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--check" => asked.check = true,
                "--stop-at" => asked.stop_at = Some(value()?.parse()?),
                "--resume" => asked.resume = Some(value()?.into()),
                option if option.starts_with("--") => return Err(format!("unknown option {option}").into()),
                file => asked.file = file.into(),
            }
        }
        Ok(asked)
    }
}
