// The words of a run, sixteen an invocation and turn, each element with the outcome of its own unit.

// The run, where an invocation is in it, and its ways from word to word and from a word's lower element to the upper one.
struct Walk {
    row: MapRow,
    place: Place,
    by: Place,
    within: Place,
}

// What multiplies the elements of four words, of 16 bits the lower ones and the upper ones; what is kept is multiplied with 1.
struct Factors {
    low: vec4<u32>,
    high: vec4<u32>,
}

fn segment_at(row: MapRow, place: Place) -> u32 {
    return row.segment + place.low + place.high * row.kept;
}

// Of the upper element of the word whose lower one is there.
fn segment_after(row: MapRow, place: Place, within: Place) -> u32 {
    if PER_WORD == 1u {
        return segment_at(row, place);
    }
    return segment_at(row, moved(row, place, within));
}

// A factor that float code does not multiply with counts as 0.
fn factor(outcome: Outcome) -> u32 {
    if outcome.action == KEEP {
        return ONE_BITS;
    }
    return select(0u, outcome.scale, outcome.action == MULTIPLY && outcome.rescale == ONE_BITS);
}

// Of the next four words.
fn next_four(walk: ptr<function, Walk>) -> Factors {
    var f: Factors;
    for (var k = 0u; k < 4u; k++) {
        f.low[k] = factor(outcomes[segment_at((*walk).row, (*walk).place)]);
        f.high[k] = f.low[k];
        if PER_WORD == 2u {
            f.high[k] = factor(outcomes[segment_after((*walk).row, (*walk).place, (*walk).within)]);
        }
        (*walk).place = moved((*walk).row, (*walk).place, (*walk).by);
    }
    return f;
}

// The factors of sixteen words.
struct All {
    a: Factors,
    b: Factors,
    c: Factors,
    d: Factors,
}

// Words past the end are the first again.
fn with_first(f: Factors, first: Factors, inside: vec4<bool>) -> Factors {
    return Factors(select(vec4(first.low.x), f.low, inside), select(vec4(first.high.x), f.high, inside));
}

fn product_by(words: vec4<u32>, f: Factors) -> vec4<u32> {
    return product_of(words, bitcast<vec4<f32>>(f.low), bitcast<vec4<f32>>(f.high));
}

fn products_of(words: Sixteen, f: All) -> Sixteen {
    return Sixteen(
        product_by(words.a, f.a), product_by(words.b, f.b), product_by(words.c, f.c), product_by(words.d, f.d)
    );
}

fn least_factor(f: Factors) -> vec4<u32> {
    return min(f.low, f.high);
}

fn largest_factor(f: Factors) -> vec4<u32> {
    return max(f.low, f.high);
}

struct Range {
    least: u32,
    largest: u32,
}

fn range_of(f: All) -> Range {
    let least = min(min(least_factor(f.a), least_factor(f.b)), min(least_factor(f.c), least_factor(f.d)));
    let largest = max(max(largest_factor(f.a), largest_factor(f.b)), max(largest_factor(f.c), largest_factor(f.d)));
    return Range(smallest_of(least), largest_of(largest));
}

// Whatever outcomes and elements are.
fn apply_any(row: MapRow, slot: u32, first: u32, end: u32) {
    for (var i = first; i < end; i += WORKGROUP) {
        let place = place_of(row, row.first + (first_of_word(i) - row.start));
        let low = outcomes[segment_at(row, place)];
        let high = outcomes[segment_after(row, place, place_of(row, PER_WORD - 1u))];
        if low.action != KEEP || high.action != KEEP {
            put_one(slot, i, applied_pair(get_one(slot, i), low, high));
        }
    }
}

fn apply_row(row: MapRow, lane: u32) {
    let slot = row.slot_len >> LEN_BITS;
    let end = end_whole_word(row.start + (row.slot_len & ((1u << LEN_BITS) - 1u)));
    let begin = first_whole_word(row.start) + lane;
    var walk = Walk(
        row, place_of(row, row.first + (first_of_word(begin) - row.start)),
        place_of(row, PER_WORD * WORKGROUP), place_of(row, PER_WORD - 1u)
    );
    for (var first = begin; first < end; first += 16u * WORKGROUP) {
        let i = sixteen_from(first, end);
        // Only the first word lies at its own index and at those of words past the end.
        let again = vec4(first);
        let a = next_four(&walk);
        let b = next_four(&walk);
        let c = next_four(&walk);
        let d = next_four(&walk);
        let all = All(
            with_first(a, a, i.a != again), with_first(b, a, i.b != again),
            with_first(c, a, i.c != again), with_first(d, a, i.d != again)
        );
        let range = range_of(all);
        if range.least == ONE_BITS && range.largest == ONE_BITS {
            continue; // without reading what is kept
        }
        let words = fetch(slot, i);
        let field = range.least >> 23u;
        if field > 0u && all_plain(words, field, range.largest >> 23u) {
            put(slot, i, products_of(words, all));
        } else {
            apply_any(row, slot, first, min(first + 16u * WORKGROUP, end));
        }
    }
}
