// The largest finite magnitude of an invocation's elements, and how many are not finite.
struct Seen {
    top: u32,
    non_finite: u32,
    nan: u32,
}
