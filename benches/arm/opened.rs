//! The device that a bench runs on.
#![allow(dead_code, unreachable_pub)]

use std::sync::{Arc, Mutex};

use gradclip::{Clipper, wgpu};
use gradclip::{adapter_name, adapters};

/// The first error nobody else caught.
pub type FirstError = Arc<Mutex<Option<String>>>;

pub struct Opened {
    pub name: String,
    pub driver: String,
    pub software: bool,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
}

/// The best adapter whose `backend/name` contains `GRADCLIP_TEST_ADAPTER`.
pub fn opened() -> Result<Opened, String> {
    let wanted = std::env::var("GRADCLIP_TEST_ADAPTER").unwrap_or_default().to_lowercase();
    let name = |a: &wgpu::Adapter| adapter_name(&a.get_info());
    let adapter = adapters().into_iter().find(|a| name(a).to_lowercase().contains(&wanted));
    let adapter = adapter.ok_or(format!("no adapter with `{wanted}` in its name"))?;
    let descriptor = wgpu::DeviceDescriptor {
        required_limits: Clipper::recommended_limits(&adapter),
        required_features: Clipper::optional_features(&adapter),
        ..Default::default()
    };
    let opened = pollster::block_on(adapter.request_device(&descriptor));
    let (device, queue) = opened.map_err(|e| e.to_string())?;
    let info = adapter.get_info();
    let software = info.device_type == wgpu::DeviceType::Cpu;
    let driver = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
    Ok(Opened { name: name(&adapter), driver, software, device, queue })
}

impl Opened {
    /// Has the first error nobody else catches kept, where wgpu would panic.
    pub fn keep_errors(&self) -> FirstError {
        let error = FirstError::default();
        let first = error.clone();
        self.device.on_uncaptured_error(Arc::new(move |raised: wgpu::Error| {
            if let Ok(mut first) = first.lock() {
                first.get_or_insert(raised.to_string());
            }
        }));
        error
    }
}
