//! A named tensor in host memory, aligned for its element type.

use gradclip::DType;
use gradclip::cpu::{GradMut, Slice};
use half::{bf16, f16};

/// A named tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// What it is called.
    pub name: String,
    /// Its elements.
    pub data: Data,
}

/// Elements of one type.
#[derive(Clone, Debug)]
pub enum Data {
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
            Data::F32($elements) => $body,
            Data::F16($elements) => $body,
            Data::Bf16($elements) => $body,
        }
    };
}

impl Tensor {
    /// The gradient to clip.
    pub fn grad(&mut self) -> GradMut<'_> {
        let name = self.name.as_str();
        match &mut self.data {
            Data::F32(elements) => GradMut::new(name, elements),
            Data::F16(elements) => GradMut::f16(name, elements),
            Data::Bf16(elements) => GradMut::bf16(name, elements),
        }
    }
}

impl Data {
    /// Copies little-endian bytes, which need not be aligned.
    pub fn from_bytes(dtype: Element, bytes: &[u8]) -> Data {
        match dtype {
            Element::F32 => Data::F32(bytemuck::pod_collect_to_vec(bytes)),
            Element::F16 => Data::F16(bytemuck::pod_collect_to_vec(bytes)),
            Element::Bf16 => Data::Bf16(bytemuck::pod_collect_to_vec(bytes)),
        }
    }

    /// The same numbers as `f32`, which has them all.
    pub fn widened(self) -> Data {
        match self {
            Data::F32(elements) => Data::F32(elements),
            Data::F16(elements) => Data::F32(elements.into_iter().map(f32::from).collect()),
            Data::Bf16(elements) => Data::F32(elements.into_iter().map(f32::from).collect()),
        }
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
            Data::F32(_) => Element::F32,
            Data::F16(_) => Element::F16,
            Data::Bf16(_) => Element::Bf16,
        }
    }

    /// Element `i`, exactly.
    pub fn value(&self, i: usize) -> f64 {
        match self {
            Data::F32(e) => e[i].into(),
            Data::F16(e) => e[i].into(),
            Data::Bf16(e) => e[i].into(),
        }
    }

    /// The bits of element `i`, in the low half for the short types.
    pub fn bits(&self, i: usize) -> u32 {
        match self {
            Data::F32(e) => e[i].to_bits(),
            Data::F16(e) => e[i].to_bits().into(),
            Data::Bf16(e) => e[i].to_bits().into(),
        }
    }
}

/// The element types there are: unlike the library's, this list is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// `f32`.
    F32,
    /// `f16`.
    F16,
    /// `bf16`.
    Bf16,
}

impl Element {
    /// Bits of the mantissa without the leading one.
    pub fn mantissa_bits(self) -> u32 {
        match self {
            Element::F32 => 23,
            Element::F16 => 10,
            Element::Bf16 => 7,
        }
    }

    /// The largest finite number.
    pub fn largest(self) -> f64 {
        match self {
            Element::F32 => f64::from(f32::MAX),
            Element::F16 => f16::MAX.to_f64(),
            Element::Bf16 => bf16::MAX.to_f64(),
        }
    }

    /// The largest number not above a positive one.
    pub fn floor(self, value: f64) -> f64 {
        let near = match self {
            Element::F32 => return value,
            Element::F16 => f16::from_f64(value).to_f64(),
            Element::Bf16 => bf16::from_f64(value).to_f64(),
        };
        let below = |value: f64| match self {
            Element::F16 => f16::from_bits(f16::from_f64(value).to_bits() - 1).to_f64(),
            _ => bf16::from_bits(bf16::from_f64(value).to_bits() - 1).to_f64(),
        };
        if near > value { below(near) } else { near }
    }

    /// Exponent of the smallest normal number.
    pub fn min_exponent(self) -> i32 {
        match self {
            Element::F16 => -14,
            _ => -126,
        }
    }
}

impl From<Element> for DType {
    fn from(element: Element) -> DType {
        match element {
            Element::F32 => DType::F32,
            Element::F16 => DType::F16,
            Element::Bf16 => DType::Bf16,
        }
    }
}
