//! Files that nobody wrote: whatever the bytes, reading ends in a value or an error, and what is
//! accepted is written back byte for byte. `PROPTEST_CASES=1000000` tries more than the default.

use std::path::Path;

use gradclip::{Clip, Session, Target};
use proptest::prelude::*;

use super::source::Source;
use super::{Set, Shard};
use crate::job::Job;
use crate::output::{self, OutType};

/// Inputs tried by default: a few seconds.
const CASES: u32 = 4000;

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A set of one file with these bytes.
fn set(bytes: &[u8]) -> Result<Set, String> {
    let shard = Shard::of("in".into(), "in".into(), None, Source::Given(bytes.into()));
    Set::of_one(shard.map_err(|(_, problem)| problem)?)
}

/// The property itself.
fn read(bytes: &[u8]) -> Result<(), TestCaseError> {
    let failed = |error: String| TestCaseError::fail(error);
    let first = set(bytes);
    let second = set(bytes);
    prop_assert_eq!(first.as_ref().err(), second.as_ref().err(), "the same words every time");
    let Ok(set) = first.inspect_err(|error| assert!(!error.contains('\n'), "{error}")) else { return Ok(()) };
    let session = Session::open(&Target::Cpu).map_err(|error| failed(error.to_string()))?;
    let clip = Clip::measure();
    let done = Job::measure(&set, &clip).run(&session);
    let mut done = done.map_err(|error| failed(error.to_string()))?;
    prop_assert_eq!(done.report.tensors.len(), set.gradients.len());
    let mut written = Vec::new();
    let out = output::write(&set, 0, done.clipped.as_clipped(), OutType::Same, &mut written);
    out.map_err(|error| failed(error.to_string()))?;
    prop_assert_eq!(&written[..], bytes);
    Ok(())
}

fn with_header(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (0u64..40).prop_map(|n| n.to_string()),
        1 => any::<u64>().prop_map(|n| n.to_string()),
        1 => any::<i64>().prop_map(|n| n.to_string()),
        1 => Just("1e300".to_owned()),
        1 => Just("null".to_owned()),
    ]
}

/// Headers of the right form with numbers that may be anything.
fn header() -> impl Strategy<Value = String> {
    let dtype = prop::sample::select(vec!["F32", "F16", "BF16", "F64", "I8", "BOOL", "F8_E4M3", "f32", ""]);
    let name = prop::sample::select(vec!["a", "b", "__metadata__", "", "é\\u0000", "a.b"]);
    let entry = (name, dtype, prop::collection::vec(number(), 0..4), number(), number()).prop_map(
        |(name, dtype, shape, begin, end)| {
            let shape = shape.join(",");
            format!(r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{begin},{end}]}}"#)
        },
    );
    prop::collection::vec(entry, 0..4).prop_map(|entries| format!("{{{}}}", entries.join(",")))
}

fn valid() -> Vec<u8> {
    let header = br#"{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"h":{"dtype":"F16","shape":[3],"data_offsets":[24,30]},"__metadata__":{"k":"v"}} "#;
    with_header(header, &(0..30).collect::<Vec<u8>>())
}

#[test]
fn the_file_that_others_are_made_of_is_accepted() {
    assert!(set(&valid()).is_ok_and(|set| set.gradients.len() == 2 && set.files[0].path == Path::new("in")));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), length in 0u64..300, given in any::<bool>()) {
        let mut bytes = bytes;
        if given && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(&length.to_le_bytes());
        }
        read(&bytes)?;
    }

    #[test]
    fn any_numbers_in_the_header(header in header(), data in prop::collection::vec(any::<u8>(), 0..80)) {
        read(&with_header(header.as_bytes(), &data))?;
    }

    #[test]
    fn a_file_with_bytes_changed_removed_and_added(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = valid();
        for (at, byte, what) in changes {
            let at = at.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => {
                    bytes.remove(at);
                }
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read(&bytes)?;
    }
}
