//! `--device`: what its words mean, and what is said about the choice.

use gradclip::{Session, Target, adapter_name, adapters, is_software, wgpu};

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
    text.parse().map_err(|_| "expected auto, cpu, gpu or a part of an adapter's `backend/name`".into())
}

/// Opens what was asked for; for `auto` says what was taken.
pub(crate) fn open(target: &Target) -> Result<Session, Failure> {
    let session = Session::open(target)?;
    if *target == Target::Auto {
        match session.adapter() {
            Some(info) => text::note(&format!("device: {}", adapter_name(info))),
            None => text::note(&format!("device: cpu, because {}", why_cpu(&adapters()))),
        }
    }
    Ok(session)
}

/// Why `auto` takes the CPU path.
fn why_cpu(adapters: &[wgpu::Adapter]) -> String {
    let infos = adapters.iter().map(wgpu::Adapter::get_info);
    let (software, others): (Vec<_>, Vec<_>) = infos.partition(is_software);
    match (software.first(), others.is_empty()) {
        (None, true) => "there is no GPU adapter".into(),
        (Some(info), true) => {
            let name = adapter_name(info);
            format!("there is no GPU, and a software adapter ({name}) is only taken when it is named")
        }
        _ => "no adapter gave a device".into(),
    }
}

/// The adapter that did the last clip of a session; where the CPU path had to do it, says why.
pub(crate) fn used(session: &Session) -> Option<&wgpu::AdapterInfo> {
    match session.fallback() {
        Some(why) => {
            text::note(&format!("device: cpu, because the adapter could not: {}", why));
            None
        }
        None => session.adapter(),
    }
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
    let all = adapters();
    let taken = |adapter: &wgpu::Adapter| *target != Target::Auto || !is_software(&adapter.get_info());
    let adapters: Vec<wgpu::Adapter> = all.iter().filter(|adapter| taken(adapter)).cloned().collect();
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
            text::note(&format!("device: cpu, because {}", why_cpu(&all)));
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
