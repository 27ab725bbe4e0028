// Words that are 0 at first: of each column the largest magnitudes of values that are not negative and of those that are, the bits
// that not all have, and the sum.
struct LongSum {
    top: array<atomic<u32>, 2>,
    not_in_all: atomic<u32>,
    sum: array<atomic<u32>, 3>,
}
