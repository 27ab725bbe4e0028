//! Gradients out of a model's container, and back into it.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use gradclip::DType;

use crate::error::Error;
use crate::memory::{
    Located, Memory, MemoryDevice, Owner, Wanted, check, from_memory, into_memory, shape as shape_of,
};
use crate::passes::{Place, Range};

/// A gradient that was taken out.
pub(crate) struct Collected {
    pub(crate) path: String,
    /// Name of the struct that the parameter is a field of.
    pub(crate) module: String,
    pub(crate) gradient: Memory,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// The parameter, where the clip reads it or the step writes it.
    pub(crate) parameter: Option<(Memory, DType)>,
    pub(crate) id: ParamId,
    give_back: fn(&mut GradientsParams, ParamId, Memory),
}

impl Collected {
    pub(crate) fn gradient_of(path: &str) -> Owner<'_> {
        Owner { parameter: path, what: "gradient" }
    }

    pub(crate) fn value_of(path: &str) -> Owner<'_> {
        Owner { parameter: path, what: "value" }
    }

    /// A gradient that was taken out of its container.
    ///
    /// # Errors
    ///
    /// One on another backend or device, or of another type: it is registered again.
    pub(crate) fn take<const D: usize>(
        grads: &mut GradientsParams,
        device: &MemoryDevice,
        (id, gradient): (ParamId, Tensor<D>),
        at: &Fields,
    ) -> Result<Collected, Error> {
        let path = at.path();
        let owner = Collected::gradient_of(&path);
        let gradient = match into_memory(gradient.inner()) {
            Ok(memory) => memory,
            Err(refused) => {
                let (tensor, given) = *refused;
                let error = elsewhere(device, owner, &tensor, &given);
                grads.register::<D>(id, tensor);
                return Err(error);
            }
        };
        match check(&gradient, device, owner) {
            Ok(dtype) => {
                let (module, shape) = (at.module().to_owned(), shape_of(&gradient));
                let (parameter, give_back) = (None, register::<D> as fn(&mut _, _, _));
                Ok(Collected { path, module, gradient, dtype, shape, parameter, id, give_back })
            }
            Err(error) => {
                register::<D>(grads, id, gradient);
                Err(error)
            }
        }
    }

    /// Back into its container.
    pub(crate) fn register(self, grads: &mut GradientsParams) {
        (self.give_back)(grads, self.id, self.gradient);
    }
}

/// A tensor whose memory is not on the device.
pub(crate) fn elsewhere<const D: usize>(
    device: &MemoryDevice,
    owner: Owner<'_>,
    tensor: &Tensor<D>,
    given: &str,
) -> Error {
    Error::Device {
        parameter: owner.parameter.into(),
        what: owner.what,
        required: format!("{device:?}"),
        given: format!("{:?} ({given})", tensor.device()),
    }
}

/// The fields of a model on the way to a parameter.
#[derive(Default)]
pub(crate) struct Fields {
    names: Vec<String>,
    containers: Vec<String>,
}

impl Fields {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.into());
        self.containers.push(container.into());
    }

    pub(crate) fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }

    pub(crate) fn path(&self) -> String {
        self.names.join(".")
    }

    /// Name of the innermost struct, which has the parameter in a field or in a list of them.
    fn module(&self) -> &str {
        let named = |c: &String| c.starts_with("Struct:");
        let innermost = self.containers.iter().rfind(|c| named(c));
        innermost.and_then(|c| c.strip_prefix("Struct:")).unwrap_or_default()
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
    device: &MemoryDevice,
    parameters: bool,
) -> Result<Vec<Collected>, Error> {
    let mut collector = Collector {
        grads: &mut *grads,
        device,
        parameters,
        at: Fields::default(),
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
    for tensor in collected {
        tensor.register(grads);
    }
}

fn register<const D: usize>(grads: &mut GradientsParams, id: ParamId, memory: Memory) {
    grads.register::<D>(id, from_memory(memory));
}

struct Collector<'a> {
    grads: &'a mut GradientsParams,
    device: &'a MemoryDevice,
    parameters: bool,
    at: Fields,
    collected: Vec<Collected>,
    error: Option<Error>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.at.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.at.exit();
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
        if let Err(error) = self.take(param, gradient) {
            self.error = Some(error);
        }
    }
}

impl Collector<'_> {
    fn take<const D: usize>(&mut self, param: &Param<Tensor<D>>, gradient: Tensor<D>) -> Result<(), Error> {
        let mut taken = Collected::take(self.grads, self.device, (param.id, gradient), &self.at)?;
        match self.parameter(&taken.path, param, &taken.shape) {
            Ok(parameter) => {
                taken.parameter = parameter;
                self.collected.push(taken);
                Ok(())
            }
            Err(error) => {
                taken.register(self.grads);
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
    ) -> Result<Option<(Memory, DType)>, Error> {
        if !self.parameters {
            return Ok(None);
        }
        let owner = Collected::value_of(path);
        let value = into_memory(param.val().inner())
            .map_err(|refused| elsewhere(self.device, owner, &refused.0, &refused.1))?;
        let dtype = check(&value, self.device, owner)?;
        let required = shape_of(&value);
        if required != shape {
            return Err(Error::Shape { parameter: path.into(), required, given: shape.into() });
        }
        Ok(Some((value, dtype)))
    }
}

/// What has to be found of them: each gradient, and after it its parameter where there is one.
pub(crate) fn wanted(collected: &[Collected]) -> Vec<Wanted<'_>> {
    let mut wanted = Vec::with_capacity(2 * collected.len());
    for Collected { path, gradient, parameter, .. } in collected {
        wanted.push(Wanted::new(gradient, Collected::gradient_of(path)));
        let parameter = parameter.as_ref();
        wanted.extend(parameter.map(|(value, _)| Wanted::new(value, Collected::value_of(path))));
    }
    wanted
}

/// Where they lie, from what was found of [`wanted`].
pub(crate) fn places(collected: &[Collected], located: &[Located]) -> Vec<Place> {
    let mut located = located.iter();
    let mut range = |dtype| {
        let next = located.next();
        next.map(|l| Range { buffer: l.buffer.clone(), offset: l.offset, dtype })
    };
    let place = |tensor: &Collected| {
        let gradient = range(tensor.dtype)?;
        let parameter = tensor.parameter.as_ref().and_then(|(_, dtype)| range(*dtype));
        Some(Place {
            path: tensor.path.clone(),
            id: tensor.id.val(),
            module: tensor.module.clone(),
            shape: tensor.shape.iter().map(|&n| n as u64).collect(),
            gradient,
            parameter,
        })
    };
    collected.iter().filter_map(place).collect()
}
