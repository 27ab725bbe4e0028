//! The program: which command runs, and what its end says to the shell.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{bench, clip, devices, norm, suggest, verify};
use crate::text;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  a check failed
  2  wrong usage, or a file that cannot be read or written
  3  non-finite gradients under --on-nonfinite error, or in every step of `suggest`
  4  no such device, or a device failure";

/// Gradient clipping on the GPU, and the same bits on the CPU.
#[derive(Parser)]
#[command(name = "gradclip", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Clip the gradients of a file
    Clip(clip::Args),
    /// Measure the norm of the gradients of a file
    Norm(norm::Args),
    /// Suggest a threshold from the norms of a series of gradient files
    Suggest(suggest::Args),
    /// Check every shader of every adapter against the CPU path, and that against f64
    Verify(verify::Args),
    /// Time CPU and GPU on this machine, clipped and not clipped
    Bench(bench::Args),
    /// List the adapters that this machine has
    Devices(devices::Args),
}

/// Runs what the arguments of this process ask for.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Clip(args) => clip::run(&args),
        Command::Norm(args) => norm::run(&args),
        Command::Suggest(args) => suggest::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Devices(args) => devices::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            text::error(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}
