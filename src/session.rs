//! Clipping for those with no wgpu of their own: one call from slices to slices.
//!
//! Everything here blocks, and copies gradients to the device and back; a training loop on the GPU
//! wants [`Clipper`] instead.

mod gpu;

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clip::Clip;
use crate::cpu::{self, GradMut};
use crate::error::{ClipError, PrepareError, SessionError, WordError};
use crate::gpu::Clipper;
use crate::history::History;
use crate::plan::PlanLimits;
use crate::report::Report;

use gpu::Gpu;

pub use gpu::adapter_name;

/// Invocations of a workgroup that every adapter has.
const LEAST_WORKGROUP: u32 = 128;

/// Where to clip.
///
/// As words: `auto`, `cpu`, `gpu`, and anything else is the name, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    #[default]
    /// The best GPU, else the CPU path, which is also where what the GPU cannot hold goes. Never a software
    /// adapter: it runs on the same cores as the CPU path, many times slower.
    Auto,
    /// The CPU path.
    Cpu,
    /// The best adapter, an error if there is none.
    Gpu,
    /// The best adapter whose `backend/name` contains this, ignoring case.
    Named(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Auto => "auto",
            Target::Cpu => "cpu",
            Target::Gpu => "gpu",
            Target::Named(name) => name,
        })
    }
}

impl FromStr for Target {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Target, WordError> {
        match text.trim().to_lowercase().as_str() {
            "" => {
                let required = "auto, cpu, gpu or a part of an adapter's `backend/name`";
                Err(WordError { what: "where to clip", required, given: text.into() })
            }
            "auto" => Ok(Target::Auto),
            "cpu" => Ok(Target::Cpu),
            "gpu" => Ok(Target::Gpu),
            part => Ok(Target::Named(part.into())),
        }
    }
}

/// A device, opened, or the CPU path.
#[derive(Debug)]
pub struct Session {
    gpu: Option<Gpu>,
    /// Whether the CPU path does what the device cannot.
    falls_back: bool,
    kept: Mutex<Kept>,
}

/// What a session keeps from call to call.
#[derive(Debug, Default)]
struct Kept {
    history: History,
    fallback: Option<String>,
}

/// All adapters that can clip, best first: discrete, integrated, virtual, other, software; of equal ones
/// those with a modern backend first. `WGPU_BACKEND` restricts the backends.
pub fn adapters() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    adapters.retain(|a| {
        a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
            && PlanLimits::new(&Clipper::recommended_limits(a), LEAST_WORKGROUP).is_ok()
    });
    adapters.sort_by_key(|adapter| {
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        (kind, info.backend == wgpu::Backend::Gl)
    });
    adapters
}

/// Whether an adapter runs on the host's own cores.
pub fn is_software(info: &wgpu::AdapterInfo) -> bool {
    info.device_type == wgpu::DeviceType::Cpu
}

impl Session {
    /// Opens what `target` names. Blocks until the device is there.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoAdapter`] where nothing matches, [`SessionError::NoDevice`] where the
    /// adapter refuses. [`Target::Auto`] has neither.
    pub fn open(target: &Target) -> Result<Session, SessionError> {
        let session = |gpu| Session { gpu, falls_back: *target == Target::Auto, kept: Mutex::default() };
        let wanted = match target {
            Target::Cpu => return Ok(session(None)),
            Target::Auto | Target::Gpu => "",
            Target::Named(text) => text.as_str(),
        };
        let adapters = adapters();
        let infos: Vec<wgpu::AdapterInfo> = adapters.iter().map(wgpu::Adapter::get_info).collect();
        let matches = |info: &wgpu::AdapterInfo| match target {
            Target::Auto => !is_software(info),
            _ => adapter_name(info).to_lowercase().contains(&wanted.to_lowercase()),
        };
        let opened = match infos.iter().position(matches) {
            Some(i) => Gpu::open(&adapters[i]),
            None => Err(SessionError::NoAdapter {
                wanted: if wanted.is_empty() { "any GPU".into() } else { wanted.into() },
                found: match infos.is_empty() {
                    true => "no adapter at all".into(),
                    false => infos.iter().map(adapter_name).collect::<Vec<_>>().join(", "),
                },
            }),
        };
        match opened {
            Err(_) if *target == Target::Auto => Ok(session(None)),
            opened => Ok(session(Some(opened?))),
        }
    }

