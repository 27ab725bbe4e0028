//! A prepared pass on an adapter. Tensors lie side by side in one arena, in several where no buffer is that
//! large; what they are restored from lies on the device too.

use std::time::Instant;

use gradclip::wgpu::BufferUsages as Usage;
use gradclip::{Clip, Clipper, DType, Grad, Pass, wgpu};
use serde_json::{Value, json};

use crate::bandwidth::bandwidth;
use crate::clock::Clock;
use crate::opened::{FirstError, Opened, opened};
use crate::values::{bf16_bits, fill, from_bf16, sum_of_squares};
use crate::{Arm, Result, check, judged, threshold};

/// Bytes that are uploaded at once.
const UPLOAD: u64 = 64 << 20;
/// Elements at either end of an arena that are looked at.
const CHECKED: u64 = 1 << 10;

pub(crate) struct Gpu {
    name: String,
    driver: String,
    clipper: Clipper,
    device: Device,
    clock: Option<Clock>,
    set: Option<Set>,
}

/// What is recorded on.
pub(crate) struct Device {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    /// The first error nobody else caught; wgpu would panic instead.
    error: FirstError,
}

struct Set {
    arenas: Vec<Arena>,
    pass: Pass,
    reference: f64,
}

struct Arena {
    /// Its first element's place in the set, and how many there are.
    first: u64,
    elements: u64,
    dtype: DType,
    values: wgpu::Buffer,
    pristine: wgpu::Buffer,
}

impl Device {
    pub(crate) fn buffer(&self, size: u64) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("arm"),
            size,
            usage: Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC | Usage::QUERY_RESOLVE,
            mapped_at_creation: false,
        })
    }

    /// Records, submits and waits: seconds up to the submit, and all of them.
    pub(crate) fn run(&self, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<[f64; 2]> {
        let start = Instant::now();
        let mut encoder = self.device.create_command_encoder(&Default::default());
        record(&mut encoder);
        self.queue.submit([encoder.finish()]);
        let submitted = start.elapsed().as_secs_f64();
        self.wait()?;
        Ok([submitted, start.elapsed().as_secs_f64()])
    }

    fn wait(&self) -> Result<()> {
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| e.to_string())?;
        self.error.lock().map_err(|e| e.to_string())?.take().map_or(Ok(()), Err)
    }

    pub(crate) fn read<T: bytemuck::Pod>(
        &self,
        buffer: &wgpu::Buffer,
        at: u64,
        bytes: u64,
    ) -> Result<Vec<T>> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("arm staging"),
            size: bytes,
            usage: Usage::COPY_DST | Usage::MAP_READ,
            mapped_at_creation: false,
        });
        self.run(|e| e.copy_buffer_to_buffer(buffer, at, &staging, 0, bytes))?;
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.wait()?;
        Ok(bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..).map_err(|e| e.to_string())?))
    }
}

impl Gpu {
    /// The best adapter whose `backend/name` contains `GRADCLIP_TEST_ADAPTER`.
    pub(crate) fn open() -> Result<Gpu> {
        let opened = opened()?;
        let error = opened.keep_errors();
        let Opened { name, driver, device, queue, .. } = opened;
        let clipper = Clipper::new(&device).map_err(|e| e.to_string())?;
        let device = Device { device, queue, error };
        let clock = Clock::new(&device);
        Ok(Gpu { name, driver, clipper, device, clock, set: None })
    }

    /// Tensors into as few arenas as there can be.
    fn place(&self, sizes: &[usize], dtype: DType) -> Result<(Vec<Arena>, Vec<Grad>)> {
        let each = dtype.size();
        // Of `bf16`, tensors begin at whole words only where sizes before them are even.
        if dtype != DType::F32 && sizes.iter().any(|size| size % 2 > 0) {
            return Err("tensors of bf16 with an even number of elements only".into());
        }
        let largest = self.device.device.limits().max_buffer_size / each;
        let mut lengths: Vec<u64> = vec![0];
        let mut places = Vec::new();
        for &size in sizes {
            let size = size as u64;
            if size > largest {
                return Err(format!("out of memory: no buffer of {} bytes here", each * size));
            }
            if lengths.last().is_none_or(|length| length + size > largest) {
                lengths.push(0);
            }
            let arena = lengths.len() - 1;
            places.push((arena, lengths[arena], size));
            lengths[arena] += size;
        }
        let mut first = 0;
        let arena = |&elements: &u64| {
            first += elements;
            let [values, pristine] = [0; 2].map(|_| self.device.buffer(each * elements));
            Arena { first: first - elements, elements, dtype, values, pristine }
        };
        let arenas: Vec<Arena> = lengths.iter().map(arena).collect();
        self.device.wait().map_err(|error| format!("out of memory: {error}"))?;
        let grad = |&(arena, at, size): &(usize, u64, u64)| {
            let arena: &Arena = &arenas[arena];
            Grad::range("g", &arena.values, each * at, size).dtype(dtype)
        };
        let grads = places.iter().map(grad).collect();
        Ok((arenas, grads))
    }

    fn set(&mut self) -> Result<&mut Set> {
        self.set.as_mut().ok_or("no set".into())
    }
}

