//! Which kernels are compiled, how often, and that slots to spare change nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{DISTRIBUTIONS, Data, Element, Gpu, Placed, Random, bits, contents, data, gpu, named};
use gradclip::plan::Placement;
use gradclip::wgpu;
use gradclip::{Clip, ClipError, Clipper, ClipperOptions, DType, Grad, NonFinite, PlanError, PrepareError};

/// As hardware runs it, wherever that is.
fn rounded(gpu: &Gpu) -> Clipper {
    gpu.clipper_with(ClipperOptions::default().max_slots(4).rounded_slots(true))
}

fn tensors(count: usize) -> Vec<Vec<f32>> {
    (0..count).map(|i| data(DISTRIBUTIONS[i % DISTRIBUTIONS.len()], 17_000 + 7 * i, i as u64)).collect()
}

/// Where gradients lie, as known before there are buffers.
fn placements(grads: &[Grad]) -> Vec<Placement> {
    let of = |(buffer, g): (usize, &Grad)| Placement {
        buffer,
        buffer_size: g.buffer().size(),
        elements: g.elements(),
        dtype: DType::F32,
        ..Placement::default()
    };
    grads.iter().enumerate().map(of).collect()
}

#[test]
fn a_new_placing_compiles_nothing() {
    let Some(gpu) = gpu() else { return };
    let clip = Clip::global_norm(1.0);
    // By words: rows of whole vectors have kernels of their own.
    let words = ClipperOptions::default().vector_loads(false).max_slots(4);
    let clipper = gpu.clipper_with(words.rounded_slots(true));
    let count = |n: usize| {
        clipper.prepare(&gpu.separate(&tensors(n)), &clip).unwrap();
        clipper.kernel_count()
    };
    let three = count(3);
    assert_eq!(count(4), three, "3 and 4 windows");
    assert!(count(2) > three, "another number of slots is another kernel");
    // Without slots to spare there is one more each for norm and apply.
    let exact = gpu.clipper_with(words.rounded_slots(false));
    exact.prepare(&gpu.separate(&tensors(3)), &clip).unwrap();
    let three = exact.kernel_count();
    exact.prepare(&gpu.separate(&tensors(4)), &clip).unwrap();
    assert_eq!(exact.kernel_count(), three + 2);
}

/// Odd starts and lengths of halves too, whose shared words are a kernel of their own.
#[test]
fn slots_to_spare_and_trust_change_no_bit() {
    let Some(gpu) = gpu() else { return };
    let options = ClipperOptions::default().max_slots(4);
    let all = [
        options.rounded_slots(false).trusted_shaders(false),
        options.rounded_slots(true).trusted_shaders(false),
        options.rounded_slots(true).trusted_shaders(true),
        options.rounded_slots(false).trusted_shaders(true),
    ];
    let clippers: Vec<Clipper> = all.map(|options| gpu.clipper_with(options)).into();
    for count in [1, 3, 7] {
        let tensors = tensors(count);
        let clip = Clip::global_norm(0.5).on_non_finite(NonFinite::Sanitize);
        let after = |clipper: &Clipper| {
            let grads = gpu.separate(&tensors);
            let report = gpu.run(&clipper.prepare(&grads, &clip).unwrap());
            (report.segments, bits(&contents(&gpu, &grads, &tensors)))
        };
        let first = after(&clippers[0]);
        for (clipper, options) in clippers.iter().zip(all) {
            assert_eq!(after(clipper), first, "{count} tensors, {options:?}");
        }
        let mut random = Random(count as u64);
        let mut half = |i| (0..2 * (999 + 2 * i)).map(|_| random.bits() as u8).collect::<Vec<_>>();
        let halves = named((0..count).map(|i| Data::from_bytes(Element::Bf16, &half(i))));
        let after = |clipper: &Clipper| {
            let places: Vec<_> = (0..count).map(|buffer| (buffer, 6)).collect();
            let placed = Placed::at(&gpu, &halves, &places);
            gpu.run(&clipper.prepare(&placed.grads, &clip).unwrap());
            placed.buffers.iter().map(|buffer| gpu.read::<u8>(buffer)).collect::<Vec<_>>()
        };
        let first = after(&clippers[0]);
        for (clipper, options) in clippers.iter().zip(all) {
            assert_eq!(after(clipper), first, "{count} halves, {options:?}");
        }
    }
}

