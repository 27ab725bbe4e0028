//! A case's steps on a device.

use super::*;

/// An open device.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    pub device: &'a wgpu::Device,
    pub queue: &'a wgpu::Queue,
    pub clipper: &'a Clipper,
}

/// How tensors are placed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Placing {
    /// A buffer each; the stepper allocates the optimiser's state.
    Separate,
    /// All gradients, parameters and moments in one buffer, each after an odd number of words.
    Arena,
}

pub const PLACINGS: [Placing; 2] = [Placing::Separate, Placing::Arena];

/// What lies in buffers before anything is written, and between tensors afterwards.
const FILLER: u8 = 0xa5;

/// Where a tensor lies.
struct Place {
    /// Index of its buffer.
    buffer: usize,
    offset: usize,
    bytes: usize,
}

impl Place {
    fn of<'i>(&self, image: &'i [Vec<u8>]) -> &'i [u8] {
        &image[self.buffer][self.offset..][..self.bytes]
    }

    fn of_mut<'i>(&self, image: &'i mut [Vec<u8>]) -> &'i mut [u8] {
        &mut image[self.buffer][self.offset..][..self.bytes]
    }
}

impl Placing {
    /// Sizes of the buffers, and the places in them.
    fn lay(self, lengths: &[usize]) -> (Vec<usize>, Vec<Place>) {
        let mut words = 0;
        let mut place = |(i, &bytes): (usize, &usize)| {
            if self == Placing::Separate {
                return Place { buffer: i, offset: 0, bytes };
            }
            let first = (words + 1) | 1;
            words = first + bytes.div_ceil(4);
            Place { buffer: 0, offset: first * 4, bytes }
        };
        let places = lengths.iter().enumerate().map(&mut place).collect();
        let separate = || lengths.iter().map(|bytes| bytes.next_multiple_of(4).max(4)).collect();
        (if self == Placing::Separate { separate() } else { vec![(words + 1) * 4] }, places)
    }
}

pub(super) struct OnDevice<'a> {
    machine: Machine<'a>,
    buffers: Vec<wgpu::Buffer>,
    stepper: Stepper,
    gradients: Vec<Place>,
    /// Parameters first, then all first moments, then all second ones.
    written: Vec<Place>,
    parameters: Vec<Vec<f32>>,
}

