// gradient, parameter, three moments -> parameter, moments: Adam and AdamW whose second moment never falls.

struct Own {
    parameter: u32,
    first: u32,
    second: u32,
    largest: u32,
}

//@each slot
fn own_SLOT(row: FusedRow, i: u32) -> Own {
    return Own(
        parameter_SLOT(row, i),
        OPERAND2[row.moment + i],
        OPERAND3[row.second_moment + i],
        OPERAND4[row.largest_moment + i]
    );
}

fn put_SLOT(row: FusedRow, i: u32, own: Own) {
    put_parameter_SLOT(row, i, own.parameter);
    OPERAND2[row.moment + i] = own.first;
    OPERAND3[row.second_moment + i] = own.second;
    OPERAND4[row.largest_moment + i] = own.largest;
}
//@end

// The larger of two second moments, which have no sign: as integers they compare alike, and NaN is larger than all.
fn largest_of(second: f32, largest: u32) -> u32 {
    return max(bitcast<u32>(second) & 0x7fffffffu, largest);
}

fn stepped(own: Own, tensor: FusedTensor, gradient: u32, outcome: Outcome) -> Own {
    let finite = is_finite(gradient) && is_finite(own.parameter);
    let g = penalised(gradient, own.parameter, tensor, finite);
    let moments = moments_of(own.first, own.second, g, finite);
    let largest = largest_of(moments.y, own.largest);
    let parameter = moved_along(vec2(moments.x, bitcast<f32>(largest)), own.parameter, tensor, finite);
    return Own(parameter, bitcast<u32>(moments.x), bitcast<u32>(moments.y), largest);
}
