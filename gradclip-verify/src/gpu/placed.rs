//! Tensors on a device: uploaded, and looked at again with whatever lies between them.

use gradclip::{Grad, wgpu};

use crate::failure::Failure;
use crate::gpu::Gpu;
use crate::tensor::{Data, Tensor};

/// What lies between tensors in memory, word for word, and must stay: read as an `f32` or as the second of two halves a
/// NaN, which every norm tells, and one that a product changes.
const GUARD: [u8; 4] = 0xffbf_a5a5_u32.to_le_bytes();

/// Makes bytes so long.
fn lengthen(bytes: &mut Vec<u8>, to: usize) {
    bytes.extend((bytes.len()..to).map(|at| GUARD[at % 4]));
}

/// Where tensors lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placing {
    /// All in one buffer, or each in a buffer of its own.
    pub arena: bool,
    /// Bytes before the first; in buffers of their own each begins another multiple of a word up to this.
    pub lead: usize,
    /// Bytes between two.
    pub gap: usize,
    /// Where each begins at least, besides the size of its elements.
    pub alignment: usize,
}

impl Placing {
    /// Each alone in its buffer.
    pub const APART: Placing = Placing { arena: false, lead: 0, gap: 0, alignment: 1 };
    /// One behind the other.
    pub const PACKED: Placing = Placing::arena(0, 0);

    /// In one buffer, after so many bytes and so many apart.
    pub const fn arena(lead: usize, gap: usize) -> Placing {
        Placing { arena: true, lead, gap, alignment: 1 }
    }

    /// Buffer and first byte of each of some data.
    fn places<'d>(self, data: impl Iterator<Item = &'d Data>) -> Vec<(usize, usize)> {
        let mut end = self.lead;
        let place = |(i, data): (usize, &Data)| {
            if !self.arena {
                return (i, (i * 4 % (self.lead + 4)) & !3);
            }
            let at = end.next_multiple_of(self.alignment.max(data.dtype().size() as usize));
            end = at + data.bytes().len() + self.gap;
            (0, at)
        };
        data.enumerate().map(place).collect()
    }
}

/// Gradients on a device, with their parameters.
#[derive(Clone, Debug)]
pub struct Placed {
    /// What they lie in.
    pub buffers: Vec<wgpu::Buffer>,
    /// The gradients.
    pub grads: Vec<Grad>,
    /// Their parameters, in one buffer, where they have some.
    pub parameters: Option<Operands>,
    image: Image,
}

/// Data that belong to gradients.
#[derive(Clone, Debug)]
pub struct Operands {
    /// What they lie in.
    pub buffers: Vec<wgpu::Buffer>,
    image: Image,
}

/// What buffers hold: data, and what must stay around them.
#[derive(Clone, Debug)]
struct Image {
    contents: Vec<Vec<u8>>,
    /// Buffer, first byte and data as they were put there.
    places: Vec<(usize, usize, Data)>,
}

impl Image {
    fn new<'d>(data: impl Iterator<Item = &'d Data>, places: &[(usize, usize)], room: usize) -> Image {
        let mut image = Image { contents: Vec::new(), places: Vec::new() };
        for (data, &(buffer, at)) in data.zip(places) {
            image.contents.resize(image.contents.len().max(buffer + 1), Vec::new());
            let bytes = &mut image.contents[buffer];
            lengthen(bytes, at + data.bytes().len());
            image.places.push((buffer, at, data.clone()));
        }
        for bytes in &mut image.contents {
            let end = (bytes.len() + room).next_multiple_of(4).max(4);
            lengthen(bytes, end);
        }
        image.fill();
        image
    }

    /// Writes the data into the contents.
    fn fill(&mut self) {
        for (buffer, at, data) in &self.places {
            self.contents[*buffer][*at..][..data.bytes().len()].copy_from_slice(data.bytes());
        }
    }

    fn put<'d>(&mut self, data: impl Iterator<Item = &'d Data>) {
        self.places.iter_mut().zip(data).for_each(|(place, data)| place.2.clone_from(data));
        self.fill();
    }

    fn write(&self, gpu: &Gpu, buffers: &[wgpu::Buffer]) {
        for (buffer, bytes) in buffers.iter().zip(&self.contents) {
            gpu.queue.write_buffer(buffer, 0, bytes);
        }
    }

    /// The data in what was read back. None where something changed between them.
    fn data(&self, got: &[Vec<u8>]) -> Option<Vec<Data>> {
        let mut gaps = got.to_vec();
        let mut data = Vec::new();
        for (buffer, at, own) in &self.places {
            let range = *at..at + own.bytes().len();
            data.push(Data::from_bytes(own.element(), &got[*buffer][range.clone()]));
            gaps[*buffer][range].copy_from_slice(own.bytes());
        }
        (gaps == self.contents).then_some(data)
    }
}

impl Placed {
    /// Uploads tensors. Parameters lie packed in a buffer of theirs, the first not at its beginning.
    pub fn upload(gpu: &Gpu, tensors: &[Tensor], placing: Placing) -> Placed {
        let places = placing.places(tensors.iter().map(|t| &t.data));
        Placed::new(gpu, tensors, &places, if placing.arena { placing.gap } else { 0 })
    }