impl<'a> OnDevice<'a> {
    pub(super) fn new(case: &Case, machine: Machine<'a>, placing: Placing) -> Attempt<OnDevice<'a>> {
        let gradients = case.steps.first().map(|s| &s.gradients[..]).unwrap_or_default();
        let named = if placing == Placing::Arena { case.optimizer.moments() } else { 0 };
        let count = case.parameters.len();
        let beside = (0..1 + named).flat_map(|_| case.parameters.iter().map(|p| p.len() * 4));
        let lengths: Vec<usize> = gradients.iter().map(|g| g.bytes().len()).chain(beside).collect();
        let (sizes, mut places) = placing.lay(&lengths);
        let written = places.split_off(count);
        let mut image: Vec<Vec<u8>> = sizes.iter().map(|&size| vec![FILLER; size]).collect();
        written.iter().for_each(|place| place.of_mut(&mut image).fill(0));
        for (place, p) in written.iter().zip(&case.parameters) {
            place.of_mut(&mut image).copy_from_slice(bytemuck::cast_slice(p));
        }
        let buffers: Vec<wgpu::Buffer> = image.iter().map(|bytes| machine.buffer(bytes)).collect();
        let grad = |(t, g): (usize, &Values)| {
            let at = |place: &Place| (&buffers[place.buffer], place.offset as u64);
            let ((buffer, offset), (parameter, there)) = (at(&places[t]), at(&written[t]));
            let grad = Grad::range(&case.tensors[t], buffer, offset, case.parameters[t].len() as u64)
                .dtype(g.dtype())
                .shape(&case.shapes[t])
                .parameter(parameter, there, DType::F32)
                .lr_scale(case.own[t].lr_scale);
            let grad = case.own[t].weight_decay.into_iter().fold(grad, Grad::weight_decay);
            let moments = written.iter().skip(count + t).step_by(count).map(at);
            moments.fold(grad, |grad, (buffer, offset)| grad.moment(buffer, offset))
        };
        let grads: Vec<Grad> = gradients.iter().enumerate().map(grad).collect();
        let stepper = machine.clipper.prepare_step(&grads, &case.clip, case.optimizer).map_err(words)?;
        let parameters = case.parameters.clone();
        Ok(OnDevice { machine, buffers, stepper, gradients: places, written, parameters })
    }

    /// That parameters and state were written, and nothing else.
    fn check_rest(&self, image: &[Vec<u8>], gradients: &[Values]) -> Attempt<()> {
        let mut wanted: Vec<Vec<u8>> = image.iter().map(|bytes| vec![FILLER; bytes.len()]).collect();
        for (place, g) in self.gradients.iter().zip(gradients) {
            place.of_mut(&mut wanted).copy_from_slice(g.bytes());
        }
        self.written.iter().for_each(|p| p.of_mut(&mut wanted).copy_from_slice(p.of(image)));
        if wanted == image { Ok(()) } else { Err("a step wrote beside parameters and state".into()) }
    }
}

impl Stepping for OnDevice<'_> {
    fn step(&mut self, gradients: &[Values]) -> Attempt<Report> {
        let Machine { device, queue, .. } = self.machine;
        for (place, g) in self.gradients.iter().zip(gradients) {
            if g.bytes().len() != place.bytes {
                return Err("gradients of another size or element type than those of the first step".into());
            }
            // Whole words are written.
            let mut bytes = g.bytes().to_vec();
            bytes.resize(bytes.len().next_multiple_of(4), FILLER);
            queue.write_buffer(&self.buffers[place.buffer], place.offset as u64, &bytes);
        }
        let mut encoder = device.create_command_encoder(&Default::default());
        self.stepper.record_step(&mut encoder);
        let report = self.stepper.pass().read_back(&mut encoder).map_err(words)?;
        queue.submit([encoder.finish()]);
        let report = report.wait().map_err(words)?;
        let image = self.machine.read(&self.buffers)?;
        self.check_rest(&image, gradients)?;
        for (place, p) in self.written.iter().zip(&mut self.parameters) {
            *p = bytemuck::pod_collect_to_vec(place.of(&image));
        }
        Ok(report)
    }

    fn parameters(&self) -> &[Vec<f32>] {
        &self.parameters
    }

    fn progress(&self) -> Attempt<(f32, u64)> {
        let image = self.machine.read(std::slice::from_ref(self.stepper.pass().progress()))?;
        let progress: Progress = bytemuck::pod_read_unaligned(&image[0][..size_of::<Progress>()]);
        Ok((progress.scale, progress.updates.into()))
    }
}

impl Machine<'_> {
    fn buffer(self, bytes: &[u8]) -> wgpu::Buffer {
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("tensors of a case"),
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.queue.write_buffer(&buffer, 0, bytes);
        buffer
    }

    /// What lies in buffers, in one wait.
    fn read(self, buffers: &[wgpu::Buffer]) -> Attempt<Vec<Vec<u8>>> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging of a case"),
            size: buffers.iter().map(wgpu::Buffer::size).sum(),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut end = 0;
        for buffer in buffers {
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, end, buffer.size());
            end += buffer.size();
        }
        self.queue.submit([encoder.finish()]);
        // A failure shows where the range is asked for.
        staging.map_async(wgpu::MapMode::Read, .., drop);
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(words)?;
        let view = staging.get_mapped_range(..).map_err(words)?;
        let mut rest = &view[..];
        let mut next = |buffer: &wgpu::Buffer| {
            let (first, others) = rest.split_at(buffer.size() as usize);
            rest = others;
            first.to_vec()
        };
        Ok(buffers.iter().map(&mut next).collect())
    }
}
