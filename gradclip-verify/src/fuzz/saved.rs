//! What was saved, from bytes that may be anything.

use gradclip::History;

/// What is read is the same after it was written and read again, to the byte. Says whether anything was.
///
/// # Panics
///
/// Where it is not.
pub fn round_trip<T>(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
    write: impl Fn(&T) -> Option<Vec<u8>>,
) -> bool {
    let Some(first) = read(bytes) else { return false };
    let written = write(&first);
    assert!(written.is_some(), "what was read cannot be written");
    let again = written.as_deref().and_then(read).and_then(|again| write(&again));
    assert!(again == written, "what was written is read as something else");
    true
}

pub(super) fn histories(bytes: &[u8]) -> bool {
    round_trip(bytes, |bytes| History::from_bytes(bytes).ok(), |history| Some(history.to_bytes()))
}
