// Where no limit adapts, and nothing is remembered of it.

fn adapt_setting(setting: ptr<function, Setting>, limit: u32) {}

fn count_for_limit(out: Outcome, limit: u32) {}
