//! The figures of each shader, as rows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use gradclip::listing::Shader;

use crate::graph::Through;
use crate::listing::blocks;
use crate::options::Options;
use crate::path::{Work, counts};
use crate::translate::Parsed;
use crate::vulkan::{Compiled, Compiler};

/// Names of a row's columns.
pub(crate) const COLUMNS: [&str; 27] = [
    "commit",
    "device",
    "driver",
    "kernel",
    "norm",
    "type",
    "slots",
    "variant",
    "vgprs",
    "sgprs",
    "spilled_vgprs",
    "spilled_sgprs",
    "scratch_bytes",
    "lds_bytes",
    "waves",
    "code_bytes",
    "instructions",
    "latency",
    "inverse_throughput",
    "elements_a_turn",
    "vector_an_element",
    "scalar_an_element",
    "vector_whole",
    "loads_in_flight",
    "bytes_in_flight",
    "useful_in_flight",
    "error",
];

/// What the driver calls the columns from `vgprs` on.
const STATISTICS: [&str; 11] = [
    "VGPRs",
    "SGPRs",
    "Spilled VGPRs",
    "Spilled SGPRs",
    "Scratch size",
    "LDS size",
    "Subgroups per SIMD",
    "Code size",
    "Instructions",
    "Latency",
    "Inverse Throughput",
];

/// A shader on a device, by column.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row(BTreeMap<&'static str, String>);

impl Row {
    pub(crate) fn get(&self, column: &str) -> &str {
        self.0.get(column).map_or("", String::as_str)
    }

    fn set(&mut self, column: &'static str, value: impl ToString) {
        self.0.insert(column, value.to_string());
    }

    /// As a line of CSV. No value has a comma or a line's end in it.
    pub(crate) fn line(&self) -> String {
        COLUMNS.map(|column| self.get(column).replace([',', '\n'], ";")).join(",")
    }

    pub(crate) fn read(line: &str) -> Option<Row> {
        let values: Vec<&str> = line.split(',').collect();
        let row = COLUMNS.into_iter().zip(values.iter().map(|v| (*v).to_owned())).collect();
        (values.len() == COLUMNS.len()).then_some(Row(row))
    }

    /// What a message calls it.
    fn name(&self) -> String {
        let words = ["kernel", "norm", "type", "slots", "variant"].map(|column| self.get(column));
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// All shaders on the device that the environment chooses, on all cores.
pub(crate) fn all(shaders: &[Shader], options: &Options) -> Result<Vec<Row>, String> {
    let compiler = Compiler::open()?;
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some((i, shader)) = shaders.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) {
            let row = row(&compiler, shader, options);
            rows.lock().unwrap_or_else(PoisonError::into_inner).insert(i, row);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            // Ways through a listing are searched block by block, a call each.
            let thread = std::thread::Builder::new().stack_size(1 << 28);
            thread.spawn_scoped(scope, work).map_err(|error| error.to_string())?;
        }
        Ok::<(), String>(())
    })?;
    Ok(rows.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect())
}

fn row(compiler: &Compiler, shader: &Shader, options: &Options) -> Row {
    let mut row = Row::default();
    row.set("commit", std::env::var("GRADCLIP_COMMIT").unwrap_or_default());
    row.set("device", device(&compiler.name));
    row.set("driver", &compiler.driver);
    row.set("kernel", shader.kernel);
    row.set("norm", &shader.norm);
    row.set("type", shader.dtype.map_or(String::new(), |dtype| dtype.to_string()));
    row.set("slots", shader.slots);
    row.set("variant", shader.apart.replace(',', ""));
    let compiled = Parsed::new(&shader.wgsl, shader.entry).and_then(|parsed| {
        let listed = !options.check || options.csv.is_some();
        compiler.compile(&parsed.spirv(shader, compiler)?, shader.entry, &shader.groups, listed)
    });
    match compiled {
        Err(error) => row.set("error", error),
        Ok(compiled) => {
            let way = describe(&mut row, compiler, shader, &compiled);
            if let Some(folder) = &options.listing {
                // Names may have dots, as those of p = 2.5 do.
                let name = format!("{} {}", device(&compiler.name), row.name());
                let file = |ending: &str| std::path::Path::new(folder).join(format!("{name}.{ending}"));
                let written = std::fs::write(file("s"), marked(&compiled.listing, &way))
                    .and_then(|()| std::fs::write(file("wgsl"), &shader.wgsl));
                if let Err(error) = written {
                    row.set("error", format!("{name}: {error}"));
                }
            }
        }
    }
    row
}

