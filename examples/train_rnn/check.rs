//! Whether the backward pass is right.

use std::error::Error;

use super::{Gpu, LOSS, Net, TENSORS, Usage, initial, record};

/// Compares the gradient with differences of losses, tensor by tensor, along the gradient itself. Losses
/// have 24 bits, and bend within a thousandth: of differences of fourth order two or three digits are
/// right.
pub(super) fn backward(gpu: &Gpu) -> Result<(), Box<dyn Error>> {
    let net = Net::new(gpu);
    let step = gpu.buffer("step", 1, Usage::UNIFORM);
    let kernels = net.kernels(gpu, &step);
    let results = |parameters: &[f32]| {
        gpu.queue.write_buffer(&net.parameters, 0, bytemuck::cast_slice(parameters));
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        record(&kernels, &mut encoder);
        gpu.queue.submit([encoder.finish()]);
        gpu.read::<f32>(&net.gradient)
    };
    let start = initial();
    let gradient = results(&start)?;
    for (name, from, to) in TENSORS {
        let norm = gradient[from..to].iter().map(|g| g * g).sum::<f32>().sqrt();
        let loss = |distance: f32| {
            let mut moved = start.clone();
            (from..to).for_each(|i| moved[i] += distance * gradient[i] / norm);
            results(&moved).map(|results| f64::from(results[LOSS]))
        };
        let h = 5e-4;
        let (near, far) = (loss(h)? - loss(-h)?, loss(2.0 * h)? - loss(-2.0 * h)?);
        let difference = (8.0 * near - far) / (12.0 * f64::from(h));
        let error = (difference / f64::from(norm) - 1.0).abs();
        println!("{name}: norm {norm:.5}, by differences {difference:.5}, relative error {error:.1e}");
        if error.is_nan() || error > 2e-2 {
            return Err(format!("the backward pass is wrong in {name}").into());
        }
    }
    Ok(())
}
