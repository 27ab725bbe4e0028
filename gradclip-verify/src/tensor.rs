//! A named tensor in host memory with what belongs to it, as the CPU path and devices are given it.

use gradclip::cpu::{self, GradMut, GradRef, ParameterMut, Slice, StepMut, SumMut, Trace};
use gradclip::{Clip, ClipError, DType, Grad, Group, wgpu};
use half::{bf16, f16};

/// A gradient, and what may belong to it.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// What it is called.
    pub name: String,
    /// Its elements.
    pub data: Data,
    /// For scopes that cut it.
    pub shape: Option<Vec<u64>>,
    /// The group it is in.
    pub group: Option<Named>,
    /// What it is the gradient of.
    pub parameter: Option<Data>,
    /// That rounded to 16 bits, where the parameter is its master.
    pub half: Option<Data>,
    /// Factor of the learning rate.
    pub lr_scale: f64,
    /// Weight decay of its own.
    pub weight_decay: Option<f64>,
}

/// A group of tensors, left out where it has no threshold: unlike the library's, its parts can be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Named {
    /// What it is called.
    pub name: &'static str,
    /// Its own threshold.
    pub threshold: Option<f64>,
}

impl Named {
    /// With a threshold of its own.
    pub fn new(name: &'static str, threshold: impl Into<f64>) -> Named {
        Named { name, threshold: Some(threshold.into()) }
    }

    /// Never clipped.
    pub fn excluded(name: &'static str) -> Named {
        Named { name, threshold: None }
    }

    /// As the library has it.
    pub fn group(self) -> Group {
        self.threshold.map_or_else(|| Group::excluded(self.name), |c| Group::new(self.name, c))
    }
}

/// Elements of one type.
#[derive(Clone, Debug)]
pub enum Data {
    /// As `f64`.
    F64(Vec<f64>),
    /// As `f32`.
    F32(Vec<f32>),
    /// As `f16`.
    F16(Vec<f16>),
    /// As `bf16`.
    Bf16(Vec<bf16>),
}

/// `$body` with `$elements` bound to the elements, whatever their type.
macro_rules! with_elements {
    ($data:expr, $elements:ident => $body:expr) => {
        match $data {
            Data::F64($elements) => $body,
            Data::F32($elements) => $body,
            Data::F16($elements) => $body,
            Data::Bf16($elements) => $body,
        }
    };
}

/// `$grad`, of whatever kind, told shape and group of a tensor.
macro_rules! told {
    ($tensor:expr, $grad:expr) => {{
        let grad = $grad;
        let grad = if let Some(shape) = &$tensor.shape { grad.shape(shape) } else { grad };
        if let Some(named) = $tensor.group { grad.group(&named.group()) } else { grad }
    }};
}

impl Tensor {
    /// With nothing that belongs to it.
    pub fn new(name: impl Into<String>, data: impl Into<Data>) -> Tensor {
        let (name, data) = (name.into(), data.into());
        let (shape, group, parameter, half) = (None, None, None, None);
        Tensor { name, data, shape, group, parameter, half, lr_scale: 1.0, weight_decay: None }
    }

    /// With a shape.
    #[must_use]
    pub fn shape(self, shape: &[u64]) -> Tensor {
        Tensor { shape: Some(shape.to_vec()), ..self }
    }

    /// In a group.
    #[must_use]
    pub fn group(self, group: Named) -> Tensor {
        Tensor { group: Some(group), ..self }
    }

    /// With a parameter.
    #[must_use]
    pub fn parameter(self, parameter: impl Into<Data>) -> Tensor {
        Tensor { parameter: Some(parameter.into()), ..self }
    }

    /// Whether it is in no norm and never clipped.
    pub fn excluded(&self) -> bool {
        self.group.is_some_and(|named| named.threshold.is_none())
    }

