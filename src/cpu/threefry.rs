//! Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the twin of
//! `shaders/shared/threefry.wgsl`.

/// 64 bits that a counter and a key determine.
pub(super) fn threefry([mut x, mut y]: [u32; 2], key: [u32; 2]) -> [u32; 2] {
    const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
    let keys = [key[0], key[1], 0x1bd1_1bda ^ key[0] ^ key[1]];
    (x, y) = (x.wrapping_add(keys[0]), y.wrapping_add(keys[1]));
    for four in 0..5 {
        for by in ROTATIONS[four % 2] {
            x = x.wrapping_add(y);
            y = y.rotate_left(by) ^ x;
        }
        x = x.wrapping_add(keys[(four + 1) % 3]);
        y = y.wrapping_add(keys[(four + 2) % 3]).wrapping_add(four as u32 + 1);
    }
    [x, y]
}

#[cfg(test)]
mod tests {
    use super::threefry;

    /// The known answers of Random123, the authors' library, for `threefry2x32 20`.
    #[test]
    fn known_answers() {
        assert_eq!(threefry([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry([u32::MAX; 2], [u32::MAX; 2]), [0x1cb9_96fc, 0xbb00_2be7]);
        let (counter, key) = ([0x243f_6a88, 0x85a3_08d3], [0x1319_8a2e, 0x0370_7344]);
        assert_eq!(threefry(counter, key), [0xc492_3a9c, 0x483d_f7a0]);
    }
}
