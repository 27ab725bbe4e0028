//! How kernels are written for a device.

use crate::clip::Summation;

/// How a kernel reads gradients chunk by chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Loads {
    /// As software adapters do it fastest: few loads and little code at a time.
    #[default]
    Few,
    /// All loads of a turn in flight, word by word.
    Words,
    /// All loads of a turn in flight, by whole vectors.
    Vectors,
}

/// What a kernel that takes whole chunks is written for. Every form has the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    pub(crate) loads: Loads,
    /// Whether a product of 32-bit words is as fast as one of 24 bits.
    pub(crate) full_multiply: bool,
    /// Whether workgroups stay for more than one chunk.
    pub(crate) stays: bool,
}

/// The forms that there are.
pub(crate) const FORMS: [Form; 9] = {
    let few = Form { loads: Loads::Few, full_multiply: false, stays: false };
    let words = Form { loads: Loads::Words, ..few };
    let vectors = Form { loads: Loads::Vectors, ..few };
    [
        few,
        vectors,
        words,
        Form { full_multiply: true, ..vectors },
        Form { full_multiply: true, ..words },
        Form { stays: true, ..vectors },
        Form { stays: true, ..words },
        Form { full_multiply: true, stays: true, ..vectors },
        Form { full_multiply: true, stays: true, ..words },
    ]
};

const WORDS: Form = Form { loads: Loads::Words, ..FORMS[0] };

/// For a kernel that exists in one form.
pub(super) fn one(_: Summation, _: Form) -> Form {
    Form::default()
}

/// For one that has loads in flight only word by word.
pub(super) fn by_words(_: Summation, wanted: Form) -> Form {
    if wanted.loads == Loads::Few { Form::default() } else { WORDS }
}

/// The same, for norms in integers alone.
pub(super) fn by_words_but_any_p(summation: Summation, wanted: Form) -> Form {
    if is_any_p(summation) { Form::default() } else { by_words(summation, wanted) }
}

/// For one with every kind of loads.
pub(super) fn by_loads(_: Summation, wanted: Form) -> Form {
    Form { loads: wanted.loads, ..Form::default() }
}

/// For the one that sums whole chunks; `full_multiply` matters for the squares of L2 alone.
pub(super) fn of_chunks(summation: Summation, wanted: Form) -> Form {
    match summation {
        _ if wanted.loads == Loads::Few => Form::default(),
        Summation::Two => wanted,
        Summation::One | Summation::Inf => Form { full_multiply: false, ..wanted },
        Summation::P(_) => by_words(summation, wanted),
    }
}

pub(super) fn is_any_p(summation: Summation) -> bool {
    matches!(summation, Summation::P(_))
}
