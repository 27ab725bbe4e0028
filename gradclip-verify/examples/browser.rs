//! What `tests/wasm/chromium.mjs` has a page do: a device is opened there, and every function is a check that says what it found or throws.

#[cfg(target_arch = "wasm32")]
mod page {
    use std::cell::OnceCell;
    use std::error::Error;
    use std::future::poll_fn;
    use std::pin::Pin;

    use futures_core::Stream;
    use gradclip::{
        Adam, Clip, Clipper, DType, Grad, History, PrepareError, Telemetry, Trainer, listing, wgpu,
    };
    use gradclip_verify::check::Checks;
    use gradclip_verify::golden;
    use gradclip_verify::gpu::{Gpu, Placed, Placing};
    use gradclip_verify::inputs::{DISTRIBUTIONS, data};
    use gradclip_verify::tensor::{named, traced};
    use wasm_bindgen::prelude::*;

    thread_local! {
        /// For the life of the page.
        static GPU: OnceCell<&'static Gpu> = const { OnceCell::new() };
    }

    fn gpu() -> Result<&'static Gpu, JsError> {
        GPU.with(|gpu| gpu.get().copied()).ok_or_else(|| JsError::new("no device was opened"))
    }

    fn wrong<T>(what: impl Into<String>) -> Result<T, JsError> {
        Err(JsError::new(&what.into()))
    }

    async fn adapter() -> Result<wgpu::Adapter, JsError> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        Ok(instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await?)
    }

    /// Opens the device of all that follows: its name.
    #[wasm_bindgen]
    pub async fn open() -> Result<String, JsError> {
        let gpu: &'static Gpu = Box::leak(Box::new(Gpu::open_async(&adapter().await?).await?));
        GPU.with(|own| own.set(gpu)).or_else(|_| wrong("a device is open"))?;
        Ok(format!("{}, {:?}", gpu.name(), gpu.info.device_type))
    }

    /// Every shader that the library can make is WGSL to the browser's compiler: how many.
    #[wasm_bindgen]
    pub async fn shaders() -> Result<usize, JsError> {
        let gpu = gpu()?;
        let all = listing::shaders(gpu.clipper.plan_limits().workgroup_size, &[1, 4]);
        for shader in &all {
            let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
            gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(shader.kernel),
                source: wgpu::ShaderSource::Wgsl(shader.wgsl.as_str().into()),
            });
            if let Some(error) = scope.pop().await {
                return wrong(format!("{} {} {}: {error}", shader.kernel, shader.norm, shader.apart));
            }
        }
        Ok(all.len())
    }

    /// Clips by the global norm, on the CPU path and on the device, which has to have its bits; reports arrive as a stream.
    #[wasm_bindgen]
    pub async fn clip() -> Result<String, JsError> {
        let gpu = gpu()?;
        let tensors =
            named(DISTRIBUTIONS.iter().zip(1..).map(|(&kind, seed)| data(kind, 5_000 * seed as usize, seed)));
        let clip = Clip::global_norm(1.0);
        let (trace, after) = traced(&tensors, &clip)?;
        let placed = Placed::upload(gpu, &tensors, Placing::APART);
        let pass = gpu.clipper.prepare_async(&placed.grads, &clip).await?;
        let mut telemetry = Telemetry::default();
        for _ in 0..2 {
            placed.restore(gpu);
            gpu.submit(|encoder| {
                pass.record(encoder);
                telemetry.record(&pass, encoder);
            });
        }
        let mut steps = Vec::new();
        while let Some(report) = poll_fn(|context| Pin::new(&mut telemetry).poll_next(context)).await {
            let report = report?;
            if report.norm() != trace.report.norm() || report.coefficient() != trace.report.coefficient() {
                return wrong(format!("{:?} and {:?}", report.segments, trace.report.segments));
            }
            steps.push(report.step);
        }
        for (got, want) in placed.read_async(gpu).await?.iter().zip(&after) {
            // What is subnormal an adapter may flush to 0.
            let may_differ = |value: f64| value != 0.0 && value.abs() < f64::from(f32::MIN_POSITIVE);
            let differs = |&i: &usize| got.bits(i) != want.data.bits(i) && !may_differ(want.data.value(i));
            let differ = (0..got.len()).find(differs);
            if let Some(i) = differ {
                return wrong(format!(
                    "{}[{i}] is {} and should be {}",
                    want.name,
                    got.value(i),
                    want.data.value(i)
                ));
            }
        }
        Ok(format!("norm {:?}, reports of steps {steps:?}", trace.report.norm()))
    }

    /// The corpus on the CPU path, in WebAssembly: both of its numbers.
    #[wasm_bindgen]
    pub fn golden_on_cpu() -> Result<String, JsError> {
        match golden::on_cpu()? {
            golden::EXPECTED => Ok(golden::EXPECTED.to_string()),
            other => wrong(format!("{other} and should be {}", golden::EXPECTED)),
        }
    }

    /// The same on the device.
    #[wasm_bindgen]
    pub async fn golden_on_adapter() -> Result<String, JsError> {
        let decided = golden::on_adapter(gpu()?, async |_, _| {}).await?;
        match decided == golden::EXPECTED.decided {
            true => Ok(format!("{decided:016x}")),
            false => wrong(format!("{decided:016x} and should be {:016x}", golden::EXPECTED.decided)),
        }
    }

    /// One in `n` of what `gradclip verify` checks.
    #[wasm_bindgen]
    pub async fn verify(n: usize) -> Result<String, JsError> {
        let checks = Checks::all().one_in(n);
        let mut done = 0;
        let tallies = checks.on_adapter_async(gpu()?, async |_| done += 1).await?;
        match tallies.iter().find(|tally| !tally.passed()) {
            Some(tally) => wrong(format!("{}: {:?}", tally.what, tally.first)),
            None => Ok(format!("{done} checks, {} values", tallies.iter().map(|t| t.compared).sum::<u64>())),
        }
    }

    /// A training run that is saved, and loaded by another trainer, which has the same parameters then.
    #[wasm_bindgen]
    pub async fn saved() -> Result<String, JsError> {
        let gpu = gpu()?;
        let made = async || -> Result<(wgpu::Buffer, Trainer), JsError> {
            let parameter = gpu.upload(bytemuck::cast_slice(&[1.0f32, 2.0, 3.0]));
            let gradient = gpu.upload(bytemuck::cast_slice(&[3.0f32, 0.0, -4.0]));
            let grads = [Grad::new("w", &gradient).parameter(&parameter, 0, DType::F32)];
            let clip = Clip::global_norm(1.0);
            Ok((parameter, gpu.clipper.prepare_training_async(&grads, &clip, Adam::new(0.1), 2).await?))
        };
        let (trained, trainer) = made().await?;
        gpu.submit(|encoder| (0..6).for_each(|_| drop(trainer.record(encoder))));
        let mut encoder = gpu.encoder();
        let saving = trainer.save_async(&mut encoder).await?;
        let history = trainer.stepper().save_history_async(&mut encoder).await?;
        gpu.queue.submit([encoder.finish()]);
        let (checkpoint, history): (_, History) = (saving.await?, history.await?);
        let (loaded, other) = made().await?;
        other.load_async(&gpu.queue, &checkpoint).await?;
        let [want, got] = [&trained, &loaded].map(|buffer| gpu.read_async::<u32>(buffer, 0..12));
        let (want, got) = (want.await?, got.await?);
        let begin = [1.0f32, 2.0, 3.0].map(f32::to_bits);
        match want == got && want != begin && history.updates() == 3 {
            true => Ok(format!("{} bytes after {} updates", checkpoint.to_bytes()?.len(), history.updates())),
            false => wrong(format!("{want:x?} and {got:x?} after {} updates", history.updates())),
        }
    }

    /// What the device refuses is an error value: a buffer of another device.
    #[wasm_bindgen]
    pub async fn refused_buffer() -> Result<String, JsError> {
        let other = Gpu::open_async(&adapter().await?).await?;
        let foreign = other.upload(&[0; 16]);
        told(
            gpu()?
                .clipper
                .prepare_async(&[Grad::new("w", &foreign)], &Clip::global_norm(1.0))
                .await
                .map(drop),
        )
    }

    /// The same of kernels, with a clipper that has compiled none.
    #[wasm_bindgen]
    pub async fn prepared_anew() -> Result<String, JsError> {
        let gpu = gpu()?;
        let clipper = Clipper::new(&gpu.device)?;
        let buffer = gpu.upload(&[0; 16]);
        let grads = [Grad::new("w", &buffer)];
        let first = clipper.prepare_async(&grads, &Clip::global_norm(1.0)).await;
        if first.is_ok() { wrong("nothing was refused") } else { told(first.map(drop)) }
    }

    fn told(made: Result<(), PrepareError>) -> Result<String, JsError> {
        match made {
            Err(PrepareError::Device(error)) => {
                let source = error.source().and_then(|source| source.downcast_ref::<wgpu::Error>());
                match source {
                    Some(wgpu::Error::Validation { description, .. }) => {
                        Ok(format!("{}: {description}", error.what()))
                    }
                    source => wrong(format!("{source:?}")),
                }
            }
            Err(other) => wrong(other.to_string()),
            Ok(()) => wrong("nothing was refused"),
        }
    }
}
