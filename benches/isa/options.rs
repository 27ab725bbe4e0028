//! What is asked for.

use gradclip::listing::{Shader, shaders};

const HELP: &str = "\
  --check             fail on an error or a spill, and translate to MSL, HLSL and GLSL as well
  --csv FILE          write a record instead of printing a table
  --family LIST       of navi21, gfx1100, vega10 (all)
  --kernel LIST       kernels by the stems of their files (all)
  --norm LIST         of 1, 2, inf, 2.5 (all)
  --type LIST         of f32, f16, bf16 (all)
  --slots LIST        numbers of slots (1,30)
  --plain             one variant of each: no adaptive thresholds, loss scales or shared bindings
  --workgroup N       invocations of a workgroup (256)
  --listing FOLDER    write WGSL and machine code there, the hot part marked
  --wgsl FILE --entry NAME --loaded BYTES --elements N
                      a shader of your own, whose slots are bind group 1: bytes it loads for an element, and
                      elements an invocation takes in all, 0 where that is unknown
  --trusted           of that shader: without wgpu's checks of indices and counters of loops
  --through LIST --through-most N
                      of that shader: how instructions begin that full speed goes through, at most N of them";

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) check: bool,
    pub(crate) csv: Option<String>,
    pub(crate) families: Vec<String>,
    /// Whether the environment names the family already: rows go to standard output, one a line.
    pub(crate) one_family: bool,
    pub(crate) listing: Option<String>,
    kernels: Vec<String>,
    norms: Vec<String>,
    types: Vec<String>,
    slots: Vec<u32>,
    plain: bool,
    workgroup: u32,
    wgsl: Option<String>,
    entry: String,
    loaded: u32,
    elements: u32,
    trusted: bool,
    through: Vec<String>,
    through_most: u32,
    /// As given, for a process of its own a family.
    pub(crate) arguments: Vec<String>,
}

impl Options {
    pub(crate) fn read(arguments: &[String]) -> Result<Options, String> {
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("`{text}` is no number"));
        let mut options = Options {
            families: list("navi21,gfx1100,vega10"),
            slots: vec![1, 30],
            workgroup: 256,
            loaded: 4,
            through_most: u32::MAX,
            arguments: arguments.to_vec(),
            ..Options::default()
        };
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().cloned().ok_or(format!("{flag} needs a value"));
            match flag.as_str() {
                "--bench" => {} // cargo's own
                "--check" => options.check = true,
                "--one-family" => options.one_family = true,
                "--plain" => options.plain = true,
                "--trusted" => options.trusted = true,
                "--csv" => options.csv = Some(value()?),
                "--family" => options.families = list(&value()?),
                "--kernel" => options.kernels = list(&value()?),
                "--norm" => options.norms = list(&value()?),
                "--type" => options.types = list(&value()?),
                "--slots" => {
                    options.slots = list(&value()?).iter().map(|n| number(n)).collect::<Result<_, _>>()?
                }
                "--workgroup" => options.workgroup = number(&value()?)?,
                "--listing" => options.listing = Some(value()?),
                "--wgsl" => options.wgsl = Some(value()?),
                "--entry" => options.entry = value()?,
                "--loaded" => options.loaded = number(&value()?)?,
                "--through" => options.through = list(&value()?),
                "--through-most" => options.through_most = number(&value()?)?,
                "--elements" => options.elements = number(&value()?)?,
                _ => return Err(format!("no such option: {flag}\n{HELP}")),
            }
        }
        Ok(options)
    }

    /// The shaders asked for.
    pub(crate) fn shaders(&self) -> Result<Vec<Shader>, String> {
        if let Some(file) = &self.wgsl {
            return Ok(vec![self.own(file)?]);
        }
        let chosen = |list: &[String], name: &str| list.is_empty() || list.iter().any(|own| own == name);
        let mut all = shaders(self.workgroup, &self.slots);
        all.retain(|shader| {
            chosen(&self.kernels, shader.kernel)
                && (shader.norm.is_empty() || chosen(&self.norms, &shader.norm))
                && shader.dtype.is_none_or(|dtype| chosen(&self.types, &dtype.to_string()))
                && (!self.plain || shader.plain)
        });
        if all.is_empty() { Err("no such shader".into()) } else { Ok(all) }
    }

    fn own(&self, file: &str) -> Result<Shader, String> {
        let wgsl = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        let stem = std::path::Path::new(file).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let parsed = crate::translate::Parsed::new(&wgsl, &self.entry)?;
        Ok(Shader {
            kernel: "-",
            norm: String::new(),
            dtype: None,
            slots: 1,
            plain: true,
            apart: stem.unwrap_or_default(),
            entry: self.entry.clone().leak(),
            groups: parsed.groups(),
            trusted: self.trusted,
            elements: Some(self.elements).filter(|&n| n > 0),
            loaded: self.loaded,
            held: self.loaded,
            through: self.through.iter().map(|name| &*name.clone().leak()).collect(),
            through_most: self.through_most,
            wgsl,
        })
    }
}
