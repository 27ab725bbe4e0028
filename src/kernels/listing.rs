//! Every shader the library can make, as text: for tests, and for `benches/isa.rs`, which shows them to compilers.
//! Not part of the library's promises.

use crate::clip::Summation;
use crate::layout::{ADAPT_NONE, CHUNK};
use crate::plan::Pattern;
use crate::tensor::{DType, Precision};

use super::form::{FORMS, Form, Loads};
use super::kernel::{Binding, Kernel};
use super::row::Norms;
use super::table::TABLE;
use super::variant::Variant;

/// Buffers that a dispatch binds at most besides its tables.
const MOST_BINDINGS: u32 = 30;

/// Those summed in integers first.
const NORMS: [Summation; 4] =
    [Summation::One, Summation::Two, Summation::Inf, Summation::P(2.5f32.to_bits())];
const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// How a shader uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `var<uniform>`
    Uniform,
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
}

/// A shader, with what has to be known to compile it and to read its figures.
#[derive(Clone, Debug)]
pub struct Shader {
    /// Stem of its file in `shaders/`.
    pub kernel: &'static str,
    /// `1`, `2`, `inf` or a p; empty where the text does not depend on it.
    pub norm: String,
    /// Type of the gradients, for kernels that touch them.
    pub dtype: Option<DType>,
    /// Slots a dispatch; 0 for kernels that touch no gradients.
    pub slots: u32,
    /// Whether it is the first of its kernel, norm, type and slots: fixed thresholds, no loss scale, every buffer in
    /// a binding of its own.
    pub plain: bool,
    /// What else sets variants of one kernel apart: `adapt 3`, `scaled`, `bindings 0112`.
    pub apart: String,
    /// The text.
    pub wgsl: String,
    /// Name of the entry point.
    pub entry: &'static str,
    /// Buffers of each bind group in order; the tables are group 0, the slots group 1.
    pub groups: Vec<Vec<Bound>>,
    /// Whether the library leaves out wgpu's checks of indices and counters of loops where nothing else is asked for.
    pub trusted: bool,
    /// Elements that an invocation sees of a whole chunk, where that is a fixed number.
    pub elements: Option<u32>,
    /// Bytes of the slots that an invocation loads for an element, as the kernel is written.
    pub loaded: u32,
    /// Bytes of the slots that belong to an element, of those that are loaded.
    pub held: u32,
    /// How the names of machine instructions begin that the common case goes through, where others are cheaper, and
    /// how many of them count.
    pub through: Vec<&'static str>,
    /// See `through`.
    pub through_most: u32,
}

/// Every shader that can be made at this workgroup size, with these numbers of slots. What slots do not change
/// (scaled losses, shared bindings) is listed once, with the first of them.
pub fn shaders(workgroup_size: u32, slots: &[u32]) -> Vec<Shader> {
    every(workgroup_size, slots).iter().map(Shader::new).collect()
}

/// The variants behind [`shaders`].
pub(crate) fn every(workgroup_size: u32, slots: &[u32]) -> Vec<Variant> {
    let mut all = Vec::new();
    for row in TABLE {
        let kinds = match row.norms {
            Norms::Same => &[Summation::Two],
            Norms::Integer => &NORMS[..3],
            Norms::All => &NORMS[..],
        };
        for &summation in kinds {
            let plain = Variant {
                kernel: row.kernel,
                summation,
                dtype: DType::F32,
                slots: 0,
                workgroup_size,
                adapt: row.rules.first().copied().unwrap_or(ADAPT_NONE),
                pattern: Pattern::default(),
                scaled: false,
                form: Form::default(),
                advances: false,
            };
            match row.slots {
                Some(_) => all.extend(with_slots(plain, slots)),
                None if row.rules.is_empty() => all.push(plain),
                None => all.extend(row.rules.iter().flat_map(|&adapt| with_rule(plain, adapt))),
            }
        }
    }
    all
}

fn with_rule(plain: Variant, adapt: u32) -> impl Iterator<Item = Variant> {
    let known = Variant { adapt, ..plain };
    let advances = plain.kernel.finishes().then_some(Variant { advances: true, ..known });
    std::iter::once(known).chain(advances)
}

fn with_slots(plain: Variant, slots: &[u32]) -> Vec<Variant> {
    let kernel = plain.kernel;
    let mut all = Vec::new();
    for dtype in DTYPES {
        if (kernel, dtype) == (Kernel::Seams, DType::F32) {
            continue; // words are never shared
        }
        // Its one dispatch binds one window; kernels with slots to spare are for others.
        let slots = if kernel.finishes() { &slots[..1] } else { slots };
        for (i, &wanted) in slots.iter().enumerate() {
            let patterns = match kernel.row().operands {
                1 => vec![Pattern::apart(1)],
                operands if i > 0 => vec![Pattern::apart(operands)],
                operands => [Pattern::every(operands), kept_otherwise(kernel, operands)].concat(),
            };
            for pattern in patterns {
                let slots = wanted.min(MOST_BINDINGS / pattern.bindings() as u32);
                let variant = Variant { dtype, slots, pattern, ..plain };
                let forms = FORMS
                    .into_iter()
                    .skip(1)
                    .filter(|&form| kernel.form(variant.summation, form) == form && is_apart(&variant));
                for form in std::iter::once(variant.form).chain(forms) {
                    all.push(Variant { form, ..variant });
                    if kernel.reduces() && i == 0 {
                        // A loss scale follows from the step, where that is finished.
                        all.push(Variant { form, scaled: true, advances: kernel.finishes(), ..variant });
                    }
                    if kernel.finishes() {
                        all.push(Variant { form, advances: true, ..variant });
                    }
                }
            }
        }
    }
    all
}

