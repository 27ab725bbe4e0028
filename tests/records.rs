//! What programs may do with a pass from shaders and threads of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::gpu;
use gradclip::wgpu;
use gradclip::{Adam, Clip, DType, Grad, LossScale, NonFinite, Placement, cpu, records};

/// A shader of a program's own, which writes down what it reads of the records.
const READER: &str = "
@group(0) @binding(0) var<storage, read> progress: MineProgress;
@group(0) @binding(1) var<storage, read> tally: MineTally;
@group(0) @binding(2) var<storage, read> outcomes: array<MineOutcome>;
@group(0) @binding(3) var<storage, read> sums: array<MineSum>;
@group(0) @binding(4) var<storage, read_write> seen: array<f32>;
@compute @workgroup_size(1)
fn look() {
    let outcome = outcomes[1];
    seen[0] = progress.scale;
    seen[1] = f32(progress.updates);
    seen[2] = f32(tally.clipped);
    seen[3] = f32(tally.steps);
    seen[4] = outcome.norm;
    seen[5] = outcome.coefficient;
    seen[6] = select(0.0, 1.0, (outcome.flags & MINE_CLIPPED) != 0u);
    seen[7] = select(0.0, 1.0, outcome.action == MINE_MULTIPLY && sums[1].first == MINE_NONE);
    seen[8] = outcome.unscale;
}
";

/// Dispatches it over buffers, the last of which it writes.
fn look(gpu: &common::Gpu, buffers: &[&wgpu::Buffer]) {
    let source = records::wgsl("Mine") + READER;
    let source = wgpu::ShaderSource::Wgsl(source.into());
    let module = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let entries: Vec<_> = (0..)
        .zip(buffers)
        .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
        .collect();
    let layout = pipeline.get_bind_group_layout(0);
    let group = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
    let group = gpu.device.create_bind_group(&group);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(1, 1, 1);
    drop(pass);
    gpu.queue.submit([encoder.finish()]);
}

#[test]
fn a_shader_of_the_programs_reads_the_records() {
    let Some(gpu) = gpu() else { return };
    let parameters = gpu.separate(&[vec![1.0; 2], vec![1.0; 2]]);
    // Of a loss that was scaled by 4: norms of 1 and 5.
    let grads = gpu.separate(&[vec![0.0, 4.0], vec![12.0, 16.0]]);
    let grads: Vec<Grad> =
        grads.into_iter().zip(&parameters).map(|(g, p)| g.parameter(p.buffer(), 0, DType::F32)).collect();
    let loss_scale = LossScale::default().initial(4.0).interval(1);
    let clip = Clip::per_tensor_norm(2.0).on_non_finite(NonFinite::Skip).loss_scale(loss_scale);
    let stepper = gpu.clipper.prepare_step(&grads, &clip, Adam::adamw(1e-3)).unwrap();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    stepper.record_step(&mut encoder);
    let report = stepper.read_back(&mut encoder).unwrap();
    gpu.queue.submit([encoder.finish()]);
    let seen = gpu.upload(&[0; 36]);
    let sums = stepper.pass().segment_sums();
    look(&gpu, &[stepper.progress(), stepper.tally(), stepper.outcomes(), sums, &seen]);
    // The scale doubles after a finite step, one step was made, one of two tensors was clipped to 2 / 5.
    assert_eq!(gpu.read::<f32>(&seen), [8.0, 1.0, 1.0, 1.0, 5.0, 0.4, 1.0, 1.0, 0.25]);
    let report = report.wait().unwrap();
    assert_eq!((report.loss_scale, report.updates), (Some(8.0), 1));
    assert_eq!(stepper.pass().tensor_sum_index(1), Some(1));
    assert_eq!(stepper.pass().tensor_sum_index(2), None);
}

/// Threads that set at once leave one of their thresholds, whole: both tensors have the same one.
#[test]
fn threads_may_share_a_pass_and_set_its_threshold() {
    let Some(gpu) = gpu() else { return };
    let grads = gpu.separate(&[vec![300.0], vec![400.0]]);
    let pass = gpu.clipper.prepare(&grads, &Clip::per_tensor_norm(1.0)).unwrap();
    std::thread::scope(|scope| {
        for thread in 1..=4u16 {
            let (pass, queue) = (&pass, &gpu.queue);
            scope.spawn(move || (0..50).for_each(|_| pass.set_threshold(queue, f32::from(thread)).unwrap()));
        }
    });
    let report = gpu.run(&pass);
    let thresholds: Vec<f64> = report.segments.iter().map(|segment| segment.threshold).collect();
    assert_eq!(thresholds[0], thresholds[1]);
    assert!([1.0, 2.0, 3.0, 4.0].contains(&thresholds[0]), "{thresholds:?}");
}

#[test]
fn types_may_be_shared_by_threads_and_sent_to_others() {
    fn shared<T: Send + Sync>() {}
    shared::<gradclip::Clipper>();
    shared::<gradclip::Pass>();
    shared::<gradclip::Stepper>();
    shared::<gradclip::Accumulator>();
    shared::<gradclip::ClippedAccumulator>();
    shared::<gradclip::Telemetry>();
    shared::<gradclip::Session>();
    shared::<gradclip::Grad>();
    shared::<gradclip::History>();
    shared::<gradclip::Report>();
    shared::<gradclip::PrepareError>();
    shared::<gradclip::SessionError>();
    shared::<gradclip::ReadBackError>();
    shared::<cpu::Prepared>();
    shared::<cpu::GradMut<'_>>();
    shared::<cpu::Decision>();
    shared::<gradclip::ReadBack>();
    shared::<gradclip::ReadBack<gradclip::History>>();
}

/// The layout of version 3: whoever changes it changes the version too.
#[test]
fn the_layout_is_that_of_its_version() {
    use records::{Inputs, Outcome, Progress, Sum, Tally};
    assert_eq!((records::VERSION, size_of::<Inputs>(), std::mem::offset_of!(Inputs, norm)), (3, 8, 4));
    let sizes = [size_of::<Outcome>(), size_of::<Progress>(), size_of::<Sum>(), size_of::<Tally>()];
    assert_eq!(sizes, [48, 64, 32, 32]);
    macro_rules! words {
        ($record:ident: $($field:ident),+) => { [$(std::mem::offset_of!($record, $field) / 4),+] };
    }
    let progress = words!(Progress: scale, unscale, finite_steps, updates, moves, share, correction, second_correction, skips, mean_correction, momentum_product, gradient_correction, reasons, strikes, spikes, watched);
    assert_eq!(progress, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    let tally =
        words!(Tally: steps, clipped_steps, skipped_steps, clipped, skipped, changed, unscale, non_finite);
    assert_eq!(tally, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(words!(Sum: mantissa, exponent, non_finite, nan, first), [0, 3, 4, 5, 6]);
    let norms = words!(Outcome: norm, norm_mantissa, norm_exponent, threshold, coefficient, scale, rescale);
    assert_eq!(norms, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(words!(Outcome: action, flags, non_finite, first_non_finite, unscale), [7, 8, 9, 10, 11]);
    // What a clipper is warmed up for: a field more or less does not compile.
    let Placement { name, buffer, buffer_size, offset, elements, dtype, shape, group, parameter } =
        Placement::default();
    assert!(name.is_empty() && shape.is_none() && group.is_none() && parameter.is_none());
    assert_eq!((buffer, buffer_size, offset, elements, dtype), (0, 0, 0, 0, DType::F32));
}
