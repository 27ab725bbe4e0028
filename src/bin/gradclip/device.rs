//! `--device`: what its words mean, and what is said about the choice.

use gradclip::session::{self, adapter_name};
use gradclip::{Session, Target};

use crate::failure::Failure;
use crate::input::{Parameters, Set};
use crate::text;

pub(crate) const GET_A_DRIVER: &str = "a software driver for Vulkan will do: it is in the package \
     mesa-vulkan-drivers of Debian and Ubuntu (apt install mesa-vulkan-drivers)";

pub(crate) const HELP: &str = "Where to compute: `auto` takes the best GPU, else the CPU path (never a software \
     adapter, which must be named; what the GPU cannot hold the CPU path does), and says which on standard error; \
     `gpu` fails when there is no adapter; any other text picks the adapter whose `backend/name` contains it, \
     ignoring case (see `gradclip devices`)";

/// Reads the option's value.
pub(crate) fn target(text: &str) -> Result<Target, String> {
    match text.trim().to_lowercase().as_str() {
        "" => Err("expected auto, cpu, gpu or a part of an adapter's `backend/name`".into()),
        "auto" => Ok(Target::Auto),
        "cpu" => Ok(Target::Cpu),
        "gpu" => Ok(Target::Gpu),
        part => Ok(Target::Named(part.into())),
    }
}

/// Opens what was asked for; for `auto` says what was taken.
pub(crate) fn open(target: &Target) -> Result<Session, Failure> {
    let session = Session::open(target)?;
    if *target == Target::Auto {
        match session.adapter() {
            Some(info) => text::note(&format!("device: {}", adapter_name(info))),
            None if session::adapters().is_empty() => {
                text::note(&format!("device: cpu, because there is no GPU adapter; {GET_A_DRIVER}"));
            }
            None => text::note("device: cpu, because no adapter gave a device"),
        }
    }
    Ok(session)
}

/// As [`open`], for a set of gradients: doubles are clipped by the CPU path, which is an error where something else
/// was asked for.
pub(crate) fn open_for(
    target: &Target,
    set: &Set,
    parameters: Option<&Parameters>,
) -> Result<Session, Failure> {
    let what = match (set.double(), parameters) {
        (Some(gradient), _) => format!("tensor `{}` is F64", gradient.shown),
        (None, Some(parameters)) if parameters.double() => "parameters are F64".into(),
        _ => return open(target),
    };
    let why = "which adapters do not have";
    match target {
        Target::Cpu => {}
        Target::Auto => text::note(&format!("device: cpu, because {what}, {why}")),
        _ => {
            let instead = "take --device cpu, or convert it to F32 first";
            return Err(Failure::Usage(format!("--device: {what}, {why}; {instead}")));
        }
    }
    open(&Target::Cpu)
}

/// The adapter that a target names, `None` for the CPU path.
pub(crate) fn adapter(target: &Target) -> Result<Option<wgpu::Adapter>, Failure> {
    let wanted = match target {
        Target::Cpu => return Ok(None),
        Target::Named(part) => part.as_str(),
        _ => "",
    };
    let mut adapters = session::adapters();
    if *target == Target::Auto {
        adapters.retain(|adapter| adapter.get_info().device_type != wgpu::DeviceType::Cpu);
    }
    let names: Vec<String> = adapters.iter().map(|a| adapter_name(&a.get_info())).collect();
    let found = names.iter().position(|name| name.to_lowercase().contains(wanted));
    match found {
        Some(i) => {
            if *target == Target::Auto {
                text::note(&format!("device: {}", names[i]));
            }
            Ok(adapters.into_iter().nth(i))
        }
        None if *target == Target::Auto => {
            text::note(&format!("device: cpu, because there is no GPU adapter; {GET_A_DRIVER}"));
            Ok(None)
        }
        None if names.is_empty() => {
            Err(Failure::Device(format!("--device: there is no GPU adapter; {GET_A_DRIVER}")))
        }
        None => {
            let found = names.join(", ");
            Err(Failure::Device(format!("--device: no adapter matches `{wanted}`; found: {found}")))
        }
    }
}
