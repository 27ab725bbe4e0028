fn adapt_all(lane: u32) {}
