//! Clips by the CPU path.

use gradclip_mpi::Agreed;
use gradclip_mpi::gradclip::cpu::SliceMut;
use gradclip_mpi::gradclip::{DType, Report};
use half::{bf16, f16};

use crate::Result;
use crate::checkpoint::File;

/// Elements where their type can lie, which no place in a file is.
enum Elements {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Elements {
    fn read(dtype: DType, bytes: &[u8]) -> Elements {
        match dtype {
            DType::F16 => Elements::F16(bytemuck::pod_collect_to_vec(bytes)),
            DType::Bf16 => Elements::Bf16(bytemuck::pod_collect_to_vec(bytes)),
            _ => Elements::F32(bytemuck::pod_collect_to_vec(bytes)),
        }
    }

    fn slice(&mut self) -> SliceMut<'_> {
        match self {
            Elements::F32(v) => SliceMut::from(&mut v[..]),
            Elements::F16(v) => SliceMut::from(&mut v[..]),
            Elements::Bf16(v) => SliceMut::from(&mut v[..]),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Elements::F32(v) => bytemuck::cast_slice(v),
            Elements::F16(v) => bytemuck::cast_slice(v),
            Elements::Bf16(v) => bytemuck::cast_slice(v),
        }
    }
}

/// Clips what this rank has read, in place.
pub(crate) fn clip(agreed: &Agreed, own: &mut [File]) -> Result<Report> {
    let read = |file: &File| -> Vec<Elements> {
        file.tensors.iter().map(|t| Elements::read(t.dtype, &file.bytes[t.range.clone()])).collect()
    };
    let mut elements: Vec<Elements> = own.iter().flat_map(read).collect();
    let mut over = agreed.prepare(elements.iter_mut().map(Elements::slice))?;
    over.clip(elements.iter_mut().map(Elements::slice))?;
    let mut clipped = elements.iter();
    for File { bytes, tensors, .. } in own {
        for (tensor, elements) in tensors.iter().zip(&mut clipped) {
            bytes[tensor.range.clone()].copy_from_slice(elements.bytes());
        }
    }
    Ok(over.report().ok_or("no report follows a clip")?)
}