    /// The adapter in use, `None` for the CPU path.
    pub fn adapter(&self) -> Option<&wgpu::AdapterInfo> {
        self.gpu.as_ref().map(|gpu| &gpu.info)
    }

    /// Clips gradients in place and reports. On a GPU tensors lie one after another in as few buffers as they
    /// fit into.
    ///
    /// ```
    /// use gradclip::{Clip, Session, Target, cpu::GradMut};
    ///
    /// let session = Session::open(&Target::Auto)?;
    /// let mut w = [300.0f32, 400.0];
    /// let report = session.clip(&mut [GradMut::new("w", &mut w)], &Clip::global_norm(1.0))?;
    /// assert_eq!(report.norm(), Some(500.0));
    /// assert_eq!(w, [0.6, 0.8]);
    /// # Ok::<(), gradclip::SessionError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A clip that does not validate, gradients larger than the device's buffers or of `f64` (which
    /// [`Target::Auto`] takes to the CPU path), memory that ran out, a device that was lost. Gradients are
    /// then untouched.
    pub fn clip(&self, grads: &mut [GradMut<'_>], clip: &Clip) -> Result<Report, SessionError> {
        if clip.use_norm || clip.skip.is_some_and(|skip| skip.loss) {
            let (what, required) =
                ("a norm or a loss that is handed in", "a history that has it: `Session::clip_with`");
            return Err(ClipError::Combination { what, required }.into());
        }
        if !clip.remembers() {
            return self.clip_with(grads, clip, &mut History::default());
        }
        let mut history = self.kept().history.clone();
        let report = self.clip_with(grads, clip, &mut history)?;
        self.kept().history = history;
        Ok(report)
    }

    /// As [`Session::clip`], with a history of the caller's: it counts the steps, and keeps what adaptive
    /// thresholds and loss scale remember. Session::clip keeps one of its own for clips that need it.
    ///
    /// ```
    /// use gradclip::{Adapt, Clip, History, Session, Target, cpu::GradMut};
    ///
    /// let session = Session::open(&Target::Auto)?;
    /// let clip = Clip::global_norm(f32::INFINITY).adapt(Adapt::Mean { factor: 1.0, window: 10 });
    /// let mut history = History::default();
    /// for (norm, clipped) in [(1.0f32, 1.0), (1.0, 1.0), (100.0, 1.0)] {
    ///     let mut g = [norm];
    ///     session.clip_with(&mut [GradMut::new("g", &mut g)], &clip, &mut history)?;
    ///     assert_eq!(g, [clipped]);
    /// }
    /// assert_eq!(history.steps(), 3);
    /// # Ok::<(), gradclip::SessionError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Session::clip`], and [`ClipError::State`](crate::ClipError::State) for the history of another
    /// clip. It is then as before.
    pub fn clip_with(
        &self,
        grads: &mut [GradMut<'_>],
        clip: &Clip,
        history: &mut History,
    ) -> Result<Report, SessionError> {
        self.kept().fallback = None;
        if let Some(gpu) = &self.gpu {
            match gpu.clip(grads, clip, history) {
                Err(error) if self.falls_back && concerns_device(&error) => {
                    self.kept().fallback = Some(error.to_string());
                }
                done => return done,
            }
        }
        Ok(cpu::clip_with(grads, clip, history)?)
    }

    /// Why the CPU path did the last clip although an adapter is open, if it did: [`Target::Auto`] takes
    /// there what the adapter cannot hold.
    pub fn fallback(&self) -> Option<String> {
        self.kept().fallback.clone()
    }

    /// Forgets what adaptive thresholds and loss scale of [`Session::clip`] remember.
    pub fn forget(&self) {
        self.kept().history = History::default();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A thread that panicked while holding the lock left whole values behind.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another device might do what this one did not.
fn concerns_device(error: &SessionError) -> bool {
    !matches!(error, SessionError::Clip(_) | SessionError::Prepare(PrepareError::Clip(_)))
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn words_name_targets_and_back() {
        for target in [Target::Auto, Target::Cpu, Target::Gpu, Target::Named("vulkan/llvm".into())] {
            assert_eq!(target.to_string().parse(), Ok(target));
        }
        assert_eq!(" CPU ".parse(), Ok(Target::Cpu));
        assert!("  ".parse::<Target>().is_err());
    }
}
