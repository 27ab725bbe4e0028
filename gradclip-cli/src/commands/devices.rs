//! `gradclip devices`: the adapters of this machine.

use gradclip::{Clipper, wgpu};
use gradclip::{adapter_name, adapters};
use serde_json::{Map, Value, json};

use crate::args::device;
use crate::failure::Failure;
use crate::text;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object instead of the list
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let adapters = adapters();
    if adapters.is_empty() {
        text::note(&format!("no GPU adapter was found; {}", device::GET_A_DRIVER));
    }
    if args.json {
        return text::print_json(
            &json!({ "adapters": adapters.iter().map(to_json).collect::<Vec<Value>>() }),
        );
    }
    let blocks: Vec<String> = adapters.iter().map(to_text).collect();
    if blocks.is_empty() { Ok(()) } else { text::print(&blocks.join("\n")) }
}

fn kind(info: &wgpu::AdapterInfo) -> &'static str {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    }
}

/// The limits that decide how many dispatches a clip takes and what it can hold.
fn limits(adapter: &wgpu::Adapter) -> [(&'static str, u64); 7] {
    let limits = adapter.limits();
    [
        ("max_buffer_size", limits.max_buffer_size),
        ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
        ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage.into()),
        ("min_storage_buffer_offset_alignment", limits.min_storage_buffer_offset_alignment.into()),
        ("max_compute_workgroups_per_dimension", limits.max_compute_workgroups_per_dimension.into()),
        ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup.into()),
        ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size.into()),
    ]
}

/// The optional features that would be used.
fn features(adapter: &wgpu::Adapter) -> Vec<&'static str> {
    Clipper::optional_features(adapter).iter_names().map(|(name, _)| name).collect()
}

fn to_json(adapter: &wgpu::Adapter) -> Value {
    let info = adapter.get_info();
    let limits: Map<String, Value> =
        limits(adapter).into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    json!({
        "backend": info.backend.to_string(),
        "name": info.name,
        "type": kind(&info),
        "driver": info.driver,
        "driver_info": info.driver_info,
        "limits": limits,
        "features": features(adapter),
    })
}

fn to_text(adapter: &wgpu::Adapter) -> String {
    let info = adapter.get_info();
    let features = features(adapter).join(", ");
    let mut pairs = vec![
        ("type", kind(&info).to_owned()),
        ("driver", format!("{} {}", info.driver, info.driver_info)),
        ("features used", if features.is_empty() { "none".into() } else { features }),
    ];
    pairs.extend(limits(adapter).map(|(name, value)| (name, limit(name, value))));
    let facts = text::pairs(&pairs);
    let facts: String = facts.lines().map(|line| format!("  {line}\n")).collect();
    format!("{}\n{facts}", adapter_name(&info))
}

/// Sizes in MiB where they are large.
fn limit(name: &str, value: u64) -> String {
    let size = name.ends_with("_size") && value >= 1 << 20;
    if size { format!("{} MiB", text::count(value >> 20)) } else { text::count(value) }
}
