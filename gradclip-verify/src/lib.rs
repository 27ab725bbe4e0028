//! What checks `gradclip`: where inputs come from, what they should become in `f64`, and how results are compared.
//!
//! `gradclip verify`, the tests and the benches share it. Data flows one way: [`inputs`] are tensors and a clip, [`oracle`] says what
//! becomes of them, [`check`] runs the CPU path or an adapter and compares, [`tally`] adds up what was found.
//!
//! ```
//! use gradclip_verify::check::Checks;
//!
//! let checks = Checks::all();
//! assert!(checks.count(false) > 100);
//! ```

pub mod budget;
pub mod check;
pub mod compare;
mod failure;
pub mod gpu;
pub mod inputs;
pub mod oracle;
pub mod sets;
pub mod tally;
pub mod tensor;
pub mod tolerance;

pub use failure::Failure;
