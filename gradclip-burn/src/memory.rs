//! Where the tensors of Burn lie: from tensor to memory and back, and from memory to buffer.

use std::any::Any;

use burn::backend::Cube;
use burn::backend::cubecl::{Device as CubeDevice, dtype_to_storage_type};
use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::{AutoCompiler, CubeTensor};
use burn::cubecl::std::tensor::into_contiguous;
use burn::cubecl::wgpu::WgpuServer;
use burn::tensor::{DType as BurnDType, Tensor};
use gradclip::{DType, wgpu};

use crate::error::Error;

/// Whose memory is meant, for errors.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) parameter: &'a str,
    pub(crate) what: &'static str,
}

/// A tensor that has no memory of ours, and what Burn said of it.
pub(crate) type Refused<const D: usize> = Box<(Tensor<D>, String)>;

/// The memory of a tensor, as the only owner of it where the tensor was. Under fusion, everything
/// queued that leads to the tensor runs first.
///
/// # Errors
///
/// The tensor, and why it has no memory of ours.
pub(crate) fn into_memory<const D: usize>(tensor: Tensor<D>) -> Result<CubeTensor, Refused<D>> {
    // Burn keeps a tensor that it cannot convert; the clone is gone before anybody counts owners.
    let kept = tensor.clone();
    match tensor.try_into_primitive::<Cube>() {
        Ok(primitive) => {
            drop(kept);
            Ok(resolved(primitive))
        }
        Err(error) => Err(Box::new((kept, format!("{error:?}")))),
    }
}

/// The tensor over a memory.
pub(crate) fn from_memory<const D: usize>(memory: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<Cube>(unresolved(memory))
}

#[cfg(not(feature = "fusion"))]
fn resolved(primitive: FloatTensor<Cube>) -> CubeTensor {
    primitive
}

#[cfg(not(feature = "fusion"))]
fn unresolved(memory: CubeTensor) -> FloatTensor<Cube> {
    memory
}

/// Consuming the fused tensor takes its handle out of the fusion server, so that owners of the memory can
/// be counted: with a clone left there, every memory would look shared.
#[cfg(feature = "fusion")]
fn resolved(primitive: FloatTensor<Cube>) -> CubeTensor {
    let client = primitive.client.clone();
    client.resolve_tensor_float::<burn::backend::wgpu::CubeBackend>(primitive)
}

/// As Burn's own `from_data` makes a fused tensor of memory that is there.
#[cfg(feature = "fusion")]
fn unresolved(memory: CubeTensor) -> FloatTensor<Cube> {
    use burn::backend::TensorMetadata;
    use burn::backend::fusion::custom::{OperationIr, OperationOutput, StreamId};
    use burn::backend::fusion::{NoOp, get_client};
    use burn::backend::ir::{BackendIr, InitOperationIr};
    use burn::backend::wgpu::CubeBackend;

    let client = get_client::<CubeBackend>(&memory.device);
    let (shape, dtype) = (memory.shape(), memory.dtype);
    let handle = CubeBackend::float_tensor_handle(memory);
    let init = InitOperationIr::create(shape, dtype, || client.register_tensor_handle(handle));
    client.register(StreamId::current(), OperationIr::Init(init), NoOp::<CubeBackend>::new()).output()
}

/// Checks backend, device and type.
pub(crate) fn check(memory: &CubeTensor, device: &CubeDevice, owner: Owner<'_>) -> Result<DType, Error> {
    let Owner { parameter, what } = owner;
    if memory.device != *device {
        let (required, given) = (format!("{device:?}"), format!("{:?}", memory.device));
        return Err(Error::Device { parameter: parameter.into(), what, required, given });
    }
    match memory.dtype {
        BurnDType::F32 => Ok(DType::F32),
        BurnDType::F16 => Ok(DType::F16),
        BurnDType::BF16 => Ok(DType::Bf16),
        other => Err(Error::DType { parameter: parameter.into(), what, given: format!("{other:?}") }),
    }
}

/// Whether elements lie one after another, each once.
pub(crate) fn is_dense(memory: &CubeTensor) -> bool {
    !memory.meta.is_tiled() && memory.is_contiguous()
}

/// Whether writing changes no other tensor: nobody else holds the memory, and no command that another
/// stream has queued reads it still. Burn has to be flushed first: commands on their way to its server
/// hold what they read.
pub(crate) fn is_ours(memory: &CubeTensor) -> bool {
    memory.handle.can_mut() && !memory.handle.memory.is_bound()
}

/// A dense copy in memory of its own. Queued, not submitted.
pub(crate) fn copied(memory: &CubeTensor, owner: Owner<'_>) -> Result<CubeTensor, Error> {
    if memory.meta.is_tiled() {
        let Owner { parameter, what } = owner;
        let message = "it is stored in tiles".into();
        return Err(Error::Memory { parameter: parameter.into(), what, message });
    }
    let CubeTensor { client, device, dtype, .. } = memory.clone();
    let copy = into_contiguous(&client, memory.clone().binding(), dtype_to_storage_type(dtype));
    Ok(CubeTensor::new(client, copy.handle, *copy.metadata, device, dtype))
}

/// A range of a buffer, and what keeps Burn from moving it or giving it to others.
pub(crate) struct Located {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) offset: u64,
    _held: Box<dyn Any>,
}

/// Finds the buffer. Burn submits what its stream and the tensor's own have queued.
pub(crate) fn locate(memory: &CubeTensor, owner: Owner<'_>) -> Result<Located, Error> {
    let Owner { parameter, what } = owner;
    let found = memory.client.get_resource::<WgpuServer<AutoCompiler>>(memory.handle.clone());
    let held = found.map_err(|error| Error::Memory {
        parameter: parameter.into(),
        what,
        message: error.to_string(),
    })?;
    let resource = held.resource();
    Ok(Located { buffer: resource.buffer.clone(), offset: resource.offset, _held: Box::new(held) })
}
