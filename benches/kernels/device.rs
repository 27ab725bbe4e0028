//! A device and its clock.

use std::time::Instant;

use gradclip::wgpu;
use gradclip_verify::gpu::{Clock, Gpu, adapter};

pub(crate) type Result<T> = std::result::Result<T, String>;

pub(crate) struct Device {
    pub(crate) gpu: Gpu,
    clock: Option<Clock>,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Device {
    /// The best adapter whose `backend/name` contains `GRADCLIP_TEST_ADAPTER`.
    pub(crate) fn open() -> Result<Device> {
        let gpu = Gpu::open(&adapter().map_err(text)?).map_err(text)?;
        let clock = Clock::new(&gpu);
        Ok(Device { gpu, clock })
    }

    pub(crate) fn driver(&self) -> String {
        format!("{} {}", self.gpu.info.driver, self.gpu.info.driver_info).trim().to_owned()
    }

    pub(crate) fn software(&self) -> bool {
        self.gpu.info.device_type == wgpu::DeviceType::Cpu
    }

    pub(crate) fn clock(&self) -> &'static str {
        if self.clock.is_some() { "timestamps" } else { "wall clock with the wait" }
    }

    /// Bytes that one binding takes, so that whole loads and offsets of bindings fit.
    pub(crate) fn window(&self) -> u64 {
        let limits = self.gpu.device.limits();
        limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) & !0xffff
    }

    pub(crate) fn buffer(&self, size: u64) -> Result<wgpu::Buffer> {
        let most = self.gpu.device.limits().max_buffer_size;
        if size > most {
            return Err(format!("a buffer of {size} bytes; the device has {most} at most"));
        }
        let buffer = self.gpu.storage(size);
        self.wait()?;
        Ok(buffer)
    }

    pub(crate) fn wait(&self) -> Result<()> {
        self.gpu.wait().map_err(text)
    }

    /// Records, submits and waits.
    pub(crate) fn run(&self, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<()> {
        self.gpu.run(record).map(drop).map_err(text)
    }

    /// Seconds of `timed`, a compute pass that begins when all of `before` is done.
    pub(crate) fn time(
        &self,
        before: impl FnOnce(&mut wgpu::CommandEncoder),
        timed: impl Fn(&mut wgpu::ComputePass<'_>),
    ) -> Result<f64> {
        if let Some(clock) = &self.clock {
            return clock.time(&self.gpu, before, [&timed]).map(|[seconds]| seconds).map_err(text);
        }
        self.run(before)?;
        let start = Instant::now();
        self.run(|encoder| timed(&mut encoder.begin_compute_pass(&Default::default())))?;
        Ok(start.elapsed().as_secs_f64())
    }

    pub(crate) fn read(&self, buffer: &wgpu::Buffer, at: u64, bytes: u64) -> Result<Vec<u8>> {
        self.gpu.read(buffer, at..at + bytes).map_err(text)
    }
}
