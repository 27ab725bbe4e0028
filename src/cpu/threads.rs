//! How threads share work: those of rayon's current pool, by halves, so that each goes through neighbours. Without the feature
//! `rayon` the calling thread does everything.

/// Threads that work is shared by.
pub(super) fn count() -> usize {
    #[cfg(feature = "rayon")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "rayon"))]
    1
}

/// Both, side by side where there are threads.
pub(super) fn join(a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
    #[cfg(feature = "rayon")]
    rayon::join(a, b);
    #[cfg(not(feature = "rayon"))]
    (a(), b());
}

/// Every item, by threads that take at least `at_once` neighbours each, unless there are fewer. `run` is given neighbours and
/// the index of the first.
pub(super) fn each<T: Send>(items: &mut [T], at_once: usize, run: &(impl Fn(usize, &mut [T]) + Sync)) {
    match count() {
        1 => run(0, items),
        _ => halves(0, items, at_once.max(1), run),
    }
}

fn halves<T: Send>(first: usize, items: &mut [T], at_once: usize, run: &(impl Fn(usize, &mut [T]) + Sync)) {
    let middle = items.len() / 2;
    if middle < at_once {
        return run(first, items);
    }
    let (before, after) = items.split_at_mut(middle);
    join(|| halves(first, before, at_once, run), || halves(first + middle, after, at_once, run));
}

/// What `of` makes of each index.
pub(super) fn map<T: Send + Clone>(
    filler: T,
    count: usize,
    at_once: usize,
    of: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let mut all = vec![filler; count];
    each(&mut all, at_once, &|first, own| (first..).zip(own).for_each(|(i, to)| *to = of(i)));
    all
}
