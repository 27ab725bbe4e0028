// Values of entries, which lie in windows of one size.

//@each slot
@group(1) @binding(SLOT) var<storage, read> slot_SLOT: array<u32>;
//@end

fn value_word(word: u32) -> u32 {
    let place = word & ((1u << sizes.window_bits) - 1u);
    switch word >> sizes.window_bits {
        //@each slot
        case SLOTu: {
            return slot_SLOT[place];
        }
        //@end
        default: {
            return 0u;
        }
    }
}

// As bits of f32.
fn value_of(entry: u32, column: u32) -> u32 {
    let element = sizes.first_value + entry * sizes.width + column;
    return element_bits(value_word(word_of(element)), element);
}

// What the entries of a list add up to in a column. One alone keeps its bits.
fn sum_of(first: u32, end: u32, column: u32) -> u32 {
    if end - first == 1u {
        return value_of(entries[first], column);
    }
    var values = NO_VALUES;
    for (var i = first; i < end; i++) {
        values = with_value(values, value_of(entries[i], column));
    }
    if !is_sum_finite(values) {
        return sum_not_finite(values);
    }
    let field = field_of(max(values.top.x, values.top.y));
    var sum = U96(0u, 0u, 0u);
    for (var i = first; i < end; i++) {
        sum = with_term(sum, value_of(entries[i], column), field);
    }
    return rounded_sum(sum, field, values);
}
