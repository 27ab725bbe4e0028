// Corrections that are Adam's alone.
fn further_corrections() {}
