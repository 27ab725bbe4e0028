// What an outcome does to a word, which is one element.

fn applied_word(word: u32, outcome: Outcome) -> u32 {
    return applied(word, outcome);
}

fn applied_pair(word: u32, low: Outcome, high: Outcome) -> u32 {
    return applied(word, low);
}