/// Where an optimiser's parameters have 16 bits, or are rows of a table.
fn kept_otherwise(kernel: Kernel, operands: usize) -> Vec<Pattern> {
    // These have no parameter.
    if matches!(kernel, Kernel::Accumulate | Kernel::PrivateSum | Kernel::PrivateRelease) {
        return Vec::new();
    }
    let all = [Precision::Mixed(DType::Bf16), Precision::Mixed(DType::F16), Precision::Stochastic];
    let all = all.map(|precision| Pattern::apart(operands).keeping(precision));
    // No factor follows from some rows of a tensor.
    let measures = matches!(kernel, Kernel::MeasureAdam | Kernel::MeasureLars);
    let rows: &[Pattern] = if measures { &[] } else { &[Pattern::apart(operands).by_rows()] };
    [&all[..], rows].concat()
}

impl Shader {
    fn new(variant: &Variant) -> Shader {
        let Variant { kernel, dtype, slots, pattern, .. } = *variant;
        let bound = |bindings: &[Binding]| bindings.iter().map(|&b| Bound::from(b)).collect::<Vec<_>>();
        let mut groups = vec![bound(&variant.bindings())];
        if let Some(access) = kernel.slots() {
            groups.push(bound(&vec![access; slots as usize * pattern.bindings().max(1)]));
        }
        // Beside a master a parameter in 16 bits is only written, but where the master is 0.
        let half = if pattern.precision() == Precision::Stochastic { 2 } else { 0 };
        let (own, updated) = (dtype.size() as u32, 4 * (kernel.row().operands as u32 - 1));
        let (through, through_most) = through(variant);
        Shader {
            kernel: kernel.stem(),
            norm: if kernel.has_norm() { norm(variant.summation) } else { String::new() },
            dtype: kernel.slots().map(|_| dtype),
            slots,
            plain: is_plain(variant),
            apart: apart(variant),
            wgsl: variant.source(),
            entry: kernel.entry(),
            groups,
            trusted: variant.needs_no_checks(),
            elements: kernel.row().takes_chunks.then(|| CHUNK / variant.workgroup_size),
            loaded: if word_by_word(variant) { own } else { 4 } + updated,
            held: own + updated - half,
            through: through.to_vec(),
            through_most,
        }
    }
}

impl From<Binding> for Bound {
    fn from(binding: Binding) -> Bound {
        match binding {
            Binding::Uniform => Bound::Uniform,
            Binding::Read => Bound::Read,
            Binding::ReadWrite => Bound::ReadWrite,
        }
    }
}

fn norm(summation: Summation) -> String {
    match summation {
        Summation::One => "1".into(),
        Summation::Two => "2".into(),
        Summation::Inf => "inf".into(),
        Summation::P(bits) => f32::from_bits(bits).to_string(),
    }
}

fn apart(variant: &Variant) -> String {
    let mut words = Vec::new();
    if variant.kernel.has_rule() {
        words.push(format!("adapt {}", variant.adapt));
    }
    match variant.form.loads {
        Loads::Few => {}
        Loads::Words if variant.kernel.has_quads(variant.summation, variant.form) => {
            words.push("quads".into())
        }
        Loads::Words => words.push("words".into()),
        Loads::Vectors => words.push("vectors".into()),
    }
    if variant.form.full_multiply {
        words.push("32-bit products".into());
    }
    if variant.form.stays {
        words.push("staying".into());
    }
    if variant.advances {
        words.push("advances".into());
    }
    if variant.scaled {
        words.push("scaled".into());
    }
    if variant.kernel.is_fused() {
        let digits: String = variant.pattern.binding_of().map(|b| b.to_string()).collect();
        words.push(format!("bindings {digits}"));
        if variant.pattern.is_by_rows() {
            words.push("rows of a table".into());
        }
        match variant.pattern.precision() {
            Precision::Single => {}
            Precision::Mixed(dtype) => words.push(format!("parameter {dtype}, master")),
            Precision::Stochastic => words.push("parameter bf16".into()),
        }
    }
    words.join(", ")
}

/// Whether a kernel loads a word of gradients once for all elements in it; others load the whole word for each.
fn word_by_word(variant: &Variant) -> bool {
    (variant.form.loads != Loads::Few && !variant.kernel.has_quads(variant.summation, variant.form))
        || (variant.kernel.slots() == Some(Binding::ReadWrite) && !variant.kernel.is_fused())
}

/// The common case by its instructions: all squares of a chunk are summed, all powers taken; an outcome that
/// fills or keeps is cheaper than one that multiplies.
fn through(variant: &Variant) -> (&'static [&'static str], u32) {
    match variant.summation {
        _ if !variant.kernel.reduces() => (&["v_mul_f32"], 1),
        Summation::Two => (&["v_mul_", "v_mad_", "v_dot"], u32::MAX),
        Summation::P(_) => (&["v_exp_f32", "v_log_f32"], u32::MAX),
        Summation::One | Summation::Inf => (&[], 0),
    }
}

fn is_plain(variant: &Variant) -> bool {
    let Variant { kernel, adapt, scaled, form, advances, pattern, .. } = *variant;
    let first_rule = kernel.row().rules.first().is_none_or(|&first| first == adapt);
    let single = pattern.precision() == Precision::Single;
    first_rule && !scaled && !advances && single && form == Form::default() && is_apart(variant)
}

/// Whether each buffer has a binding of its own.
fn is_apart(variant: &Variant) -> bool {
    let apart = Pattern::apart(variant.kernel.row().operands);
    !variant.kernel.is_fused() || variant.pattern == apart.keeping(variant.pattern.precision())
}
