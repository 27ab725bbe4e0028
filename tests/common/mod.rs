//! What the tests share: a device, held by one test at a time, and what gradclip-verify has for them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use gradclip::wgpu;
use gradclip::{Clip, Clipper, ClipperOptions, DType, Grad, Pass, Report, Scope, Units};
#[allow(unused_imports)]
pub use gradclip_verify::compare::{assert_scaled, bits, norm, ulps};
#[allow(unused_imports)]
pub use gradclip_verify::inputs::{KINDS, Kind, Random, data};

pub struct Gpu {
    pub name: String,
    pub adapter: wgpu::Adapter,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    /// Compiled once for all tests of a process.
    pub clipper: Clipper,
}

/// The device, for as long as a test holds it: wgpu's GL backend panics where two threads want its
/// context at once, and software adapters use all cores anyway.
pub struct Held {
    gpu: &'static Gpu,
    _alone: MutexGuard<'static, ()>,
}

impl Deref for Held {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        self.gpu
    }
}

/// The device of this process. `None` where there is no adapter and nobody requires one.
///
/// `GRADCLIP_REQUIRE_GPU=1` makes a missing adapter a failure; `GRADCLIP_TEST_ADAPTER` picks the
/// adapter whose `backend/name` contains it; `GRADCLIP_TEST_LIMITS=default` asks for
/// `Limits::default()` and no features; `GRADCLIP_TEST_FORM=hardware` takes the kernels that hardware runs.
pub fn gpu() -> Option<Held> {
    static ALONE: Mutex<()> = Mutex::new(());
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    // A test that failed while holding the device left it usable.
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let gpu = GPU.get_or_init(open).as_ref();
    let required = std::env::var("GRADCLIP_REQUIRE_GPU").is_ok_and(|v| v == "1");
    assert!(gpu.is_some() || !required, "GRADCLIP_REQUIRE_GPU=1, but there is no such adapter");
    if gpu.is_none() {
        eprintln!("skipped: no adapter, and GRADCLIP_REQUIRE_GPU is not set");
    }
    gpu.map(|gpu| Held { gpu, _alone: alone })
}

fn open() -> Option<Gpu> {
    let wanted = std::env::var("GRADCLIP_TEST_ADAPTER").unwrap_or_default().to_lowercase();
    let name = |a: &wgpu::Adapter| gradclip::adapter_name(&a.get_info());
    let adapter = gradclip::adapters().into_iter().find(|a| name(a).to_lowercase().contains(&wanted))?;
    let plain = std::env::var("GRADCLIP_TEST_LIMITS").is_ok_and(|v| v == "default");
    let required_limits = if plain { wgpu::Limits::default() } else { Clipper::recommended_limits(&adapter) };
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    let clipper = Clipper::with_options(&device, formed(ClipperOptions::default())).expect("a clipper");
    Some(Gpu { name: name(&adapter), adapter, device, queue, clipper })
}

/// With the kernels that the environment asks for, where other options leave the choice.
fn formed(options: ClipperOptions) -> ClipperOptions {
    let hardware = std::env::var("GRADCLIP_TEST_FORM").is_ok_and(|v| v == "hardware");
    if hardware && options.vector_loads.is_none() && options.workgroup_size.is_none_or(|size| size == 256) {
        let (rounded, finish) = (options.rounded_slots.unwrap_or(true), options.finish.unwrap_or(true));
        let options = options.trusted_shaders(options.trusted_shaders.unwrap_or(true));
        return options.vector_loads(true).full_multiply(true).rounded_slots(rounded).finish(finish);
    }
    options
}

impl Gpu {
    /// Whether tests of many kernels should take fewer.
    pub fn compiles_slowly(&self) -> bool {
        self.name.to_lowercase().contains("swiftshader")
    }

    pub fn clipper_with(&self, options: ClipperOptions) -> Clipper {
        Clipper::with_options(&self.device, formed(options)).expect("a clipper")
    }

