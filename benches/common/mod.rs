//! What the benches share: numbers with a fixed seed, and a device.
#![allow(dead_code, unreachable_pub, clippy::panic)]

pub mod compute;

use std::ops::Deref;
use std::time::Duration;

use gradclip::{DType, Grad, wgpu};
use gradclip_verify::inputs::Random;
use gradclip_verify::{gpu, sets};

/// Uniform in [-scale, scale).
pub fn random(n: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut random = Random(seed);
    (0..n).map(|_| random.unit() * scale).collect()
}

/// Elements of the tensors of a well-known model, or of as many as `1000x768` says: a thousand of 768.
pub fn sizes(set: &str) -> Vec<usize> {
    let many =
        |(tensors, elements): (&str, &str)| Some(vec![vec![elements.parse().ok()?]; tensors.parse().ok()?]);
    let shapes = sets::shapes(set).or_else(|| set.split_once('x').and_then(many));
    let shapes: Vec<Vec<u64>> = shapes.unwrap_or_else(|| panic!("no gradient set `{set}`"));
    shapes.iter().map(|shape| shape.iter().product::<u64>() as usize).collect()
}

/// Gradients and parameters of these numbers of elements, one after the other in an arena each.
pub fn stepped(sizes: &[usize], arena: &wgpu::Buffer, parameters: &wgpu::Buffer) -> Vec<Grad> {
    let mut at = 0;
    let one = |&n: &usize| {
        let grad = Grad::range("t", arena, at, n as u64).parameter(parameters, at, DType::F32);
        at += n as u64 * 4;
        grad
    };
    sizes.iter().map(one).collect()
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

/// The file that `GRADCLIP_RECORD` names, to append to, begun with a heading.
pub fn record(heading: &str) -> Option<std::fs::File> {
    let path = std::env::var("GRADCLIP_RECORD").ok()?;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, format!("{heading}\n").as_bytes()).unwrap();
    Some(file)
}

/// Median, least and largest of some times.
pub fn summary(times: &mut [f64]) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [times[times.len() / 2], times[0], times[times.len() - 1]]
}

/// A device whose failures end the bench.
pub struct Gpu {
    pub name: String,
    gpu: gpu::Gpu,
}

impl Deref for Gpu {
    type Target = gpu::Gpu;

    fn deref(&self) -> &gpu::Gpu {
        &self.gpu
    }
}

/// The best adapter whose `backend/name` contains `GRADCLIP_TEST_ADAPTER`.
pub fn open() -> Option<Gpu> {
    let gpu = gpu::Gpu::open(&gpu::adapter().ok()?).ok()?;
    Some(Gpu { name: gpu.name(), gpu })
}

impl Gpu {
    pub fn buffer(&self, values: &[f32]) -> wgpu::Buffer {
        self.upload(bytemuck::cast_slice(values))
    }

    /// Record, submit, wait: what a step without anything else would take.
    pub fn run(&self, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Duration {
        self.gpu.run(record).unwrap()
    }

    /// The first `bytes` of a buffer.
    pub fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer, bytes: u64) -> Vec<T> {
        self.gpu.read(buffer, 0..bytes).unwrap()
    }
}
