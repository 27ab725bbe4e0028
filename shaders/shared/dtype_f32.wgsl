// Elements of 4 bytes: one a word.

fn word_of(element: u32) -> u32 {
    return element;
}

fn element_bits(word: u32, element: u32) -> u32 {
    return word;
}

fn first_whole_word(start: u32) -> u32 {
    return start;
}

fn end_whole_word(end: u32) -> u32 {
    return end;
}

const PER_WORD: u32 = 1u;

fn first_of_word(word: u32) -> u32 {
    return word;
}
