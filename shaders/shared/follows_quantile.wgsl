// C moves by how far a share of segments lies above the one that is wanted; the first step has what is set.

// Where something was counted; `share` and `wanted` may both be more than they are by the same.
fn follow(step: ptr<function, Step>, limit: u32, counts: bool, share: u32, wanted: u32) {
    if states[limit].steps == 0u {
        (*step).mean = (*step).threshold;
    } else if counts {
        let factor = f_exp(f_mul(adaptation.b, f_distance(share, wanted)));
        if share > wanted {
            (*step).mean = f_div((*step).mean, factor);
        } else {
            (*step).mean = f_mul((*step).mean, factor);
        }
    }
    (*step).measured = true;
    (*step).mean = bounded((*step).mean);
    (*step).threshold = (*step).mean;
}
