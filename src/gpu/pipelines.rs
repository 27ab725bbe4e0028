//! Compiled kernels, each made the first time that a prepared pass needs it.

use std::collections::{HashMap, HashSet};
#[cfg(not(target_arch = "wasm32"))]
use std::num::NonZero;
#[cfg(not(target_arch = "wasm32"))]
use std::panic::resume_unwind;
#[cfg(not(target_arch = "wasm32"))]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
#[cfg(not(target_arch = "wasm32"))]
use std::thread;

use crate::error::PrepareError;
use crate::kernels::{Binding, Variant};

use super::scope::caught;
#[cfg(not(target_arch = "wasm32"))]
use super::scope::waited;
use super::trusted::module;

/// A kernel with the layouts of its bind groups. These are there at once, so that everything else of a pass can be
/// made before anything is compiled, and all that is missing then is compiled together.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) tables: wgpu::BindGroupLayout,
    pub(crate) slots: Option<wgpu::BindGroupLayout>,
    layout: wgpu::PipelineLayout,
    variant: Variant,
    made_on: MadeOn,
    compiled: OnceLock<wgpu::ComputePipeline>,
    /// Held by the thread that compiles; others that need this very kernel wait for it.
    #[cfg(not(target_arch = "wasm32"))]
    compiling: Mutex<()>,
}

/// What all kernels of a clipper are compiled with.
#[derive(Clone, Debug)]
pub(crate) struct MadeOn {
    pub(crate) device: wgpu::Device,
    /// Whether wgpu's checks are left out where [`module`] argues that nothing is lost.
    pub(crate) trusted: bool,
    /// Where compiled code comes from and goes to.
    pub(crate) cache: Option<wgpu::PipelineCache>,
}

/// The kernels met so far.
#[derive(Debug)]
pub(crate) struct Pipelines {
    made_on: MadeOn,
    known: Mutex<HashMap<Variant, Arc<Pipeline>>>,
}

impl Pipelines {
    pub(crate) fn new(made_on: MadeOn) -> Pipelines {
        Pipelines { made_on, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Variant, Arc<Pipeline>>> {
        // A thread that panicked while holding the lock left a complete map behind.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kernel that may still have to be compiled; to be called where errors are caught.
    pub(crate) fn get(&self, variant: Variant) -> Arc<Pipeline> {
        let new = || Arc::new(Pipeline::new(self.made_on.clone(), variant));
        self.known().entry(variant).or_insert_with(new).clone()
    }

    /// Forgets what is not compiled, whose layouts may be what the device refused.
    pub(crate) fn forget_uncompiled(&self) {
        self.known().retain(|_, pipeline| pipeline.compiled.get().is_some());
    }

    /// Number of kernels that are compiled.
    pub(crate) fn compiled(&self) -> usize {
        self.known().values().filter(|p| p.compiled.get().is_some()).count()
    }

    /// Compiles those that are not. Returns when all are.
    pub(crate) async fn compile(&self, wanted: &[Arc<Pipeline>]) -> Result<(), PrepareError> {
        let mut met = HashSet::new();
        let missing: Vec<_> =
            wanted.iter().filter(|p| p.compiled.get().is_none() && met.insert(p.variant)).collect();
        self.compile_each(&missing).await
    }

    /// Side by side where the device allows it.
    #[cfg(not(target_arch = "wasm32"))]
    async fn compile_each(&self, missing: &[&Arc<Pipeline>]) -> Result<(), PrepareError> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), PrepareError> {
            while let Some(pipeline) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                // A thread that panicked while it compiled left nothing behind.
                let _only_one = pipeline.compiling.lock().unwrap_or_else(PoisonError::into_inner);
                // Error scopes are a thread's own.
                waited(pipeline.compile())?;
            }
            Ok(())
        };
        self.by_threads(missing.len(), work)
    }

    /// One after the other: a browser compiles elsewhere, and the page's event loop goes on between them.
    #[cfg(target_arch = "wasm32")]
    async fn compile_each(&self, missing: &[&Arc<Pipeline>]) -> Result<(), PrepareError> {
        for pipeline in missing {
            pipeline.compile().await?;
        }
        Ok(())
    }

