//! Where the tensors of Burn lie: from tensor to memory and back, and from memory to buffer. The only file that
//! reaches for parts of cubecl and of Burn's backends, which may change with any of their versions.

use std::any::Any;

use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::AutoCompiler;
use burn::backend::{Cube, TensorMetadata};
use burn::cubecl::server::Handle;
use burn::cubecl::std::tensor::into_contiguous;
use burn::cubecl::wgpu::WgpuServer;
use burn::tensor::{DType as BurnDType, Tensor};
use gradclip::{DType, wgpu};

pub(crate) use burn::backend::cubecl::Device as MemoryDevice;
pub(crate) use burn::backend::wgpu::CubeTensor as Memory;
pub(crate) use burn::cubecl::client::Client;

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
pub(crate) fn into_memory<const D: usize>(tensor: Tensor<D>) -> Result<Memory, Refused<D>> {
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
pub(crate) fn from_memory<const D: usize>(memory: Memory) -> Tensor<D> {
    Tensor::from_primitive::<Cube>(unresolved(memory))
}

#[cfg(not(feature = "fusion"))]
fn resolved(primitive: FloatTensor<Cube>) -> Memory {
    primitive
}

#[cfg(not(feature = "fusion"))]
fn unresolved(memory: Memory) -> FloatTensor<Cube> {
    memory
}

/// Consuming the fused tensor takes its handle out of the fusion server, so that owners of the memory can
/// be counted: with a clone left there, every memory would look shared.
#[cfg(feature = "fusion")]
fn resolved(primitive: FloatTensor<Cube>) -> Memory {
    let client = primitive.client.clone();
    client.resolve_tensor_float::<burn::backend::wgpu::CubeBackend>(primitive)
}

/// As Burn's own `from_data` makes a fused tensor of memory that is there.
#[cfg(feature = "fusion")]
fn unresolved(memory: Memory) -> FloatTensor<Cube> {
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
pub(crate) fn check(memory: &Memory, device: &MemoryDevice, owner: Owner<'_>) -> Result<DType, Error> {
    let Owner { parameter, what } = owner;
    if memory.device != *device {
        let (required, given) = (format!("{device:?}"), format!("{:?}", memory.device));
        return Err(Error::Device { parameter: parameter.into(), what, required, given });
    }
    match memory.dtype {
        BurnDType::F32 => Ok(DType::F32),
        BurnDType::F16 => Ok(DType::F16),
        BurnDType::BF16 => Ok(DType::Bf16),
        other => {
            let (required, given) = ("f32, f16 or bf16", format!("{other:?}"));
            Err(Error::DType { parameter: parameter.into(), what, required, given })
        }
    }
}

/// Whether elements lie one after another, each once.
pub(crate) fn is_dense(memory: &Memory) -> bool {
    !memory.meta.is_tiled() && memory.is_contiguous()
}

/// Whether writing changes no other tensor: nobody else holds the memory, and no command that another
/// stream has queued reads it still. Burn has to be flushed first: commands on their way to its server
/// hold what they read.
pub(crate) fn is_ours(memory: &Memory) -> bool {
    memory.handle.can_mut() && !memory.handle.memory.is_bound()
}

/// A dense copy in memory of its own. Queued, not submitted.
pub(crate) fn copied(memory: &Memory, owner: Owner<'_>) -> Result<Memory, Error> {
    if memory.meta.is_tiled() {
        let Owner { parameter, what } = owner;
        let message = "it is stored in tiles".into();
        return Err(Error::Memory { parameter: parameter.into(), what, message });
    }
    let Memory { client, device, dtype, .. } = memory.clone();
    let copy = into_contiguous(&client, memory.clone().binding(), dtype_to_storage_type(dtype));
    Ok(Memory::new(client, copy.handle, *copy.metadata, device, dtype))
}

/// Has Burn submit what this thread has queued.
pub(crate) fn flush(client: &Client) -> Result<(), Error> {
    client.flush().map_err(|error| Error::Flush { message: error.to_string() })
}

/// The shape of a tensor.
pub(crate) fn shape(memory: &Memory) -> Vec<usize> {
    memory.shape().to_vec()
}

/// A range of a buffer, and what keeps Burn from moving it or giving it to others.
pub(crate) struct Located {
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) offset: u64,
    _held: Box<dyn Any + Send>,
}

/// A memory to be found. Owns a handle, so [`is_ours`] has to be asked before.
pub(crate) struct Wanted<'a> {
    handle: Handle,
    owner: Owner<'a>,
}

impl<'a> Wanted<'a> {
    pub(crate) fn new(memory: &Memory, owner: Owner<'a>) -> Wanted<'a> {
        Wanted { handle: memory.handle.clone(), owner }
    }
}

/// Finds one buffer.
pub(crate) fn locate(memory: &Memory, owner: Owner<'_>) -> Result<Located, Error> {
    let mut found = locate_all(&memory.client, vec![Wanted::new(memory, owner)])?;
    found.pop().ok_or_else(|| unlocated(owner, "nothing"))
}

/// Finds the buffers of all of them, in their order. Burn submits what this thread and those of the tensors have queued.
///
/// Burn's server has a thread of its own, which may sleep: to ask it takes as long as to wake it. So all are asked for in one
/// turn there; what is asked from that thread is answered at once.
pub(crate) fn locate_all(client: &Client, wanted: Vec<Wanted<'_>>) -> Result<Vec<Located>, Error> {
    let (handles, owners): (Vec<Handle>, Vec<Owner<'_>>) =
        wanted.into_iter().map(|wanted| (wanted.handle, wanted.owner)).unzip();
    let there = client.clone();
    let found = client.exclusive(move || {
        let find = |handle| match there.get_resource::<WgpuServer<AutoCompiler>>(handle) {
            Ok(held) => {
                let (buffer, offset) = (held.resource().buffer.clone(), held.resource().offset);
                Ok(Located { buffer, offset, _held: Box::new(held) })
            }
            Err(error) => Err(error.to_string()),
        };
        handles.into_iter().map(find).collect::<Vec<_>>()
    });
    let found = found.map_err(|error| Error::Flush { message: error.to_string() })?;
    let named = |(found, owner): (Result<_, String>, Owner<'_>)| found.map_err(|e| unlocated(owner, &e));
    found.into_iter().zip(owners).map(named).collect()
}

fn unlocated(Owner { parameter, what }: Owner<'_>, message: &str) -> Error {
    Error::Memory { parameter: parameter.into(), what, message: message.into() }
}
