//! The command line `gradclip`.

use std::process::ExitCode;

fn main() -> ExitCode {
    gradclip_cli::run()
}
