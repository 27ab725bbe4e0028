//! Sixteen `u32` lanes, as registers of whatever width the processor has.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod bits;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
mod operations;
#[cfg(any(test, not(any(target_arch = "aarch64", all(target_arch = "wasm32", target_feature = "simd128")))))]
mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) mod simd128;
#[cfg(test)]
mod tests;

pub(crate) use bits::{Bf16Bits, Bits, F16Bits, INFINITY_BITS, bf16_toward_zero, f16_toward_zero};
pub(crate) use operations::{ByLanes, LANES, Lanes, Line, toward_zero};
#[cfg(any(
    test,
    not(any(target_arch = "aarch64", all(target_arch = "wasm32", target_feature = "simd128")))
))]
pub(crate) use portable::Portable;

/// Runs work in the widest registers that the processor has.
pub(crate) fn by_lanes<W: ByLanes>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the features that the function is compiled for were just detected.
            return unsafe { avx512::run(work) };
        }
        if avx2::is_detected() {
            // SAFETY: as above.
            return unsafe { avx2::run(work) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    return work.run::<neon::Neon>();
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    return work.run::<simd128::Simd128>();
    #[cfg(not(any(target_arch = "aarch64", all(target_arch = "wasm32", target_feature = "simd128"))))]
    work.run::<Portable>()
}
