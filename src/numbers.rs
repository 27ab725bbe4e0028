//! How norms are summed, why they have the same bits everywhere, and how far from exact they are.
//!
//! WGSL lets compilers reassociate `f32` additions, flush subnormals, and compute quotients and
//! roots to 2.5 ulp. Integer arithmetic is exact on every adapter. So everything from the elements'
//! bits to the coefficient is integer code. The last step is one `f32` multiplication an element,
//! which WGSL wants correctly rounded; where operand or result may be subnormal, which WGSL lets a
//! driver flush, it is integer code too.
//!
//! # The sum
//!
//! A tensor is cut into *chunks* of 16,384 elements counted from its own start, a chunk into 1,024
//! *columns* of 16: element `r * 1024 + c` is row `r` of column `c`. Write the magnitude of a
//! finite `f32` as `m * 2^(e - 150)` with `e` its exponent field, or 1 for a subnormal, and `m` its
//! mantissa of 24 bits. Let `E` be the largest `e` of a column.
//!
//! 1. L2: each element becomes `q = floor(m * 2^4 / 2^(E - e))`, at most 28 bits, in units of
//!    `2^(E - 154)`. With `q = h * 2^14 + l` the column's sums of `h^2`, `h * l` and `l^2` fit 32
//!    bits each, and give its sum of `q^2` exactly, which is kept divided by `2^8`.
//!    L1: `q = floor(m * 2^8 / 2^(E - e))`, at most 32 bits, in units of `2^(E - 158)`; the column's
//!    sum of `q` is exact, and kept times `2^16`.
//! 2. Columns are aligned to the chunk's largest `E` by dropping low bits, and added, in 64 bits. In
//!    the same way chunks make a tensor and tensors a segment, in 96 bits, 8 of them below those of
//!    a chunk.
//!
//! A maximum and a sum of integers do not depend on the order of their operands. Hence neither the
//! workgroup size, nor the driver, nor the order or placing of tensors can change a bit; and since
//! chunks are counted from each tensor's start, neither can the buffers they lie in.
//!
//! The infinity norm is the largest magnitude's bits. Any other p is summed in floating point
//! relative to the largest element: it neither overflows nor underflows, but is not promised to the
//! bit.
//!
//! # The error of the L2 norm
//!
//! Everything dropped is dropped downwards.
//!
//! * `m * 2^4` keeps `q` exact for `E - e <= 4`. A smaller element has `q < 2^23`, loses less than
//!   1, and its square less than `2^24`. The largest element alone contributes at least `2^54`
//!   (subnormal columns lose nothing), so fifteen such losses are below `15 * 2^24 / 2^54 < 2^-26`
//!   of the column's sum, whatever its other elements are.
//! * Dividing by `2^8` loses less than `2^-46` of a column whose largest element is normal, and
//!   nothing where all are subnormal. Aligning a column loses less than one unit of the chunk's grid,
//!   `2^-46` of its largest column: `2^-36` for 1,023 of them. Aligning chunks and tensors loses
//!   less than `2^-54` of the largest for each: `2^-28` for 2^26 chunks, the most there can be.
//!
//! The sum of squares is less than `1.26 * 2^-26` too small, the norm `1.26 * 2^-27`, and below 2^24
//! chunks (2.7e11 elements) `1.1 * 2^-27`: 0.14 of an `f32` ulp at the worst mantissa. With the one
//! rounding to nearest, half an ulp, the norm is within 0.65 ulp.
//!
//! # The error of the L1 norm
//!
//! Fifteen elements lose less than `2^-31` of the largest each, `2^-27` together. A column is at
//! least `2^47`, so aligning 1,023 of them loses less than `2^-37`; chunks and tensors as above. The
//! bound is the same.
//!
//! # Norm, coefficient, factor
//!
//! The root is an integer root of 32 bits with a sticky bit. It is multiplied by the unscale factor, of
//! which product 32 bits are kept, and rounded to nearest-even to an `f32` whose exponent has no upper end:
//! exactly once where the factor is a power of two, else by at most 0.507 ulp together. A norm above
//! `f32::MAX` is kept as mantissa and exponent, is reported as the `f64` it is, and clips rightly.
//! Norm and threshold are compared as these numbers, so that *clipped* means exactly what the
//! report shows. The coefficient is the quotient threshold / norm, rounded to nearest-even; with an
//! eps, the sum norm + eps is rounded first, as PyTorch's is.
//!
//! An element whose product with the unscale factor rounds to an infinite `f32` is not finite: it counts
//! as an infinite one does for [`NonFinite`](crate::NonFinite). The largest magnitude that is finite is
//! computed once, by integers, and compared with every element's bits. Results of finite elements are
//! finite: what would exceed the largest value of its type becomes that.
//!
//! # Norms that are never above their limit
//!
//! Under [`Clip::never_above`](crate::Clip::never_above) the norm that is compared and divided by is an
//! upper bound of the exact one: the root, of which at most `1.26 * 2^-27` is missing, enlarged by `2^-26`,
//! times the unscale factor, rounded up to 24 bits. Limits, coefficients and factors are rounded down,
//! products towards zero, to the element's own type. So the norm of the result is at most
//! `factor * norm <= C` in exact arithmetic, and not below `C (1 - 5 * 2^-23)` but for what 16-bit elements
//! lose. A norm of exactly C counts as above it, unless it is an infinity norm: sums do not tell whether
//! they lost bits.
//!
//! # Elements
//!
//! An element is multiplied by the coefficient times the unscale factor, and rounded once to
//! nearest-even, also where that factor is below `2^-126` and where the result is subnormal. 16-bit
//! elements are multiplied as `f32` and rounded once more by integer code, ties to even. So clipped
//! gradients, too, have the same bits on every driver tried and on the CPU.
//!
//! # Sets with `f64`
//!
//! A set in which a tensor is of `f64` is measured in wider integers, on the CPU path alone; its `f32`, `f16`
//! and `bf16` elements are `f64` values. Norms of type 1, 2 and infinity have the same bits whatever the
//! number of threads and the order of the tensors. They are within **0.51 ulp** of exact, as `f64`:
//!
//! * A block of 1,024 elements, with `E` its largest exponent and mantissas of 53 bits, has
//!   `q = floor(m * 2^10 / 2^(E - e))` for L2, at most 63 bits. An element that loses bits has `q < 2^53`, and
//!   its square loses less than `2^54` of at least `2^124`: 1,023 of them `2^-60`. L1 has `m * 2^60`, and
//!   loses `2^-102`.
//! * Sums of blocks are added as digits of 32 bits on a fixed grid, of which the four highest are kept:
//!   `2^-96` is lost with each of up to `2^32` blocks, and again with each tensor.
//! * The norm before rounding is less than `2^-60.8` too small, with the product by the unscale factor
//!   `2^-60`: 2^-7 ulp at the worst mantissa. Then follows one rounding to nearest-even, half an ulp.
//!
//! Norm, threshold, coefficient and factor have 53 bits and exponents without an end: a norm above
//! `f64::MAX` clips rightly, and is reported as infinite with no element counted as not finite. An element
//! becomes its product with the factor, rounded once to its own type and never beyond the largest finite
//! value. Adaptive thresholds and loss scaling, which remember norms as `f32`, are refused.