    pub fn buffer(&self, bytes: &[u8]) -> wgpu::Buffer {
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("test gradients"),
            size: bytes.len().next_multiple_of(4).max(4) as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: true,
        });
        let mut view = buffer.get_mapped_range_mut(..).unwrap();
        view.slice(..bytes.len()).copy_from_slice(bytes);
        drop(view);
        buffer.unmap();
        buffer
    }

    /// Each tensor in a buffer of its own.
    pub fn separate(&self, tensors: &[Vec<f32>]) -> Vec<Grad> {
        let one = |(i, t): (usize, &Vec<f32>)| {
            let buffer = self.buffer(bytemuck::cast_slice(t));
            Grad::range(format!("t{i}"), &buffer, 0, t.len() as u64)
        };
        tensors.iter().enumerate().map(one).collect()
    }

    /// All tensors in one buffer, `gap` words apart, the first after `lead` words.
    pub fn arena(&self, tensors: &[Vec<f32>], lead: usize, gap: usize) -> Vec<Grad> {
        let mut words = vec![f32::NAN; lead];
        let mut places = Vec::new();
        for t in tensors {
            places.push((words.len() as u64 * 4, t.len() as u64));
            words.extend_from_slice(t);
            words.extend(std::iter::repeat_n(f32::NAN, gap));
        }
        let buffer = self.buffer(bytemuck::cast_slice(&words));
        let one =
            |(i, &(offset, len)): (usize, &(u64, u64))| Grad::range(format!("t{i}"), &buffer, offset, len);
        places.iter().enumerate().map(one).collect()
    }

    /// Bytes of several tensors in one buffer, each placed where it is said.
    pub fn placed(&self, size: usize, tensors: &[(usize, Vec<u8>, DType)]) -> Vec<Grad> {
        let mut bytes = vec![0xa5; size];
        for (offset, of_tensor, _) in tensors {
            bytes[*offset..offset + of_tensor.len()].copy_from_slice(of_tensor);
        }
        let buffer = self.buffer(&bytes);
        let one = |(i, (offset, bytes, dtype)): (usize, &(usize, Vec<u8>, DType))| {
            let elements = bytes.len() as u64 / dtype.size();
            Grad::range(format!("t{i}"), &buffer, *offset as u64, elements).dtype(*dtype)
        };
        tensors.iter().enumerate().map(one).collect()
    }

    pub fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer) -> Vec<T> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("test staging"),
            size: buffer.size(),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, None);
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |result| result.unwrap());
        self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..).unwrap())
    }

    /// Runs a prepared pass once.
    pub fn run(&self, pass: &Pass) -> Report {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        pass.record(&mut encoder);
        let report = pass.read_back(&mut encoder).expect("a free place");
        self.queue.submit([encoder.finish()]);
        report.wait().expect("a report")
    }

    /// Clips tensors in buffers of their own and returns what became of them.
    pub fn clip(&self, tensors: &[Vec<f32>], clip: &Clip) -> (Report, Vec<Vec<f32>>) {
        let grads = self.separate(tensors);
        let pass = self.clipper.prepare(&grads, clip).expect("a pass");
        let report = self.run(&pass);
        (report, contents(self, &grads, tensors))
    }
}

/// What lies in separate buffers.
pub fn contents(gpu: &Gpu, grads: &[Grad], tensors: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let one = |(g, t): (&Grad, &Vec<f32>)| gpu.read::<f32>(g.buffer())[..t.len()].to_vec();
    grads.iter().zip(tensors).map(one).collect()
}

/// Every scope, units from either end.
pub fn scopes() -> [Scope; 6] {
    [
        Scope::Global,
        Scope::Group,
        Scope::Tensor,
        Scope::Unit(Units::OutputFirst),
        Scope::Unit(Units::OutputLast),
        Scope::Row,
    ]
}
