//! Every form of norm and apply beside a copy, a read, a plain sum of squares and a plain multiplication, in turns,
//! by the device's own clock where it has one; and the share of the bandwidth that the copy of the same run
//! reaches. Prints a table for each type and size as it ends, in order of worth, and ends in time:
//!
//!     cargo bench --bench kernels -- --seconds 90 --csv FILE
//!
//! `--help` lists the options; `GRADCLIP_TEST_ADAPTER` picks the adapter by its `backend/name`. An exit status of 1
//! says that a form was wrong or could not run, of 2 that nothing was measured.
#![allow(missing_docs)]

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[path = "kernels/cases.rs"]
mod cases;
#[path = "common/compute.rs"]
mod compute;
#[path = "kernels/device.rs"]
mod device;
#[path = "kernels/forms.rs"]
mod forms;
#[path = "kernels/options.rs"]
mod options;
#[path = "kernels/plain.rs"]
mod plain;
#[path = "kernels/record.rs"]
mod record;

use cases::{Bed, until};
use device::{Device, Result};
use forms::Form;
use options::Options;
use record::{COLUMNS, Case, Run};

/// Appends, under a heading where the file is new.
fn append(file: &str, lines: &str) -> Result<()> {
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
    let mut opened = opened.map_err(|error| format!("{file}: {error}"))?;
    let empty = opened.metadata().is_ok_and(|about| about.len() == 0);
    let text = if empty { format!("{COLUMNS}\n{lines}") } else { lines.to_owned() };
    opened.write_all(text.as_bytes()).map_err(|error| format!("{file}: {error}"))
}

/// What is going on, before something that may not come back.
fn say(text: &str) {
    println!("{text}");
    let _ = std::io::stdout().flush();
}

struct Bench {
    device: Device,
    forms: Vec<Form>,
    options: Options,
    run: Run,
    begun: Instant,
}

impl Bench {
    fn open(options: Options) -> Result<Bench> {
        let begun = Instant::now();
        let device = Device::open()?;
        let forms = forms::forms(&device, &options.resident)?;
        let commit = option_env!("GRADCLIP_COMMIT").unwrap_or("unknown");
        let run = Run { commit, device: device.gpu.name(), driver: device.driver(), clock: device.clock() };
        say(&format!("{}, {}; commit {commit}; times by {}", run.device, run.driver, run.clock));
        Ok(Bench { device, forms, options, run, begun })
    }

    /// Returns how much was measured, and how much went wrong.
    fn measure(&self) -> Result<(usize, usize)> {
        let end = self.begun + Duration::from_secs_f64(self.options.seconds);
        let cases = self.options.cases();
        let (mut measured, mut wrong, mut dearest) = (0, 0, 0.0_f64);
        for (i, &(dtype, elements)) in cases.iter().enumerate() {
            let name = format!("{dtype}, {elements} elements");
            let left = end.saturating_duration_since(Instant::now()).as_secs_f64();
            // By the seconds that a single round of a case took, an element.
            if left <= 0.0 || dearest * elements as f64 > left {
                say(&format!("{name}: left out: {left:.0} s are left"));
                continue;
            }
            let begun = Instant::now();
            match self.case((dtype, elements), until(end, cases.len() - i, self.options.rounds)) {
                Ok((case, complaints)) => {
                    say(&case.table());
                    complaints.iter().for_each(|complaint| say(complaint));
                    wrong += complaints.len();
                    measured += 1;
                    if let Some(file) = &self.options.csv {
                        append(file, &case.csv(&self.run))?;
                    }
                    let rounds = case.series.iter().map(|s| s.seconds.len()).max().unwrap_or(1).max(1);
                    // Small ones say little about large ones.
                    if elements >= 10_000_000 {
                        dearest =
                            dearest.max(begun.elapsed().as_secs_f64() / (rounds as f64 * elements as f64));
                    }
                }
                Err(error) => say(&format!("{name}: left out: {error}")),
            }
        }
        Ok((measured, wrong))
    }

    fn case(&self, case: (gradclip::DType, u64), until: cases::Until) -> Result<(Case, Vec<String>)> {
        // What the one before it held is given back when the device is polled.
        self.device.wait()?;
        let mut bed = Bed::new(&self.device, &self.forms, case, self.options.flush, until.last)?;
        let case = bed.measure(until)?;
        if case.series.iter().all(|series| series.seconds.is_empty()) {
            return Err("the time is over before anything was measured".into());
        }
        Ok((case, bed.complaints))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` is for tests.
    if arguments.iter().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let done = Options::read(&arguments).and_then(Bench::open).and_then(|bench| {
        let done = bench.measure()?;
        say(&format!("\n{:.0} s in all", bench.begun.elapsed().as_secs_f64()));
        Ok(done)
    });
    match done {
        Ok((0, _)) => {
            eprintln!("kernels: nothing was measured");
            ExitCode::from(2)
        }
        Ok((_, wrong)) => ExitCode::from(u8::from(wrong > 0)),
        Err(error) => {
            eprintln!("kernels: {error}");
            ExitCode::from(2)
        }
    }
}
