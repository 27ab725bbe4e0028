//! The element types that a safetensors file may have, and what becomes of each.

/// An element type of gradients.
pub(crate) use gradclip_verify::tensor::Element as Float;

/// What a tensor of some type is to gradclip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// A gradient.
    Gradient(Float),
    /// Integers and truth values: nothing to clip, written as they are.
    Passed,
    /// Numbers that should be clipped and cannot be; why, and what to do.
    Refused(&'static str),
}

/// An element type of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileType {
    pub(crate) name: &'static str,
    /// Bits of one element; those of the smallest are packed.
    pub(crate) bits: u64,
    pub(crate) class: Class,
}

const FP8: &str = "8-bit floats have no room for a rounded product; clip the gradients before they are \
     quantised, or convert the tensor to BF16 or F32";
const TINY: &str = "packed floats of 4 or 6 bits belong to scales that are elsewhere; clip the gradients \
     before they are quantised, or convert the tensor to BF16 or F32";
const COMPLEX: &str = "complex numbers are not clipped; save real and imaginary parts as one F32 tensor with \
     an axis of 2 (torch.view_as_real), whose L2 norm is the same";

const fn of(name: &'static str, bits: u64, class: Class) -> FileType {
    FileType { name, bits, class }
}

/// All that the format has.
const TYPES: [FileType; 22] = [
    of("F64", 64, Class::Gradient(Float::F64)),
    of("F32", 32, Class::Gradient(Float::F32)),
    of("F16", 16, Class::Gradient(Float::F16)),
    of("BF16", 16, Class::Gradient(Float::Bf16)),
    of("I64", 64, Class::Passed),
    of("U64", 64, Class::Passed),
    of("I32", 32, Class::Passed),
    of("U32", 32, Class::Passed),
    of("I16", 16, Class::Passed),
    of("U16", 16, Class::Passed),
    of("I8", 8, Class::Passed),
    of("U8", 8, Class::Passed),
    of("BOOL", 8, Class::Passed),
    of("C64", 64, Class::Refused(COMPLEX)),
    of("F8_E4M3", 8, Class::Refused(FP8)),
    of("F8_E5M2", 8, Class::Refused(FP8)),
    of("F8_E8M0", 8, Class::Refused(FP8)),
    of("F8_E4M3FNUZ", 8, Class::Refused(FP8)),
    of("F8_E5M2FNUZ", 8, Class::Refused(FP8)),
    of("F6_E2M3", 6, Class::Refused(TINY)),
    of("F6_E3M2", 6, Class::Refused(TINY)),
    of("F4", 4, Class::Refused(TINY)),
];

impl FileType {
    /// The type of this name.
    pub(super) fn named(name: &str) -> Option<FileType> {
        TYPES.into_iter().find(|dtype| dtype.name == name)
    }

    /// Bytes of this many elements; an error where they are no whole bytes, or too many.
    pub(super) fn bytes(self, elements: u64) -> Option<u64> {
        let bits = elements.checked_mul(self.bits)?;
        if bits.is_multiple_of(8) { Some(bits / 8) } else { None }
    }
}

/// The element types of gradients, in words.
pub(crate) const GRADIENTS: &str = "F64, F32, F16 or BF16";
