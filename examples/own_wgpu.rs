//! Clipping inside a wgpu program of one's own: prepare once, record every step, read the norm a
//! step later without waiting.
//!
//! `cargo run --release --example own_wgpu`
#![allow(clippy::unwrap_used)]

use gradclip::{Clip, Clipper, Grad, wgpu};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(adapter) = gradclip::adapters().into_iter().next() else {
        println!("no adapter; see `gradclip devices`");
        return Ok(());
    };
    let descriptor = wgpu::DeviceDescriptor {
        required_limits: Clipper::recommended_limits(&adapter),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    let gradient = |values: &[f32]| {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let size = size_of_val(values) as u64;
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        let buffer = device.create_buffer(&descriptor);
        queue.write_buffer(&buffer, 0, bytemuck::cast_slice(values));
        buffer
    };
    let (weights, bias) = (gradient(&[3.0; 1000]), gradient(&[4.0; 10]));

    let clipper = Clipper::new(&device)?;
    let grads = [Grad::new("weights", &weights), Grad::new("bias", &bias)];
    let pass = clipper.prepare(&grads, &Clip::global_norm(50.0))?;

    let mut late = None;
    for step in 0..5 {
        // A schedule on the host may set the threshold at any step.
        pass.set_threshold(&queue, 50.0 - 10.0 * step as f32)?;
        let mut encoder = device.create_command_encoder(&Default::default());
        // ... the backward pass would be recorded here ...
        pass.record(&mut encoder);
        // ... and the optimiser's step here ...
        let report = pass.read_back(&mut encoder)?;
        queue.submit([encoder.finish()]);
        // The previous step's report has long arrived, or is waited for here.
        if let Some(previous) = late.replace(report) {
            print(step - 1, &gradclip::ReadBack::wait(previous)?);
        }
    }
    if let Some(last) = late {
        print(4, &last.wait()?);
    }
    Ok(())
}

fn print(step: usize, report: &gradclip::Report) {
    let (norm, coefficient) = (report.norm().unwrap(), report.coefficient().unwrap());
    println!("step {step}: norm {norm:.4}, coefficient {coefficient:.4}");
}
