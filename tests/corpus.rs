//! One hash of all that clips make of a fixed corpus, on the CPU path and on adapters. FORMAT.md defines it; tests/reference.py was written from that
//! page alone, and has the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use gradclip::{Session, Target, cpu};
use gradclip_verify::{corpus, tensor};

#[test]
fn the_cpu_path_has_the_hash() {
    let hash =
        corpus::hash(|tensors, clip, history| cpu::clip_with(&mut tensor::grads(tensors), clip, history));
    assert_eq!(format!("{:016x}", hash.unwrap()), format!("{:016x}", corpus::EXPECTED));
}

#[test]
fn the_adapter_has_the_hash() {
    if common::gpu().is_none() {
        return;
    }
    let session = Session::open(&Target::Gpu).unwrap();
    let hash =
        corpus::hash(|tensors, clip, history| session.clip_with(&mut tensor::grads(tensors), clip, history));
    assert_eq!(format!("{:016x}", hash.unwrap()), format!("{:016x}", corpus::EXPECTED));
}

/// What tests/reference.py is given.
#[test]
fn the_page_states_the_hash() {
    let page = include_str!("../FORMAT.md");
    assert!(page.ends_with(&format!("It is **0x{:016x}**.\n", corpus::EXPECTED)));
}
