//! What a process's first step takes: preparing with everything to be compiled, after `warm_up` on another thread, and
//! with a cache of compiled kernels from an earlier process. Each figure is of a process of its own.
//!
//! Prints a row a set, form of the kernels and state: medians of `ROUNDS` processes in milliseconds. `GRADCLIP_TEST_ADAPTER`
//! picks the adapter by its `backend/name`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;
use std::time::Instant;

use gradclip::plan::Placement;
use gradclip::{Clip, Clipper, ClipperOptions, DType, Grad, wgpu};
use gradclip_verify::sets;

mod common;

const ROUNDS: usize = 3;
const SETS: [&str; 2] = ["small", "gpt2"];
const FORMS: [&str; 3] = ["default", "checked", "hardware"];
const STATES: [&str; 3] = ["cold", "warmed up", "cached"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match &arguments[..] {
        // `cargo test --benches` runs every bench and asks for nothing.
        [flag] if flag == "--test" => {}
        [set, form, state, file] => one(set, form, state, file),
        _ => all(),
    }
}

/// Every set, form and state in turn, round by round.
fn all() {
    let folder = std::env::temp_dir().join(format!("gradclip-first-step-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    println!("adapter,set,form,state,kernels,warm_ms,prepare_ms,first_ms,next_ms");
    for set in SETS {
        for form in FORMS {
            for state in STATES {
                let file = folder.join(format!("{set} {form}"));
                let mut rows: Vec<(String, Vec<f64>)> =
                    (0..ROUNDS).filter_map(|_| child(set, form, state, file.to_str().unwrap())).collect();
                let Some((who, _)) = rows.first().cloned() else { continue };
                let columns = (0..5).map(|column| {
                    rows.sort_by(|a, b| a.1[column].total_cmp(&b.1[column]));
                    format!("{:.1}", rows[rows.len() / 2].1[column])
                });
                let columns: Vec<String> = columns.collect();
                println!("{who},{set},{form},{state},{}", columns.join(","));
            }
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// A process of its own, without the disk caches that drivers keep.
fn child(set: &str, form: &str, state: &str, file: &str) -> Option<(String, Vec<f64>)> {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args([set, form, state, file])
        .env("MESA_SHADER_CACHE_DISABLE", "true")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.trim().split(';');
    let who = words.next().filter(|who| !who.is_empty())?.to_owned();
    Some((who, words.map(|w| w.parse().unwrap()).collect()))
}

fn sizes(set: &str) -> Vec<u64> {
    match set {
        "small" => vec![768, 768 * 768, 768, 3072 * 768],
        _ => sets::shapes(set).unwrap().into_iter().map(|shape| shape.iter().product()).collect(),
    }
}

/// One process: prints the adapter, kernels compiled, and milliseconds of warming up, of preparing, of that with the
/// first step, and of the next.
fn one(set: &str, form: &str, state: &str, file: &str) {
    let Some(gpu) = common::open() else { return };
    let options = ClipperOptions::default().trusted_shaders(!form.ends_with("checked"));
    let options = match form.starts_with("hardware") {
        true => options.vector_loads(true).rounded_slots(true),
        false => options,
    };
    let sizes = sizes(set);
    let clip = Clip::global_norm(1.0);
    let cache = (state == "cached").then(|| cache(&gpu.device, file)).flatten();
    if state == "cached" && cache.is_none() {
        return;
    }
    let clipper = match &cache {
        Some(cache) => Clipper::with_cache(&gpu.device, options, cache).unwrap(),
        None => Clipper::with_options(&gpu.device, options).unwrap(),
    };
    let milliseconds = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    if state == "warmed up" {
        let placed = |(buffer, &elements): (usize, &u64)| Placement {
            buffer,
            buffer_size: 4 * elements,
            elements,
            dtype: DType::F32,
            ..Placement::default()
        };
        let placed: Vec<Placement> = sizes.iter().enumerate().map(placed).collect();
        clipper.warm_up(&placed, &clip).unwrap();
    }
    let warm = milliseconds(start);
    let grads: Vec<Grad> = sizes
        .iter()
        .map(|&elements| {
            let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("bench"),
                size: 4 * elements,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            Grad::new(elements.to_string(), &buffer)
        })
        .collect();
    gpu.run(|encoder| grads.iter().for_each(|g| encoder.clear_buffer(g.buffer(), 0, None)));
    let start = Instant::now();
    let pass = clipper.prepare(&grads, &clip).unwrap();
    let prepare = milliseconds(start);
    gpu.run(|encoder| pass.record(encoder));
    let first = milliseconds(start);
    let next = gpu.run(|encoder| pass.record(encoder)).as_secs_f64() * 1e3;
    println!("{};{};{warm};{prepare};{first};{next}", gpu.name, clipper.kernel_count());
    if let Some(data) = cache.and_then(|cache| cache.get_data()) {
        std::fs::write(file, data).unwrap();
    }
}

/// With what an earlier process left; the first round has nothing yet.
fn cache(device: &wgpu::Device, file: &str) -> Option<wgpu::PipelineCache> {
    if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
        return None;
    }
    let data = std::fs::read(file).ok();
    let descriptor = wgpu::PipelineCacheDescriptor { label: None, data: data.as_deref(), fallback: true };
    // SAFETY: the file is an earlier process's of this bench.
    Some(unsafe { device.create_pipeline_cache(&descriptor) })
}
