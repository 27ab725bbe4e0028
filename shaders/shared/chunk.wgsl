// What kernels that read gradients chunk by chunk have in common.

//@each slot
@group(1) @binding(SLOT) var<storage, read> slot_SLOT: array<u32>;
//@end

//@each slot
// Indices past the end read the last element, which `magnitude_within` then replaces by 0.
fn at_SLOT(start: u32, i: u32, last: u32) -> u32 {
    let element = start + min(i, last);
    return magnitude_within(slot_SLOT[word_of(element)], element, i <= last);
}
//@end

fn magnitude_within(word: u32, element: u32, inside: bool) -> u32 {
    return select(0u, element_bits(word, element) & 0x7fffffffu, inside);
}

fn fetch_single(slot: u32, start: u32, column: u32, last: u32) -> u32 {
    switch slot {
        //@each slot
        case SLOTu: {
            return at_SLOT(start, column, last);
        }
        //@end
        default: {
            return 0u;
        }
    }
}
