//! Gradients out of a model's container, and back into it.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::Device as CubeDevice;
use burn::backend::wgpu::CubeTensor;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use gradclip::DType;

use crate::error::Error;
use crate::memory::{Located, Owner, check, from_memory, into_memory, locate};
use crate::passes::{Place, Range};

/// A gradient that was taken out.
pub(crate) struct Collected {
    pub(crate) path: String,
    pub(crate) gradient: CubeTensor,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// The parameter, where the clip reads it.
    pub(crate) parameter: Option<(CubeTensor, DType)>,
    id: ParamId,
    give_back: fn(&mut GradientsParams, ParamId, CubeTensor),
}

impl Collected {
    pub(crate) fn gradient_of(path: &str) -> Owner<'_> {
        Owner { parameter: path, what: "gradient" }
    }

    pub(crate) fn value_of(path: &str) -> Owner<'_> {
        Owner { parameter: path, what: "value" }
    }
}

/// Takes the gradients of all parameters of `model` out of `grads`, in the order of the model's fields.
///
/// # Errors
///
/// One that cannot be clipped. All are back where they were then.
pub(crate) fn take<M: Module>(
    model: &M,
    grads: &mut GradientsParams,
    device: &CubeDevice,
    parameters: bool,
) -> Result<Vec<Collected>, Error> {
    let mut collector = Collector {
        grads: &mut *grads,
        device,
        parameters,
        path: Vec::new(),
        collected: Vec::new(),
        error: None,
    };
    model.visit(&mut collector);
    let Collector { collected, error, .. } = collector;
    match error {
        None => Ok(collected),
        Some(error) => {
            give_back(grads, collected);
            Err(error)
        }
    }
}

/// Registers them again.
pub(crate) fn give_back(grads: &mut GradientsParams, collected: Vec<Collected>) {
    for Collected { gradient, id, give_back, .. } in collected {
        give_back(grads, id, gradient);
    }
}

fn register<const D: usize>(grads: &mut GradientsParams, id: ParamId, memory: CubeTensor) {
    grads.register::<D>(id, from_memory(memory));
}

struct Collector<'a> {
    grads: &'a mut GradientsParams,
    device: &'a CubeDevice,
    parameters: bool,
    path: Vec<String>,
    collected: Vec<Collected>,
    error: Option<Error>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.error.is_some() {
            return;
        }
        // No gradient: frozen, unused, or a shared parameter that was visited before.
        let Some(gradient) = self.grads.remove::<D>(param.id) else { return };
        if gradient.dims().contains(&0) {
            self.grads.register(param.id, gradient);
            return;
        }
        let path = self.path.join(".");
        if let Err(error) = self.take(path, param, gradient) {
            self.error = Some(error);
        }
    }
}

impl Collector<'_> {
    fn take<const D: usize>(
        &mut self,
        path: String,
        param: &Param<Tensor<D>>,
        gradient: Tensor<D>,
    ) -> Result<(), Error> {
        let owner = Collected::gradient_of(&path);
        let gradient = match into_memory(gradient.inner()) {
            Ok(memory) => memory,
            Err(refused) => {
                let (tensor, given) = *refused;
                let error = self.elsewhere(owner, &tensor, &given);
                self.grads.register::<D>(param.id, tensor);
                return Err(error);
            }
        };
        let checked = check(&gradient, self.device, owner).and_then(|dtype| {
            let shape = gradient.shape().to_vec();
            Ok((dtype, self.parameter(&path, param, &shape)?, shape))
        });
        match checked {
            Ok((dtype, parameter, shape)) => {
                let (id, give_back) = (param.id, register::<D>);
                self.collected.push(Collected { path, gradient, dtype, shape, parameter, id, give_back });
                Ok(())
            }
            Err(error) => {
                register::<D>(self.grads, param.id, gradient);
                Err(error)
            }
        }
    }

    /// The parameter itself, where the clip reads it.
    fn parameter<const D: usize>(
        &self,
        path: &str,
        param: &Param<Tensor<D>>,
        shape: &[usize],
    ) -> Result<Option<(CubeTensor, DType)>, Error> {
        if !self.parameters {
            return Ok(None);
        }
        let owner = Collected::value_of(path);
        let value = into_memory(param.val().inner())
            .map_err(|refused| self.elsewhere(owner, &refused.0, &refused.1))?;
        let dtype = check(&value, self.device, owner)?;
        let required = value.shape().to_vec();
        if required != shape {
            return Err(Error::Shape { parameter: path.into(), required, given: shape.into() });
        }
        Ok(Some((value, dtype)))
    }

    fn elsewhere<const D: usize>(&self, owner: Owner<'_>, tensor: &Tensor<D>, given: &str) -> Error {
        Error::Device {
            parameter: owner.parameter.into(),
            what: owner.what,
            required: format!("{:?}", self.device),
            given: format!("{:?} ({given})", tensor.device()),
        }
    }
}

/// Where a gradient lies, and its parameter where the clip reads it.
pub(crate) struct Location {
    gradient: Located,
    parameter: Option<Located>,
}

impl Location {
    pub(crate) fn find(tensor: &Collected) -> Result<Location, Error> {
        let Collected { path, gradient, parameter, .. } = tensor;
        let gradient = locate(gradient, Collected::gradient_of(path))?;
        let parameter = parameter.as_ref().map(|(value, _)| locate(value, Collected::value_of(path)));
        Ok(Location { gradient, parameter: parameter.transpose()? })
    }

    pub(crate) fn place(&self, tensor: &Collected) -> Place {
        let range = |l: &Located, dtype| Range { buffer: l.buffer.clone(), offset: l.offset, dtype };
        let parameter = tensor.parameter.as_ref().zip(self.parameter.as_ref());
        Place {
            path: tensor.path.clone(),
            shape: tensor.shape.iter().map(|&n| n as u64).collect(),
            gradient: range(&self.gradient, tensor.dtype),
            parameter: parameter.map(|((_, dtype), located)| range(located, *dtype)),
        }
    }
}
