//! Runs on the CPU path, saved and gone on from.

use half::{bf16, f16};

use crate::checkpoint::{Checkpoint, Form, Role};
use crate::cpu::block::Values;
use crate::cpu::parameter::ParameterMut;
use crate::error::CheckpointError;
use crate::tensor::Precision;

use super::moments::Moments;
use super::trainer::Trainer;

impl Trainer {
    /// All that the run goes on from, with its parameters in the order prepared: the same as
    /// [`Trainer::save`](crate::Trainer::save) has from a device.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unexpected`] where two tensors would have one name, [`CheckpointError::History`] for parameters of another
    /// number, length or type than were prepared.
    pub fn save<'a, P>(&self, parameters: impl IntoIterator<Item = P>) -> Result<Checkpoint, CheckpointError>
    where
        P: Into<ParameterMut<'a>>,
    {
        self.gate().map_or(Ok(()), |_| Err(CheckpointError::gated()))?;
        let parameters: Vec<ParameterMut<'_>> = parameters.into_iter().map(P::into).collect();
        self.step().check_parameters(&parameters)?;
        let form = self.form(self.accumulated() > 0)?;
        let moments = &self.step().moments().tensors;
        let floats = |values: &[f32]| bytemuck::cast_slice::<_, u8>(values).to_vec();
        let bytes = form.parts.iter().map(|part| match part.role {
            Role::Parameter(t) => bytes_of(parameters[t].values()),
            Role::Master(t) => parameters[t].master().map(floats).unwrap_or_default(),
            Role::Moment(t, k) => floats(&moments[t][k]),
            Role::Sum(t) => self.sums().get(t).map(|sum| floats(sum)).unwrap_or_default(),
        });
        Ok(form.checkpoint(bytes, self.step().history().clone(), self.accumulated()))
    }

    /// Goes on from a saved run, wherever it was saved: with the same bits as not having stopped. Learning rate, thresholds and
    /// constants are those of this trainer.
    ///
    /// # Errors
    ///
    /// A run of other tensors, another optimiser or clip, values that no run leaves; parameters as in [`Trainer::save`]. Nothing changes
    /// then.
    pub fn load<'a, P>(
        &mut self,
        checkpoint: &Checkpoint,
        parameters: impl IntoIterator<Item = P>,
    ) -> Result<(), CheckpointError>
    where
        P: Into<ParameterMut<'a>>,
    {
        let mut parameters: Vec<ParameterMut<'_>> = parameters.into_iter().map(P::into).collect();
        self.step().check_parameters(&parameters)?;
        self.gate().map_or(Ok(()), |_| Err(CheckpointError::gated()))?;
        let accumulated = checkpoint.pending(self.micro_batches())?;
        let form = self.form(accumulated > 0)?;
        let (clip, limits) = self.step().asked();
        let (found, history) = form.checked(checkpoint, &clip, limits)?;
        let mut moments = Moments { tensors: self.step().moments().tensors.clone() };
        for (part, bytes) in found {
            match part.role {
                Role::Parameter(t) => parameters[t].put(bytes.unwrap_or_default()),
                Role::Master(t) => parameters[t].put_master(bytes),
                Role::Moment(t, k) => put(&mut moments.tensors[t][k], bytes),
                Role::Sum(t) => self.sums_mut().get_mut(t).into_iter().for_each(|sum| put(sum, bytes)),
            }
        }
        self.go_on(history, moments, accumulated)?;
        Ok(())
    }

    fn form(&self, sums: bool) -> Result<Form, CheckpointError> {
        let precisions: Vec<Precision> = self.step().precisions().collect();
        Form::new(self.step().infos(), &precisions, &self.step().optimizer(), sums)
    }
}

fn bytes_of(values: Values<'_>) -> Vec<u8> {
    match values {
        Values::F32(values) => bytemuck::cast_slice(values).to_vec(),
        Values::F16(values) => bytemuck::cast_slice(values).to_vec(),
        Values::Bf16(values) => bytemuck::cast_slice(values).to_vec(),
        Values::F64(values) => bytemuck::cast_slice(values).to_vec(),
    }
}

/// Zeros, where there are no bytes.
fn put<T: bytemuck::Pod>(to: &mut [T], bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => bytemuck::cast_slice_mut(to).copy_from_slice(bytes),
        None => to.fill(T::zeroed()),
    }
}

impl ParameterMut<'_> {
    fn master(&self) -> Option<&[f32]> {
        match self {
            ParameterMut::F16(master, _) | ParameterMut::Bf16(master, _) => Some(master),
            ParameterMut::F32(_) | ParameterMut::Stochastic(_) => None,
        }
    }

    fn put_master(&mut self, bytes: Option<&[u8]>) {
        if let ParameterMut::F16(master, _) | ParameterMut::Bf16(master, _) = self {
            put(master, bytes);
        }
    }

    /// The parameter's elements, from as many.
    fn put(&mut self, bytes: &[u8]) {
        match self {
            ParameterMut::F32(all) => put(all, Some(bytes)),
            ParameterMut::F16(_, halves) => put::<f16>(halves, Some(bytes)),
            ParameterMut::Bf16(_, halves) | ParameterMut::Stochastic(halves) => {
                put::<bf16>(halves, Some(bytes))
            }
        }
    }
}
