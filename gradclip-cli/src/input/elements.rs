//! The elements of a tensor in a mapped file.

use std::borrow::Cow;

use bytemuck::AnyBitPattern;
use gradclip::cpu::Slice;
use half::{bf16, f16};

use super::Float;

/// Elements that are read where they lie, or from a copy where the file has them at an address that is
/// no multiple of their size.
#[derive(Debug)]
pub(crate) enum Elements<'a> {
    F64(Cow<'a, [f64]>),
    F32(Cow<'a, [f32]>),
    F16(Cow<'a, [f16]>),
    Bf16(Cow<'a, [bf16]>),
}

impl<'a> Elements<'a> {
    /// Of these bytes, which are little-endian.
    pub(crate) fn new(float: Float, bytes: &'a [u8]) -> Elements<'a> {
        match float {
            Float::F64 => Elements::F64(aligned(bytes)),
            Float::F32 => Elements::F32(aligned(bytes)),
            Float::F16 => Elements::F16(aligned(bytes)),
            Float::Bf16 => Elements::Bf16(aligned(bytes)),
        }
    }

    pub(crate) fn slice(&self) -> Slice<'_> {
        match self {
            Elements::F64(e) => (&e[..]).into(),
            Elements::F32(e) => (&e[..]).into(),
            Elements::F16(e) => (&e[..]).into(),
            Elements::Bf16(e) => (&e[..]).into(),
        }
    }
}

fn aligned<T: AnyBitPattern + bytemuck::NoUninit>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(elements) => Cow::Borrowed(elements),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    }
}
