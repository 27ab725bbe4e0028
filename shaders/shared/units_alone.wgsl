// One invocation adds up the chunk of a unit.

struct Counted {
    non_finite: u32,
    nan: u32,
}

var<private> counted: Counted;
// The largest magnitude of a unit's elements that counts as finite.
var<private> most: u32;

fn raw_magnitude(slot: u32, element: u32) -> u32 {
    switch slot {
        //@each slot
        case SLOTu: {
            return element_bits(slot_SLOT[word_of(element)], element) & 0x7fffffffu;
        }
        //@end
        default: {
            return 0u;
        }
    }
}

// Element i of the unit whose first one is at `origin`.
fn element_at(row: UnitRow, origin: u32, i: u32) -> u32 {
    if row.reduced_high == 0u {
        return origin + i * row.reduced_low;
    }
    return origin + (i / row.reduced) * row.reduced_high + (i % row.reduced) * row.reduced_low;
}

fn finite_magnitude(row: UnitRow, origin: u32, i: u32) -> u32 {
    let bits = raw_magnitude(row.slot, element_at(row, origin, row.first + i));
    return select(0u, bits, bits <= most);
}

// The largest finite magnitude of the chunk; counts the others.
fn largest_of(row: UnitRow, origin: u32) -> u32 {
    var top = 0u;
    for (var i = 0u; i < row.len; i++) {
        let bits = raw_magnitude(row.slot, element_at(row, origin, row.first + i));
        if bits <= most {
            top = max(top, bits);
        } else {
            counted.non_finite += 1u;
            counted.nan |= u32(bits > INFINITY_BITS);
        }
    }
    return top;
}

fn add_units(row: UnitRow, lane: u32) {
    if lane >= row.units {
        return;
    }
    if row.segment + lane >= job.until {
        partials[row.partial + lane] = Partial(0u, 0u, 0u, 0u);
        return;
    }
    let unit = row.first_unit + lane;
    let origin = row.base + (unit / row.kept) * row.kept_high + (unit % row.kept) * row.kept_low;
    counted = Counted(0u, 0u);
    most = most_of(row.segment);
    let top = largest_of(row, origin);
    partials[row.partial + lane] = partial_of(row, origin, top, counted.non_finite | (counted.nan << 31u));
}