/// `Null hardware (RADV NAVI21)` as `NAVI21`.
fn device(name: &str) -> &str {
    name.split("RADV ").nth(1).map_or(name, |rest| rest.trim_end_matches(')'))
}

/// The listing with a mark at the blocks of the hot part.
fn marked(listing: &str, way: &[usize]) -> String {
    let mut out = String::with_capacity(listing.len());
    let hot: HashSet<usize> = way.iter().copied().collect();
    let starts: HashMap<usize, usize> =
        blocks(listing).iter().enumerate().map(|(i, b)| (b.line, i)).collect();
    let mut marks = "";
    for (i, line) in listing.lines().enumerate() {
        if let Some(block) = starts.get(&i) {
            marks = if hot.contains(block) { "* " } else { "  " };
        }
        out.extend([marks, line, "\n"]);
    }
    out
}

/// Fills in what the driver and the listing say, and gives the blocks of the hot part.
fn describe(row: &mut Row, compiler: &Compiler, shader: &Shader, compiled: &Compiled) -> Vec<usize> {
    let columns = COLUMNS.iter().skip_while(|&&column| column != "vgprs");
    for (column, name) in columns.zip(STATISTICS) {
        row.set(column, compiled.figure(name).map_or(String::new(), |value| value.to_string()));
    }
    let work = Work {
        elements: shader.elements,
        loaded: shader.loaded,
        one_counter: compiler.name.contains("VEGA"),
        through: Through { names: &shader.through, most: shader.through_most },
    };
    let counts = counts(&compiled.listing, work);
    if let Some(counts) = &counts {
        row.set("elements_a_turn", counts.elements);
        row.set("vector_an_element", format!("{:.2}", counts.vector));
        row.set("scalar_an_element", format!("{:.2}", counts.scalar));
        row.set("vector_whole", counts.whole.map_or(String::new(), |whole| format!("{whole:.2}")));
        row.set("loads_in_flight", counts.flight.loads);
        row.set("bytes_in_flight", counts.flight.bytes);
        row.set("useful_in_flight", counts.flight.bytes * shader.held / shader.loaded.max(1));
    }
    counts.map_or(Vec::new(), |counts| counts.way)
}

/// Rows one a line, for the process that asked.
pub(crate) fn print(rows: &[Row]) -> Result<(), String> {
    rows.iter().for_each(|row| println!("{}", row.line()));
    Ok(())
}

/// An error that names each shader that does not compile, spills or cannot be translated.
pub(crate) fn check(shaders: &[Shader], rows: &[Row]) -> Result<(), String> {
    let mut wrong = Vec::new();
    for row in rows {
        let of = format!("{} on {}", row.name(), row.get("device"));
        if !row.get("error").is_empty() {
            wrong.push(format!("{of}: {}", row.get("error")));
        }
        for column in ["spilled_vgprs", "spilled_sgprs", "scratch_bytes"] {
            if row.get("error").is_empty() && row.get(column) != "0" {
                wrong.push(format!("{of}: {column} {}", row.get(column)));
            }
        }
    }
    for shader in shaders {
        let translated = Parsed::new(&shader.wgsl, shader.entry).and_then(|parsed| {
            parsed.msl(shader).map_err(|error| format!("MSL: {error}"))?;
            parsed.hlsl(shader).map_err(|error| format!("HLSL: {error}"))?;
            parsed.glsl(&shader.groups).map_err(|error| format!("GLSL: {error}"))
        });
        if let Err(error) = translated {
            wrong.push(format!("{} {}: {error}", shader.kernel, shader.apart));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n     ")) }
}
