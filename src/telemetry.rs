//! What every step did, on the host, a few steps late and without a wait.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::error::ReadBackError;
use crate::gpu::{Pass, ReadBack};
use crate::report::Report;

/// The reports of step after step in their order, whenever they arrive: [`Report::step`],
/// norms, thresholds, coefficients, [`Report::clipped_share`], non-finite counts, norms of tensors.
///
/// A report is copied on the device into a ring of as many places as
/// [`ClipperOptions::read_backs`](crate::ClipperOptions::read_backs) says, and read when the device
/// is next polled, which every submit does; in a page, through the event loop. Where the ring is full the newest report is dropped and
/// counted: nothing ever waits, neither the device nor the host. Counts of steps are kept on the
/// device, so they are right however many reports were dropped; a gap in [`Report::step`] shows
/// where.
///
/// Read it by [`Telemetry::poll`], or as a [`Stream`](futures_core::Stream), which ends when nothing
/// is on its way and goes on after the next [`Telemetry::record`]. With the feature `tracing` every
/// report that is taken is an event of the target `gradclip` too.
///
/// ```no_run
/// # fn run(device: &gradclip::wgpu::Device, queue: &gradclip::wgpu::Queue, pass: &gradclip::Pass) {
/// use gradclip::Telemetry;
///
/// let mut telemetry = Telemetry::default();
/// for _step in 0..1000 {
///     let mut encoder = device.create_command_encoder(&Default::default());
///     pass.record(&mut encoder);
///     telemetry.record(pass, &mut encoder);
///     queue.submit([encoder.finish()]);
///     while let Some(Ok(report)) = telemetry.poll() {
///         println!("step {}: norm {:?}, {:.1} % clipped", report.step, report.norm(), 100.0 * report.clipped_share());
///     }
/// }
/// println!("{} reports were dropped", telemetry.dropped());
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Telemetry {
    on_their_way: VecDeque<ReadBack>,
    dropped: u64,
}

impl Telemetry {
    /// Records a copy of the results of `pass`, to be called once a step after
    /// [`Pass::record`]. Drops it where the ring is full, or where the pass was never recorded. One telemetry may follow several passes,
    /// as when a pass was prepared again for other buffers.
    pub fn record(&mut self, pass: &Pass, encoder: &mut wgpu::CommandEncoder) {
        match pass.read_back(encoder) {
            Ok(read_back) => self.on_their_way.push_back(read_back),
            // The ring is full, or nothing was decided that could be told.
            Err(_) => self.dropped += 1,
        }
    }

    /// The next report, if one has arrived: never waits, and polls nothing by itself. Reports come in the
    /// order in which they were recorded; one whose encoder was neither submitted nor dropped holds up
    /// no other, and keeps its place of the ring.
    ///
    /// # Errors
    ///
    /// As awaiting a [`ReadBack`]: the commands never ran, or the device was lost.
    pub fn poll(&mut self) -> Option<Result<Report, ReadBackError>> {
        match self.arrived(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(report) => Some(report),
            Poll::Pending => None,
        }
    }

    /// The first report that has arrived, of those recorded.
    fn arrived(&mut self, context: &mut Context<'_>) -> Poll<Result<Report, ReadBackError>> {
        for i in 0..self.on_their_way.len() {
            let Poll::Ready(report) = Pin::new(&mut self.on_their_way[i]).poll(context) else { continue };
            self.on_their_way.remove(i);
            #[cfg(feature = "tracing")]
            emit(&report, self.dropped);
            return Poll::Ready(report);
        }
        Poll::Pending
    }

    /// How many reports were dropped because the ring was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many reports are on their way.
    pub fn len(&self) -> usize {
        self.on_their_way.len()
    }

    /// Whether no report is on its way.
    pub fn is_empty(&self) -> bool {
        self.on_their_way.is_empty()
    }
}

impl futures_core::Stream for Telemetry {
    type Item = Result<Report, ReadBackError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_empty() {
            return Poll::Ready(None);
        }
        self.arrived(context).map(Some)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), None)
    }
}

#[cfg(feature = "tracing")]
fn emit(report: &Result<Report, ReadBackError>, dropped: u64) {
    match report {
        Ok(report) => tracing::info!(
            target: "gradclip",
            step = report.step,
            norm = report.norm(),
            threshold = report.segments.first().map(|s| s.threshold),
            coefficient = report.coefficient(),
            clipped = report.clipped(),
            left_out = report.skip.map(|skip| skip.left_out()),
            clipped_segments = report.clipped_segments,
            clipped_share = report.clipped_share(),
            non_finite = report.non_finite(),
            first_non_finite = report.first_non_finite(),
            dropped,
            "clipped gradients"
        ),
        Err(error) => tracing::warn!(target: "gradclip", %error, dropped, "a report did not arrive"),
    }
}
