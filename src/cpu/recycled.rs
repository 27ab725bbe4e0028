//! Room that vectors of references leave to those of the next step.

/// An empty vector of other elements in the same place: what one step leaves, the next one fills.
pub(super) fn recycled<T, U>(mut vector: Vec<T>) -> Vec<U> {
    vector.clear();
    // The standard library collects in place where elements have the same size.
    vector.into_iter().filter_map(|_| None).collect()
}
