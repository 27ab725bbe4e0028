//! How threads share work: those of rayon's current pool, by halves, so that each goes through neighbours. Without the feature
//! `rayon` the calling thread does everything.

use crate::layout::CHUNK;

/// Sets of at most so many elements are not worth waking other threads for.
pub(super) const SEQUENTIAL: u64 = 1 << 17;

/// Threads that work is shared by.
pub(super) fn count() -> usize {
    #[cfg(all(feature = "rayon", not(target_arch = "wasm32")))]
    return rayon::current_num_threads();
    #[cfg(not(all(feature = "rayon", not(target_arch = "wasm32"))))]
    1
}

/// Both, side by side where there are threads.
pub(super) fn join(a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
    #[cfg(all(feature = "rayon", not(target_arch = "wasm32")))]
    rayon::join(a, b);
    #[cfg(not(all(feature = "rayon", not(target_arch = "wasm32"))))]
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

/// As [`each`], over items that are of so many elements together: by the calling thread where these are few, else by threads that
/// take about as many as a chunk has.
pub(super) fn share<T: Send>(items: &mut [T], elements: u64, run: &(impl Fn(usize, &mut [T]) + Sync)) {
    if elements <= SEQUENTIAL {
        return run(0, items);
    }
    each(items, (items.len() as u64 * u64::from(CHUNK) / elements).max(1) as usize, run);
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
