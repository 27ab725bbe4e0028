// Elements of 2 bytes: two a word, the even one in the low half.

fn word_of(element: u32) -> u32 {
    return element >> 1u;
}

fn half_of(word: u32, element: u32) -> u32 {
    return select(word & 0xffffu, word >> 16u, (element & 1u) == 1u);
}

fn element_bits(word: u32, element: u32) -> u32 {
    return half_to_f32(half_of(word, element));
}

fn first_whole_word(start: u32) -> u32 {
    return (start + 1u) >> 1u;
}

fn end_whole_word(end: u32) -> u32 {
    return end >> 1u;
}

const PER_WORD: u32 = 2u;

fn first_of_word(word: u32) -> u32 {
    return word << 1u;
}