    /// The gradient to clip.
    pub fn grad(&mut self) -> GradMut<'_> {
        let name = self.name.as_str();
        let grad = match &mut self.data {
            Data::F64(elements) => GradMut::f64(name, elements),
            Data::F32(elements) => GradMut::new(name, elements),
            Data::F16(elements) => GradMut::f16(name, elements),
            Data::Bf16(elements) => GradMut::bf16(name, elements),
        };
        let grad = told!(self, grad);
        if let Some(parameter) = &self.parameter { grad.parameter(parameter.slice()) } else { grad }
    }

    /// The gradient to read.
    pub fn to_read(&self) -> GradRef<'_> {
        told!(self, GradRef::new(self.name.as_str(), self.data.slice()))
    }

    /// The step to make. Nothing where its parameter is not of `f32`.
    pub fn step(&mut self) -> Option<StepMut<'_>> {
        let Some(Data::F32(parameter)) = &mut self.parameter else { return None };
        let parameter = match &mut self.half {
            Some(Data::F16(half)) => ParameterMut::F16(parameter, half),
            Some(Data::Bf16(half)) => ParameterMut::Bf16(parameter, half),
            _ => parameter.into(),
        };
        let step = StepMut::new(self.name.as_str(), self.data.slice(), parameter).lr_scale(self.lr_scale);
        let step = told!(self, step);
        Some(if let Some(decay) = self.weight_decay { step.weight_decay(decay) } else { step })
    }

    /// The sum to add to.
    pub fn sum<'a>(&'a self, sum: &'a mut [f32]) -> SumMut<'a> {
        let sum = told!(self, SumMut::new(self.name.as_str(), self.data.slice(), sum));
        if let Some(parameter) = &self.parameter { sum.parameter(parameter.slice()) } else { sum }
    }

    /// The gradient in a device's buffer, without its parameter.
    pub fn on_device(&self, buffer: &wgpu::Buffer, offset: u64) -> Grad {
        let grad = Grad::range(&self.name, buffer, offset, self.data.len() as u64).dtype(self.data.dtype());
        let grad = told!(self, grad.lr_scale(self.lr_scale));
        if let Some(decay) = self.weight_decay { grad.weight_decay(decay) } else { grad }
    }
}

/// Tensors `t0`, `t1` and so on.
pub fn named<D: Into<Data>>(data: impl IntoIterator<Item = D>) -> Vec<Tensor> {
    data.into_iter().enumerate().map(|(i, data)| Tensor::new(format!("t{i}"), data)).collect()
}

/// As many tensors of `f32` as there are shapes.
pub fn shaped<S: AsRef<[u64]>>(shapes: &[S], mut data: impl FnMut(usize, usize) -> Vec<f32>) -> Vec<Tensor> {
    let one = |(i, shape): (usize, &S)| {
        let shape = shape.as_ref();
        Tensor::new(format!("t{i}"), data(i, shape.iter().product::<u64>() as usize)).shape(shape)
    };
    shapes.iter().enumerate().map(one).collect()
}

/// The gradients to clip on the CPU path.
pub fn grads(tensors: &mut [Tensor]) -> Vec<GradMut<'_>> {
    tensors.iter_mut().map(Tensor::grad).collect()
}

/// The steps to make on the CPU path.
///
/// # Panics
///
/// Where a parameter is not of `f32`: the tensor would be left out, and nothing checked.
pub fn steps(tensors: &mut [Tensor]) -> Vec<StepMut<'_>> {
    let count = tensors.len();
    let steps: Vec<_> = tensors.iter_mut().filter_map(Tensor::step).collect();
    assert_eq!(steps.len(), count, "a parameter is not of f32");
    steps
}

/// What the CPU path does to copies: its records, and what became of the tensors.
///
/// # Errors
///
/// Where the library refuses them.
pub fn traced(tensors: &[Tensor], clip: &Clip) -> Result<(Trace, Vec<Tensor>), ClipError> {
    let mut after = tensors.to_vec();
    let trace = cpu::clip_traced(&mut grads(&mut after), clip)?;
    Ok((trace, after))
}

/// Elements as `f32`, tensor by tensor.
pub fn floats(tensors: &[Tensor]) -> Vec<Vec<f32>> {
    tensors.iter().map(|t| t.data.floats()).collect()
}

impl From<Vec<f32>> for Data {
    fn from(elements: Vec<f32>) -> Data {
        Data::F32(elements)
    }
}

impl From<Vec<f64>> for Data {
    fn from(elements: Vec<f64>) -> Data {
        Data::F64(elements)
    }
}

impl From<&Vec<f32>> for Data {
    fn from(elements: &Vec<f32>) -> Data {
        Data::F32(elements.clone())
    }
}

impl Data {
    /// Copies little-endian bytes, which need not be aligned.
    pub fn from_bytes(dtype: Element, bytes: &[u8]) -> Data {
        match dtype {
            Element::F64 => Data::F64(bytemuck::pod_collect_to_vec(bytes)),
            Element::F32 => Data::F32(bytemuck::pod_collect_to_vec(bytes)),
            Element::F16 => Data::F16(bytemuck::pod_collect_to_vec(bytes)),
            Element::Bf16 => Data::Bf16(bytemuck::pod_collect_to_vec(bytes)),
        }
    }