#[test]
fn what_was_warmed_up_is_not_compiled_again() {
    let Some(gpu) = gpu() else { return };
    for clipper in [rounded(&gpu), gpu.clipper_with(ClipperOptions::default())] {
        for clip in [Clip::global_norm(1.0), Clip::per_tensor_norm(1.0)] {
            let grads = gpu.separate(&tensors(5));
            clipper.warm_up(&placements(&grads), &clip).unwrap();
            let warm = clipper.kernel_count();
            assert!(warm >= 4, "{warm}");
            clipper.prepare(&grads, &clip).unwrap();
            assert_eq!(clipper.kernel_count(), warm, "{clip:?}");
        }
    }
}

#[test]
fn what_cannot_be_warmed_up_is_told() {
    let Some(gpu) = gpu() else { return };
    let clipper = rounded(&gpu);
    let refused = clipper.warm_up(&[], &Clip::global_norm(-1.0)).unwrap_err();
    assert_eq!(refused, ClipError::Threshold { given: -1.0 }.into());
    let double = Placement { dtype: DType::F64, elements: 1, buffer_size: 8, ..Placement::default() };
    let refused = clipper.warm_up(&[double], &Clip::measure()).unwrap_err();
    assert!(matches!(refused, PrepareError::Plan(PlanError::DType { .. })), "{refused}");
    assert_eq!(clipper.kernel_count(), 0);
}

/// What every thread's compiler meets comes back as a value: here a cache of another device.
#[test]
fn errors_of_compilers_are_values() {
    let Some(gpu) = gpu() else { return };
    let cache = wgpu::Features::PIPELINE_CACHE;
    if !gpu.adapter.features().contains(cache) {
        return;
    }
    let open = || {
        let descriptor = wgpu::DeviceDescriptor { required_features: cache, ..Default::default() };
        pollster::block_on(gpu.adapter.request_device(&descriptor)).unwrap().0
    };
    let (one, other) = (open(), open());
    let made = |device: &wgpu::Device, data: Option<&[u8]>| {
        let descriptor = wgpu::PipelineCacheDescriptor { label: None, data, fallback: true };
        // SAFETY: the data, if any, comes from another cache.
        unsafe { device.create_pipeline_cache(&descriptor) }
    };
    let tensor = Placement { elements: 5, buffer_size: 20, ..Placement::default() };
    let clip = Clip::global_norm(1.0);
    let clipper = Clipper::with_cache(&one, ClipperOptions::default(), &made(&other, None)).unwrap();
    let refused = clipper.warm_up(std::slice::from_ref(&tensor), &clip).unwrap_err();
    assert!(
        matches!(&refused, PrepareError::Device(error) if error.what() == "compiling a shader"),
        "{refused}"
    );
    assert_eq!(clipper.kernel_count(), 0);

    // Its own is filled, and another one can begin with what it holds.
    let own = made(&one, None);
    let clipper = Clipper::with_cache(&one, ClipperOptions::default(), &own).unwrap();
    clipper.warm_up(std::slice::from_ref(&tensor), &clip).unwrap();
    let data = own.get_data().expect("the cache's bytes");
    let again = Clipper::with_cache(&other, ClipperOptions::default(), &made(&other, Some(&data))).unwrap();
    again.warm_up(std::slice::from_ref(&tensor), &clip).unwrap();
    assert_eq!(again.kernel_count(), clipper.kernel_count());
}

/// By wgpu's own record of the calls that reach it.
#[test]
fn threads_that_want_the_same_kernel_compile_it_once() {
    let Some(gpu) = gpu() else { return };
    if gpu.adapter.get_info().backend == wgpu::Backend::Gl {
        return; // wgpu panics there where threads meet
    }
    let folder = tempfile::tempdir().unwrap();
    let traced = gpu.other(|device| device.trace = wgpu::Trace::Directory(folder.path().to_owned()));
    let tensor = Placement { elements: 5, buffer_size: 20, ..Placement::default() };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                traced.clipper.warm_up(std::slice::from_ref(&tensor), &Clip::global_norm(1.0)).unwrap();
            });
        }
    });
    let kernels = traced.clipper.kernel_count();
    drop(traced);
    let trace = std::fs::read_to_string(folder.path().join("trace.ron")).unwrap();
    assert_eq!(trace.matches("CreateComputePipeline").count(), kernels);
}
