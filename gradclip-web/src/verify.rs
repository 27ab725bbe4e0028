//! The tab 'verify': every kernel on the visitor's adapter against the CPU path in WebAssembly, as `gradclip verify` does it.

use gradclip::wgpu;
use gradclip_verify::check::Checks;
use gradclip_verify::golden::{self, Golden};
use gradclip_verify::gpu::Gpu;
use gradclip_verify::tally::Tally;
use serde::Serialize;

use crate::error::WebError;
use crate::gpu::adapter;

/// What was found of one kernel, as the page shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The kernel.
    pub what: &'static str,
    /// Cases that were run.
    pub cases: u64,
    /// Values compared.
    pub compared: u64,
    /// Largest error in ulp.
    pub worst: f64,
    /// Subnormal results that came out as 0, which WGSL allows.
    pub flushed: u64,
    /// Cases that fell short.
    pub failed: u64,
    /// The first of them.
    pub first: Option<String>,
}

impl Row {
    fn of(tally: &Tally) -> Row {
        Row {
            what: tally.what,
            cases: tally.cases,
            compared: tally.compared,
            worst: tally.worst,
            flushed: tally.flushed,
            failed: tally.failed,
            first: tally.first.clone(),
        }
    }
}

/// How far it is.
#[derive(Clone, Debug, Serialize)]
pub struct Progress {
    /// Checks made, of checks of kernels and of the corpus.
    pub done: usize,
    /// All of them.
    pub all: usize,
    /// What was found so far.
    pub rows: Vec<Row>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// What the device is called.
    pub device: String,
    /// A row a kernel.
    pub rows: Vec<Row>,
    /// The hash of all norms, thresholds, coefficients and flags of a fixed corpus: by the adapter, by the CPU path here, and as
    /// the tests of the native library have it.
    pub hashes: [String; 3],
}

/// Checks everything, or one in `share` checks of each kind; `told` is called after each check.
///
/// # Errors
///
/// [`WebError::NoDevice`], and where a check could not be made.
pub async fn verify(
    backends: wgpu::Backends,
    share: usize,
    mut told: impl FnMut(&Progress),
) -> Result<Found, WebError> {
    let adapter = adapter(backends).await?;
    let gpu = Gpu::open_async(&adapter).await?;
    let checks = Checks::all().one_in(share);
    let count = checks.count(true);
    let mut progress = Progress { done: 0, all: count, rows: Vec::new() };
    let tallies = checks
        .on_adapter_async(&gpu, async |tallies: &[Tally]| {
            progress.done += 1;
            progress.rows = tallies.iter().map(Row::of).collect();
            told(&progress);
        })
        .await?;
    let decided = golden::on_adapter(&gpu, async |done, all| {
        (progress.done, progress.all) = (count + done, count + all);
        told(&progress);
    })
    .await?;
    let cpu = golden::on_cpu()?;
    let Golden { decided: expected, .. } = golden::EXPECTED;
    let hashes = [decided, cpu.decided, expected].map(|hash| format!("{hash:016x}"));
    Ok(Found { device: gpu.name(), rows: tallies.iter().map(Row::of).collect(), hashes })
}