    /// The nearest elements of a type.
    pub fn rounded(dtype: Element, values: &[f32]) -> Data {
        match dtype {
            Element::F64 => Data::F64(values.iter().map(|&x| x.into()).collect()),
            Element::F32 => Data::F32(values.to_vec()),
            Element::F16 => Data::F16(values.iter().map(|&x| f16::from_f32(x)).collect()),
            Element::Bf16 => Data::Bf16(values.iter().map(|&x| bf16::from_f32(x)).collect()),
        }
    }

    /// The same numbers as `f32`, which has those of all but `f64`.
    pub fn widened(self) -> Data {
        match self {
            Data::F16(_) | Data::Bf16(_) => Data::F32(self.floats()),
            wide => wide,
        }
    }

    /// The elements as `f32`.
    pub fn floats(&self) -> Vec<f32> {
        match self {
            Data::F32(elements) => elements.clone(),
            other => other.values().map(|x| x as f32).collect(),
        }
    }

    /// The elements, exactly.
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        (0..self.len()).map(|i| self.value(i))
    }

    /// The elements, to be read.
    pub fn slice(&self) -> Slice<'_> {
        with_elements!(self, e => e.as_slice().into())
    }

    /// The bytes in memory.
    pub fn bytes(&self) -> &[u8] {
        with_elements!(self, e => bytemuck::cast_slice(e))
    }

    /// How many elements there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        with_elements!(self, e => e.len())
    }

    /// The library's name of the type.
    pub fn dtype(&self) -> DType {
        self.element().into()
    }

    /// The type.
    pub fn element(&self) -> Element {
        match self {
            Data::F64(_) => Element::F64,
            Data::F32(_) => Element::F32,
            Data::F16(_) => Element::F16,
            Data::Bf16(_) => Element::Bf16,
        }
    }

    /// Element `i`, exactly.
    #[allow(clippy::useless_conversion)]
    pub fn value(&self, i: usize) -> f64 {
        with_elements!(self, e => e[i].into())
    }

    /// The bits of element `i`, the lowest of a word.
    pub fn bits(&self, i: usize) -> u64 {
        match self {
            Data::F64(e) => e[i].to_bits(),
            Data::F32(e) => e[i].to_bits().into(),
            Data::F16(e) => e[i].to_bits().into(),
            Data::Bf16(e) => e[i].to_bits().into(),
        }
    }
}

/// The element types there are: unlike the library's, this list is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// `f64`, which no device takes.
    F64,
    /// `f32`.
    F32,
    /// `f16`.
    F16,
    /// `bf16`.
    Bf16,
}

impl Element {
    /// Those that devices take.
    pub const ON_DEVICES: [Element; 3] = [Element::F32, Element::F16, Element::Bf16];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        DType::from(self).size() as usize
    }

    /// Bits of the mantissa without the leading one.
    pub fn mantissa_bits(self) -> u32 {
        match self {
            Element::F64 => 52,
            Element::F32 => 23,
            Element::F16 => 10,
            Element::Bf16 => 7,
        }
    }

    /// The largest finite number.
    pub fn largest(self) -> f64 {
        match self {
            Element::F64 => f64::MAX,
            Element::F32 => f64::from(f32::MAX),
            Element::F16 => f16::MAX.to_f64(),
            Element::Bf16 => bf16::MAX.to_f64(),
        }
    }

    /// The largest number not above a positive one, which has the digits of an `f32`.
    pub fn floor(self, value: f64) -> f64 {
        let (near, below) = match self {
            Element::F64 | Element::F32 => return value,
            Element::F16 => {
                let near = f16::from_f64(value);
                (near.to_f64(), f16::from_bits(near.to_bits().saturating_sub(1)).to_f64())
            }
            Element::Bf16 => {
                let near = bf16::from_f64(value);
                (near.to_f64(), bf16::from_bits(near.to_bits().saturating_sub(1)).to_f64())
            }
        };
        if near > value { below } else { near }
    }

    /// Exponent of the smallest normal number.
    pub fn min_exponent(self) -> i32 {
        match self {
            Element::F64 => -1022,
            Element::F16 => -14,
            _ => -126,
        }
    }
}

impl From<Element> for DType {
    fn from(element: Element) -> DType {
        match element {
            Element::F64 => DType::F64,
            Element::F32 => DType::F32,
            Element::F16 => DType::F16,
            Element::Bf16 => DType::Bf16,
        }
    }
}
