//! Gradients and parameters of a model, so that a step writes the parameters where they lie.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{GradientCheckpointingStrategy, Tensor};
use gradclip::DType;

use crate::collect::{Collected, Fields, elsewhere, give_back};
use crate::error::{Error, Refused};
use crate::memory::{
    Memory, MemoryDevice, check, copied, from_memory, into_memory, is_dense, is_ours, shape,
};

/// The model with the same values, each parameter that has a gradient in memory of its own, and what was taken. Parameters that
/// something else sees are copied first, and `copies` counted up.
///
/// The model has its parameters back before anything is written to them: Burn queues nothing on them in between.
///
/// # Errors
///
/// What a step cannot be made on. Model and gradients are as they were then.
pub(crate) fn take<M: Module>(
    model: M,
    mut grads: GradientsParams,
    device: &MemoryDevice,
    copies: &mut u64,
) -> Result<(M, Vec<Collected>, GradientsParams), Box<Refused<M>>> {
    let (collected, error) = (Vec::new(), None);
    let mut taker = Taker { grads: &mut grads, device, copies, at: Fields::default(), collected, error };
    let model = model.map(&mut taker);
    let Taker { collected, error, .. } = taker;
    match error {
        None => Ok((model, collected, grads)),
        Some(error) => {
            give_back(&mut grads, collected);
            Err(Box::new(Refused { model, grads, error }))
        }
    }
}

struct Taker<'a> {
    grads: &'a mut GradientsParams,
    device: &'a MemoryDevice,
    copies: &'a mut u64,
    at: Fields,
    collected: Vec<Collected>,
    error: Option<Error>,
}

impl ModuleMapper for Taker<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.at.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.at.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        // No gradient: frozen, unused, or a shared parameter that was visited before.
        let Some(gradient) = self.grads.remove::<D>(param.id) else { return param };
        if gradient.dims().contains(&0) {
            self.grads.register(param.id, gradient);
            return param;
        }
        match Collected::take(self.grads, self.device, (param.id, gradient), &self.at) {
            Ok(taken) => self.with_parameter(taken, param),
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

impl Taker<'_> {
    fn with_parameter<const D: usize>(
        &mut self,
        mut taken: Collected,
        param: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let tracked = Tracked::of(&tensor);
        let plain = if tensor.is_autodiff() { tensor.inner() } else { tensor };
        let (plain, usable) = self.usable(&taken, plain);
        match usable {
            Ok(parameter) => {
                taken.parameter = Some(parameter);
                self.collected.push(taken);
            }
            Err(error) => {
                taken.register(self.grads);
                self.error = Some(error);
            }
        }
        Param::from_mapped_value(id, tracked.restore(plain, id), mapper)
    }

    /// The parameter in memory that a step may write, and that memory.
    fn usable<const D: usize>(
        &mut self,
        taken: &Collected,
        tensor: Tensor<D>,
    ) -> (Tensor<D>, Result<(Memory, DType), Error>) {
        let memory = match into_memory(tensor) {
            Ok(memory) => memory,
            Err(refused) => {
                let (tensor, given) = *refused;
                let error = elsewhere(self.device, Collected::value_of(&taken.path), &tensor, &given);
                return (tensor, Err(error));
            }
        };
        match self.writable(taken, &memory) {
            // Whoever has this memory has the model's parameter: nothing else counts as an owner.
            Ok((copy, dtype)) => {
                let memory = copy.unwrap_or(memory);
                (from_memory(memory.clone()), Ok((memory, dtype)))
            }
            Err(error) => (from_memory(memory), Err(error)),
        }
    }

    /// A copy to write, where the memory itself cannot be.
    fn writable(&mut self, taken: &Collected, memory: &Memory) -> Result<(Option<Memory>, DType), Error> {
        let owner = Collected::value_of(&taken.path);
        let dtype = check(memory, self.device, owner)?;
        if dtype != DType::F32 {
            let (parameter, what) = (taken.path.clone(), owner.what);
            let (required, given) = ("f32 for a step", format!("{:?}", memory.dtype));
            return Err(Error::DType { parameter, what, required, given });
        }
        let required = shape(memory);
        if required != taken.shape {
            let (parameter, given) = (taken.path.clone(), taken.shape.clone());
            return Err(Error::Shape { parameter, required, given });
        }
        if is_dense(memory) && is_ours(memory) {
            return Ok((None, dtype));
        }
        *self.copies += 1;
        Ok((Some(copied(memory, owner)?), dtype))
    }
}

/// What autodiff knows of a parameter besides its values.
struct Tracked {
    autodiff: bool,
    require_grad: bool,
    distributed: bool,
    checkpointing: Option<GradientCheckpointingStrategy>,
}

impl Tracked {
    fn of<const D: usize>(tensor: &Tensor<D>) -> Tracked {
        let autodiff = tensor.is_autodiff();
        Tracked {
            autodiff,
            require_grad: tensor.is_require_grad(),
            distributed: autodiff && tensor.is_distributed(),
            checkpointing: tensor.gradient_checkpointing_strategy(),
        }
    }

    fn restore<const D: usize>(self, plain: Tensor<D>, id: ParamId) -> Tensor<D> {
        if !self.autodiff {
            return plain;
        }
        let mut tensor = Tensor::from_inner(plain);
        if let Some(strategy) = self.checkpointing {
            tensor = tensor.with_gradient_checkpointing_strategy(strategy);
        }
        if self.require_grad {
            tensor = tensor.require_grad();
        }
        if self.distributed {
            tensor = tensor.set_distributed(id);
        }
        tensor
    }
}
