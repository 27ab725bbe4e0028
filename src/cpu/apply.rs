//! outcome -> gradients, in place: the twin of `shaders/apply.wgsl` and `shaders/apply_units.wgsl`.

mod product;
mod run;
mod short;

use crate::layout::Outcome;
use crate::segments::UnitView;

use super::element::Element;

pub(crate) use run::apply;

/// Applies to each element, the first of them element `first` of its tensor, the outcome of its unit.
pub(crate) fn apply_units<T: Element>(elements: &mut [T], first: u64, view: &UnitView, outcomes: &[Outcome]) {
    if view.kept.low.stride < short::LONG {
        return short::apply_short(elements, first, view, outcomes);
    }
    for (run, unit) in view.runs(first, elements.len()) {
        apply(&mut elements[run], &outcomes[unit]);
    }
}
