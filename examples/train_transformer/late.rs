//! What comes back of a step, a few steps later.

use std::collections::VecDeque;
use std::error::Error;

use gradclip::{Pass, Telemetry, wgpu};
use wgpu::BufferUsages as Usage;

use super::gpu::Gpu;
use super::log::Record;
use super::network::Network;
use super::train::MICRO_BATCHES;

/// Steps that are recorded ahead of the device. It never waits for the host while one of them is left.
pub(super) const AHEAD: usize = 4;

/// Reports and losses of steps on their way to the host.
pub(super) struct Late {
    telemetry: Telemetry,
    /// A place for each step on its way.
    losses: Vec<wgpu::Buffer>,
    submitted: VecDeque<wgpu::SubmissionIndex>,
}

impl Late {
    pub(super) fn new(gpu: &Gpu) -> Late {
        let place = |_| gpu.buffer("losses on their way", MICRO_BATCHES, Usage::COPY_DST | Usage::MAP_READ);
        Late {
            telemetry: Telemetry::default(),
            losses: (0..AHEAD).map(place).collect(),
            submitted: VecDeque::new(),
        }
    }

    /// Copies what `step` leaves, behind it on the device.
    pub(super) fn record(
        &mut self,
        step: u64,
        network: &Network,
        pass: &Pass,
        encoder: &mut wgpu::CommandEncoder,
    ) {
        self.telemetry.record(pass, encoder);
        let place = &self.losses[step as usize % AHEAD];
        encoder.copy_buffer_to_buffer(&network.losses, 0, place, 0, None);
        encoder.map_buffer_on_submit(place, wgpu::MapMode::Read, .., |_| {});
    }

    pub(super) fn submitted(&mut self, index: wgpu::SubmissionIndex) {
        self.submitted.push_back(index);
    }

    /// The steps that have arrived, at most `left` of those submitted being left to run: so the host records
    /// as far ahead as it may, and no further.
    pub(super) fn arrived(&mut self, gpu: &Gpu, left: usize) -> Result<Vec<Record>, Box<dyn Error>> {
        gpu.device.poll(wgpu::PollType::Poll)?;
        while self.submitted.len() > left {
            let submission_index = self.submitted.pop_front();
            gpu.device.poll(wgpu::PollType::Wait { submission_index, timeout: None })?;
        }
        let mut records = Vec::new();
        while let Some(report) = self.telemetry.poll() {
            let report = report?;
            let place = &self.losses[(report.step - 1) as usize % AHEAD];
            let losses: Vec<f32> = bytemuck::pod_collect_to_vec(&place.get_mapped_range(..)?);
            place.unmap();
            records.push(Record::new(&report, &losses));
        }
        Ok(records)
    }
}
