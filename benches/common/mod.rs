//! What the benches share: numbers with a fixed seed, and a device.
#![allow(dead_code, unreachable_pub)]

pub mod compute;
pub mod opened;

use std::time::{Duration, Instant};

use gradclip::{Clipper, wgpu};
use gradclip_verify::inputs::Random;

/// Uniform in [-scale, scale).
pub fn random(n: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut random = Random(seed);
    (0..n).map(|_| random.unit() * scale).collect()
}

/// Cuts one run of elements into tensors.
pub fn cut(sizes: impl IntoIterator<Item = usize>, mut all: &mut [f32]) -> Vec<&mut [f32]> {
    let mut tensors = Vec::new();
    for n in sizes {
        let (own, rest) = all.split_at_mut(n);
        tensors.push(own);
        all = rest;
    }
    tensors
}

pub struct Gpu {
    pub name: String,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub clipper: Clipper,
}

/// The best adapter whose `backend/name` contains `GRADCLIP_TEST_ADAPTER`.
pub fn open() -> Option<Gpu> {
    let opened::Opened { name, device, queue, .. } = opened::opened().ok()?;
    let clipper = Clipper::new(&device).ok()?;
    Some(Gpu { name, device, queue, clipper })
}

impl Gpu {
    pub fn buffer(&self, values: &[f32]) -> wgpu::Buffer {
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("bench"),
            size: (values.len() * 4) as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: true,
        });
        buffer.get_mapped_range_mut(..).unwrap().copy_from_slice(bytemuck::cast_slice(values));
        buffer.unmap();
        buffer
    }

    /// Record, submit, wait: what a step without anything else would take.
    pub fn run(&self, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Duration {
        let start = Instant::now();
        let mut encoder = self.device.create_command_encoder(&Default::default());
        record(&mut encoder);
        self.queue.submit([encoder.finish()]);
        self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        start.elapsed()
    }

    /// The first `bytes` of a buffer.
    pub fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer, bytes: u64) -> Vec<T> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("bench staging"),
            size: bytes,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        self.run(|e| e.copy_buffer_to_buffer(buffer, 0, &staging, 0, bytes));
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..).unwrap())
    }
}