    /// The same where it is said, by buffer and first byte, with room behind the last one.
    pub fn at(gpu: &Gpu, tensors: &[Tensor], places: &[(usize, usize)]) -> Placed {
        Placed::new(gpu, tensors, places, 64)
    }

    fn new(gpu: &Gpu, tensors: &[Tensor], places: &[(usize, usize)], room: usize) -> Placed {
        let image = Image::new(tensors.iter().map(|t| &t.data), places, room);
        let buffers: Vec<_> = image.contents.iter().map(|bytes| gpu.upload(bytes)).collect();
        let of = |(tensor, &(buffer, at)): (&Tensor, &(usize, usize))| {
            tensor.on_device(&buffers[buffer], at as u64)
        };
        let grads = tensors.iter().zip(places).map(of).collect();
        let mut placed = Placed { buffers, grads, parameters: None, image };
        if tensors.iter().any(|t| t.parameter.is_some()) {
            let data = tensors.iter().filter_map(|t| t.parameter.as_ref());
            let operands = Operands::upload(gpu, data, Placing::arena(12, 0));
            let with = placed.grads.iter_mut().zip(tensors).filter(|(_, t)| t.parameter.is_some());
            operands.belong(with.map(|(grad, _)| grad));
            placed.parameters = Some(operands);
        }
        placed
    }

    /// Has other parameters.
    pub fn set_parameters(&mut self, operands: Operands) {
        operands.belong(self.grads.iter_mut());
        self.parameters = Some(operands);
    }

    /// Puts other numbers where the tensors are.
    pub fn put(&mut self, gpu: &Gpu, tensors: &[Tensor]) {
        self.image.put(tensors.iter().map(|t| &t.data));
        self.restore(gpu);
    }

    /// Puts back what was uploaded last.
    pub fn restore(&self, gpu: &Gpu) {
        self.image.write(gpu, &self.buffers);
    }

    /// Whether the buffers hold what was put there.
    pub fn untouched(&self, got: &[Vec<u8>]) -> bool {
        self.image.contents == got
    }

    /// The tensors in what was read back. None where something changed between them.
    pub fn data(&self, got: &[Vec<u8>]) -> Option<Vec<Data>> {
        self.image.data(got)
    }

    /// What became of the tensors.
    ///
    /// # Errors
    ///
    /// Where something changed between them, or the device failed.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, gpu: &Gpu) -> Result<Vec<Data>, Failure> {
        pollster::block_on(self.read_async(gpu))
    }

    /// The same, for a page.
    ///
    /// # Errors
    ///
    /// Where something changed between them, or the device failed.
    pub async fn read_async(&self, gpu: &Gpu) -> Result<Vec<Data>, Failure> {
        read(gpu, &self.buffers, &self.image).await
    }

    /// Buffer and first byte of each tensor.
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, u64)> {
        self.image.places.iter().map(|(buffer, at, _)| (*buffer, *at as u64))
    }
}

impl Operands {
    /// Uploads data.
    pub fn upload<'d>(gpu: &Gpu, data: impl Iterator<Item = &'d Data> + Clone, placing: Placing) -> Operands {
        let image = Image::new(data.clone(), &placing.places(data), 12);
        let buffers = image.contents.iter().map(|bytes| gpu.upload(bytes)).collect();
        Operands { buffers, image }
    }

    /// Puts other data of the same sizes and types there.
    pub fn put<'d>(&mut self, gpu: &Gpu, data: impl Iterator<Item = &'d Data>) {
        self.image.put(data);
        self.image.write(gpu, &self.buffers);
    }

    /// Tells gradients that these are their parameters.
    fn belong<'g>(&self, grads: impl Iterator<Item = &'g mut Grad>) {
        for (grad, (buffer, at, data)) in grads.zip(&self.image.places) {
            *grad = grad.clone().parameter(&self.buffers[*buffer], *at as u64, data.dtype());
        }
    }

    /// Buffer and first byte of one.
    pub fn at(&self, i: usize) -> (&wgpu::Buffer, u64) {
        let (buffer, at, _) = &self.image.places[i];
        (&self.buffers[*buffer], *at as u64)
    }

    /// The data in what was read back. None where something changed between them.
    pub fn data(&self, got: &[Vec<u8>]) -> Option<Vec<Data>> {
        self.image.data(got)
    }

    /// What became of the data.
    ///
    /// # Errors
    ///
    /// Where something changed between them, or the device failed.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, gpu: &Gpu) -> Result<Vec<Data>, Failure> {
        pollster::block_on(self.read_async(gpu))
    }

    /// The same, for a page.
    ///
    /// # Errors
    ///
    /// Where something changed between them, or the device failed.
    pub async fn read_async(&self, gpu: &Gpu) -> Result<Vec<Data>, Failure> {
        read(gpu, &self.buffers, &self.image).await
    }
}

async fn read(gpu: &Gpu, buffers: &[wgpu::Buffer], image: &Image) -> Result<Vec<Data>, Failure> {
    let staged = gpu.submit(|encoder| gpu.stage(encoder, buffers));
    let data = image.data(&gpu.collect_async(&staged).await?);
    data.ok_or_else(|| Failure::Device(format!("{}: bits next to the tensors changed", gpu.name())))
}
