//! What compilers of real GPUs make of the kernels, without a GPU: every shader the library can make goes through
//! naga as wgpu would send it, then through RADV's compiler on its null device, for each of several families.
//! Prints a table; with `--check` it compiles for all of them, translates to MSL, HLSL and GLSL, and fails on an
//! error or a spill. `benches/README.md` has the commands and says what the columns mean.
#![allow(missing_docs)]

use std::process::ExitCode;

#[path = "isa/dominators.rs"]
mod dominators;
#[path = "isa/families.rs"]
mod families;
#[path = "isa/figures.rs"]
mod figures;
#[path = "isa/graph.rs"]
mod graph;
#[path = "isa/listing.rs"]
mod listing;
#[path = "isa/options.rs"]
mod options;
#[path = "isa/path.rs"]
mod path;
#[path = "isa/table.rs"]
mod table;
#[path = "isa/translate.rs"]
mod translate;
#[path = "isa/vulkan.rs"]
mod vulkan;

use options::Options;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs every bench and asks for nothing.
    if arguments.is_empty() || arguments.iter().any(|a| a == "--test") {
        return ExitCode::SUCCESS;
    }
    match Options::read(&arguments).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isa: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let shaders = options.shaders()?;
    if options.one_family {
        return figures::print(&figures::all(&shaders, options)?);
    }
    let mut rows = Vec::new();
    for family in &options.families {
        rows.extend(families::figures(family, options)?);
    }
    match &options.csv {
        Some(file) => table::write(file, &rows)?,
        None if options.check => {}
        None => table::print(&rows),
    }
    if options.check {
        figures::check(&shaders, &rows)?;
        println!(
            "{} shaders: compiled for {} without a spill, translated to MSL, HLSL and GLSL",
            shaders.len(),
            options.families.join(", ")
        );
    }
    Ok(())
}
