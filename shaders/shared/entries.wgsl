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

// What is known of the values in a column of the entries in these places of lists.
fn values_of(first: u32, end: u32, column: u32) -> Values {
    var values = NO_VALUES;
    for (var i = first; i < end; i++) {
        values = with_value(values, value_of(entries[i], column));
    }
    return values;
}

// Their sum, where all are finite.
fn sum_of(first: u32, end: u32, column: u32, field: u32) -> U96 {
    var sum = U96(0u, 0u, 0u);
    for (var i = first; i < end; i++) {
        sum = with_term(sum, value_of(entries[i], column), field);
    }
    return sum;
}