    /// The same work by as many as may compile at once.
    #[cfg(not(target_arch = "wasm32"))]
    fn by_threads(
        &self,
        most: usize,
        work: impl Fn() -> Result<(), PrepareError> + Copy + Send + Sync,
    ) -> Result<(), PrepareError> {
        // Not a pool that others use too: a thread that waits there may take up their work, whose errors would be
        // taken for ours.
        thread::scope(|scope| {
            let helpers: Vec<_> = (1..self.threads().min(most))
                // Where there is no thread to be had, fewer do it all.
                .filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
                .collect();
            let own = work();
            let join =
                |h: thread::ScopedJoinHandle<'_, _>| h.join().unwrap_or_else(|panic| resume_unwind(panic));
            helpers.into_iter().map(join).fold(own, Result::and)
        })
    }

    /// wgpu gives up where a thread waits a second for the context of GL.
    #[cfg(not(target_arch = "wasm32"))]
    fn threads(&self) -> usize {
        if self.made_on.device.adapter_info().backend == wgpu::Backend::Gl {
            return 1;
        }
        thread::available_parallelism().map_or(1, NonZero::get)
    }
}

impl Pipeline {
    fn new(made_on: MadeOn, variant: Variant) -> Pipeline {
        let (device, kernel) = (&made_on.device, variant.kernel);
        let label = Some(kernel.stem());
        let tables = bind_group_layout(device, label, &variant.bindings());
        let bound = variant.slots as usize * variant.pattern.bindings().max(1);
        let slots = kernel.slots().map(|access| bind_group_layout(device, label, &vec![access; bound]));
        let mut groups = vec![Some(&tables)];
        groups.extend(slots.as_ref().map(Some));
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &groups,
            immediate_size: 0,
        });
        Pipeline {
            tables,
            slots,
            layout,
            variant,
            made_on,
            compiled: OnceLock::new(),
            #[cfg(not(target_arch = "wasm32"))]
            compiling: Mutex::new(()),
        }
    }

    /// What is recorded. Whoever prepares compiles it before.
    pub(crate) fn compiled(&self) -> &wgpu::ComputePipeline {
        self.compiled.get_or_init(|| self.compile_now())
    }

    /// Compiles it unless it is. What the driver refuses is tried again by the next who needs it.
    async fn compile(&self) -> Result<(), PrepareError> {
        if self.compiled.get().is_some() {
            return Ok(());
        }
        let made = caught(&self.made_on.device, "compiling a shader", || {
            let made = self.compile_now();
            probe(&made);
            made
        });
        // Another task may have compiled it meanwhile: one of both is kept.
        let made = made.await?;
        self.compiled.get_or_init(|| made);
        Ok(())
    }

    fn compile_now(&self) -> wgpu::ComputePipeline {
        let MadeOn { device, trusted, cache } = &self.made_on;
        let kernel = self.variant.kernel;
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.stem()),
            layout: Some(&self.layout),
            module: &module(device, &self.variant, *trusted),
            entry_point: Some(kernel.entry()),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Kernels initialise what they share themselves.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: cache.as_ref(),
        })
    }
}

/// Where an internal error cannot be read ([`caught`]), has a pipeline that was not made raise one of validation.
fn probe(made: &wgpu::ComputePipeline) {
    if cfg!(target_arch = "wasm32") {
        made.get_bind_group_layout(0);
    }
}

fn bind_group_layout(
    device: &wgpu::Device,
    label: Option<&str>,
    bindings: &[Binding],
) -> wgpu::BindGroupLayout {
    let entries: Vec<_> = bindings
        .iter()
        .enumerate()
        .map(|(i, binding)| wgpu::BindGroupLayoutEntry {
            binding: i as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match binding {
                    Binding::Uniform => wgpu::BufferBindingType::Uniform,
                    Binding::Read => wgpu::BufferBindingType::Storage { read_only: true },
                    Binding::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries })
}
