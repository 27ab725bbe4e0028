//! What checks `gradclip`: where inputs come from, what they should become in `f64`, and how results are compared.
//!
//! `gradclip verify`, the tests and the benches share it. Data flows one way: [`inputs`] are a [`tensor`] or more and a clip, [`oracle`] says
//! what becomes of them, [`check`] runs the CPU path or a [`gpu`] and compares, [`tally`] adds up what was found. How far off a result may be
//! is in [`tolerance`], with its reason; how much is checked, in [`budget`]. [`golden`] makes one number of a fixed corpus.
//!
//! In browsers there is what does not wait: the names that end in `_async`, [`golden`], and all that needs no device.
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
pub mod golden;
pub mod gpu;
pub mod inputs;
pub mod oracle;
pub mod sets;
pub mod tally;
pub mod tensor;
pub mod tolerance;

pub use failure::Failure;