impl Arena {
    /// Uploads what it is restored from, and returns the sum of its squares.
    fn upload(&self, device: &Device) -> Result<f64> {
        let mut sum = 0.0;
        let mut part = Vec::new();
        for at in (0..self.elements).step_by((UPLOAD / 4) as usize) {
            part.resize((UPLOAD / 4).min(self.elements - at) as usize, 0.0);
            fill(&mut part, self.first + at, self.bf16());
            sum += sum_of_squares(&part);
            let halves: Vec<u16>;
            let bytes = if self.bf16() {
                halves = part.iter().map(|&x| bf16_bits(x)).collect();
                bytemuck::cast_slice(&halves)
            } else {
                bytemuck::cast_slice(&part)
            };
            device.queue.write_buffer(&self.pristine, self.dtype.size() * at, bytes);
            device.queue.submit([]);
            device.wait()?;
        }
        Ok(sum)
    }

    fn check(&self, device: &Device, clipped: bool) -> Result<()> {
        let count = self.elements.min(CHECKED);
        for at in [0, self.elements - count] {
            let (first, bytes) = (self.dtype.size() * at, self.dtype.size() * count);
            let own: Vec<f32> = if self.bf16() {
                device.read::<u16>(&self.values, first, bytes)?.into_iter().map(from_bf16).collect()
            } else {
                device.read(&self.values, first, bytes)?
            };
            check(self.first + at, &own, clipped, self.bf16())?;
        }
        Ok(())
    }

    fn bf16(&self) -> bool {
        self.dtype == DType::Bf16
    }
}

impl Set {
    fn restore(&self, device: &Device) -> Result<()> {
        let copies = |encoder: &mut wgpu::CommandEncoder| {
            for arena in &self.arenas {
                encoder.copy_buffer_to_buffer(&arena.pristine, 0, &arena.values, 0, arena.values.size());
            }
        };
        device.run(copies).map(|_| ())
    }

    /// Clips once, and returns the norm.
    fn answer(&mut self, device: &Device, clipped: bool) -> Result<f64> {
        let threshold = threshold(self.reference, clipped);
        self.pass.set_threshold(&device.queue, threshold).map_err(|e| e.to_string())?;
        self.restore(device)?;
        let mut report = None;
        device.run(|encoder| {
            self.pass.record(encoder);
            report = Some(self.pass.read_back(encoder));
        })?;
        let report = report.ok_or("no report")?.map_err(|e| e.to_string())?;
        let report = report.wait().map_err(|e| e.to_string())?;
        self.arenas.iter().try_for_each(|arena| arena.check(device, clipped))?;
        report.norm().ok_or("no norm".into())
    }
}

impl Arm for Gpu {
    fn hello(&self) -> Value {
        json!({ "device": self.name, "driver": self.driver, "threads": rayon::current_num_threads() })
    }

    fn load(&mut self, sizes: &[usize], bf16: bool) -> Result<Value> {
        self.unload();
        let (arenas, grads) = self.place(sizes, if bf16 { DType::Bf16 } else { DType::F32 })?;
        let pass = self.clipper.prepare(&grads, &Clip::global_norm(1.0)).map_err(|e| e.to_string())?;
        let sums: Result<Vec<f64>> = arenas.iter().map(|arena| arena.upload(&self.device)).collect();
        let elements = arenas.iter().map(|arena| arena.elements).sum();
        let mut set = Set { arenas, pass, reference: sums?.iter().sum::<f64>().sqrt() };
        set.answer(&self.device, false)?;
        let norm = set.answer(&self.device, true)?;
        let mut told = judged(sizes.len(), elements, norm, set.reference)?;
        told["arenas"] = json!(set.arenas.len());
        told["dispatches"] = json!(set.pass.dispatch_count());
        self.set = Some(set);
        Ok(told)
    }

    /// Wall-clock seconds with the wait, those up to the submit, and the device's own: of both halves in one
    /// pass, and of each.
    fn time(&mut self, clipped: bool, repetitions: usize) -> Result<Value> {
        let threshold = threshold(self.set()?.reference, clipped);
        let queue = self.device.queue.clone();
        self.set()?.pass.set_threshold(&queue, threshold).map_err(|e| e.to_string())?;
        let (set, device) = (self.set.as_ref().ok_or("no set")?, &self.device);
        let mut names = vec!["seconds", "record"];
        names.extend(self.clock.iter().flat_map(|_| ["device", "norm", "apply"]));
        let mut columns = vec![Vec::new(); names.len()];
        for _ in 0..=repetitions {
            set.restore(device)?;
            let [submitted, whole] = device.run(|encoder| set.pass.record(encoder))?;
            let mut row = vec![whole, submitted];
            if let Some(clock) = &self.clock {
                set.restore(device)?;
                row.push(clock.whole(device, &set.pass)?);
                set.restore(device)?;
                row.extend(clock.halves(device, &set.pass)?);
            }
            columns.iter_mut().zip(row).for_each(|(column, seconds)| column.push(seconds));
        }
        let measured = names.iter().zip(&columns).map(|(name, c)| ((*name).to_owned(), json!(c[1..])));
        Ok(Value::Object(measured.collect()))
    }

    fn bandwidth(&mut self) -> Result<Value> {
        bandwidth(&self.device)
    }

    fn unload(&mut self) {
        self.set = None;
        // Memory is given back when the device is next polled.
        let _ = self.device.wait();
    }
}
