//! A device and its clock.

use std::time::Instant;

use gradclip::wgpu;
use gradclip::wgpu::BufferUsages as Usage;

use crate::opened::{FirstError, Opened, opened};

pub(crate) type Result<T> = std::result::Result<T, String>;

pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) software: bool,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    clock: Option<Clock>,
    /// The first error nobody else caught; wgpu would panic instead.
    error: FirstError,
}

/// The device's own clock.
struct Clock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    mapped: wgpu::Buffer,
    /// Seconds of a tick.
    period: f64,
}

impl Device {
    /// The best adapter whose `backend/name` contains `GRADCLIP_TEST_ADAPTER`.
    pub(crate) fn open() -> Result<Device> {
        let opened = opened()?;
        let error = opened.keep_errors();
        let Opened { name, driver, software, device, queue } = opened;
        let clock = Clock::new(&device, &queue);
        Ok(Device { name, driver, software, device, queue, clock, error })
    }

    pub(crate) fn clock(&self) -> &'static str {
        if self.clock.is_some() { "timestamps" } else { "wall clock with the wait" }
    }

    /// Bytes that one binding takes, so that whole loads and offsets of bindings fit.
    pub(crate) fn window(&self) -> u64 {
        let limits = self.device.limits();
        limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) & !0xffff
    }

    pub(crate) fn buffer(&self, size: u64) -> Result<wgpu::Buffer> {
        let most = self.device.limits().max_buffer_size;
        if size > most {
            return Err(format!("a buffer of {size} bytes; the device has {most} at most"));
        }
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("kernels"),
            size,
            usage: Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC,
            mapped_at_creation: false,
        });
        self.wait()?;
        Ok(buffer)
    }

    pub(crate) fn wait(&self) -> Result<()> {
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| e.to_string())?;
        self.error.lock().map_err(|e| e.to_string())?.take().map_or(Ok(()), Err)
    }

    /// Records, submits and waits.
    pub(crate) fn run(&self, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<()> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        record(&mut encoder);
        self.queue.submit([encoder.finish()]);
        self.wait()
    }

    /// Seconds of `timed`, a compute pass that begins when all of `before` is done.
    pub(crate) fn time(
        &self,
        before: impl FnOnce(&mut wgpu::CommandEncoder),
        timed: impl FnOnce(&mut wgpu::ComputePass<'_>),
    ) -> Result<f64> {
        if let Some(clock) = &self.clock {
            return clock.time(self, before, timed);
        }
        self.run(before)?;
        let start = Instant::now();
        self.run(|encoder| timed(&mut encoder.begin_compute_pass(&Default::default())))?;
        Ok(start.elapsed().as_secs_f64())
    }

    pub(crate) fn read(&self, buffer: &wgpu::Buffer, at: u64, bytes: u64) -> Result<Vec<u8>> {
        let staging = mapped(&self.device, bytes);
        self.run(|e| e.copy_buffer_to_buffer(buffer, at, &staging, 0, bytes))?;
        self.fetch(&staging)
    }

    /// The bytes of a buffer that can be mapped.
    fn fetch(&self, staging: &wgpu::Buffer) -> Result<Vec<u8>> {
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.wait()?;
        let bytes = staging.get_mapped_range(..).map_err(|e| e.to_string())?.to_vec();
        staging.unmap();
        Ok(bytes)
    }
}

impl Clock {
    fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Option<Clock> {
        if !device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return None;
        }
        let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("kernels"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let resolved = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("kernels' clock"),
            size: 16,
            usage: Usage::QUERY_RESOLVE | Usage::COPY_SRC,
            mapped_at_creation: false,
        });
        let period = f64::from(queue.get_timestamp_period()) * 1e-9;
        Some(Clock { queries, resolved, mapped: mapped(device, 16), period })
    }

    fn time(
        &self,
        device: &Device,
        before: impl FnOnce(&mut wgpu::CommandEncoder),
        timed: impl FnOnce(&mut wgpu::ComputePass<'_>),
    ) -> Result<f64> {
        device.run(|encoder| {
            before(encoder);
            let timestamps = wgpu::ComputePassTimestampWrites {
                query_set: &self.queries,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            };
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(timestamps) };
            timed(&mut encoder.begin_compute_pass(&descriptor));
            encoder.resolve_query_set(&self.queries, 0..2, &self.resolved, 0);
            encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.mapped, 0, 16);
        })?;
        let bytes = device.fetch(&self.mapped)?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
        Ok(ticks[1].saturating_sub(ticks[0]) as f64 * self.period)
    }
}

fn mapped(device: &wgpu::Device, size: u64) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("kernels staging"),
        size,
        usage: Usage::COPY_DST | Usage::MAP_READ,
        mapped_at_creation: false,
    })
}
