//! A case's steps on a device.

use super::*;

/// How tensors are placed: a buffer each, where the stepper allocates the optimiser's state, or all gradients, parameters
/// and moments in one, a word apart at least, of which hardly any begins where a vector may.
pub const PLACINGS: [Placing; 2] = [Placing::APART, Placing { alignment: 4, ..Placing::arena(4, 4) }];

pub(super) struct OnDevice<'a> {
    gpu: &'a Gpu,
    stepper: Stepper,
    /// Gradients first, then parameters, then parameters of 16 bits of which these are masters, then all first moments, then all
    /// second ones.
    placed: Operands,
    /// What lies there.
    data: Vec<Data>,
    count: usize,
}

impl<'a> OnDevice<'a> {
    pub(super) fn new(case: &Case, gpu: &'a Gpu, placing: Placing) -> Attempt<OnDevice<'a>> {
        let count = case.tensors.len();
        let own = if placing.arena { case.optimizer.moments() } else { 0 };
        let gradients = case.tensors.iter().map(|t| t.data.clone());
        let parameters = case.tensors.iter().filter_map(|t| t.parameter.clone());
        let zeros = case.tensors.iter().map(|t| Data::F32(vec![0.0; t.data.len()]));
        let moments = std::iter::repeat_n(zeros, own).flatten();
        let halves = case.tensors.iter().filter_map(|t| t.half.clone());
        let mixed = usize::from(halves.clone().next().is_some());
        let data: Vec<Data> = gradients.chain(parameters).chain(halves).chain(moments).collect();
        let placed = Operands::upload(gpu, data.iter(), placing);
        let grad = |(t, tensor): (usize, &Tensor)| {
            let ((buffer, offset), (parameter, there)) = (placed.at(t), placed.at(count + t));
            let grad = tensor.on_device(buffer, offset);
            let grad = match &tensor.half {
                None => grad.parameter(parameter, there, DType::F32),
                Some(half) => {
                    let (buffer, offset) = placed.at(2 * count + t);
                    grad.parameter(buffer, offset, half.dtype()).master(parameter, there)
                }
            };
            let moments = (0..own).map(|k| placed.at((2 + mixed + k) * count + t));
            moments.fold(grad, |grad, (buffer, offset)| grad.moment(buffer, offset))
        };
        let grads: Vec<Grad> = case.tensors.iter().enumerate().map(grad).collect();
        let stepper = gpu.clipper.prepare_step(&grads, &case.clip, case.optimizer).map_err(words)?;
        Ok(OnDevice { gpu, stepper, placed, data, count })
    }
}

impl Stepping for OnDevice<'_> {
    fn step(&mut self, gradients: &[Data], loss: Option<f32>) -> Attempt<Report> {
        let inputs = self.stepper.inputs();
        loss.iter().for_each(|loss| self.gpu.queue.write_buffer(inputs, 0, bytemuck::bytes_of(loss)));
        for (own, data) in self.data.iter_mut().zip(gradients) {
            if (own.len(), own.element()) != (data.len(), data.element()) {
                return Err("gradients of another size or element type than those of the first step".into());
            }
            own.clone_from(data);
        }
        self.placed.put(self.gpu, self.data.iter());
        let report = self.gpu.submit(|encoder| {
            self.stepper.record_step(encoder);
            self.stepper.pass().read_back(encoder)
        });
        let report = report.map_err(words)?.wait().map_err(words)?;
        self.data = self.placed.read(self.gpu).map_err(words)?;
        let unchanged = |(own, data): (&Data, &Data)| own.bytes() == data.bytes();
        if !self.data.iter().zip(gradients).all(unchanged) {
            return Err("a step wrote gradients".into());
        }
        Ok(report)
    }

    fn parameters(&self) -> Vec<Vec<f32>> {
        self.data[self.count..2 * self.count].iter().map(Data::floats).collect()
    }

    fn halves(&self) -> Vec<Data> {
        let halves = self.data.iter().skip(2 * self.count).filter(|data| data.element() != Element::F32);
        halves.cloned().collect()
    }

    fn progress(&self) -> Attempt<(f32, u64)> {
        let buffer = self.stepper.pass().progress();
        let progress: Vec<Progress> =
            self.gpu.read(buffer, 0..size_of::<Progress>() as u64).map_err(words)?;
        Ok((progress[0].scale, progress[0].updates.into()))
    }
}
