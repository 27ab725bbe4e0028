//! Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the twin of
//! `shaders/shared/threefry.wgsl`.

/// 64 bits for each of `N` counters, which these and a key determine: a loop a round, so that registers hold many.
#[inline(always)]
pub(super) fn threefry<const N: usize>([mut x, mut y]: [[u32; N]; 2], key: [u32; 2]) -> [[u32; N]; 2] {
    const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
    let keys = [key[0], key[1], 0x1bd1_1bda ^ key[0] ^ key[1]];
    for i in 0..N {
        (x[i], y[i]) = (x[i].wrapping_add(keys[0]), y[i].wrapping_add(keys[1]));
    }
    for four in 0..5 {
        for by in ROTATIONS[four % 2] {
            for i in 0..N {
                x[i] = x[i].wrapping_add(y[i]);
                y[i] = y[i].rotate_left(by) ^ x[i];
            }
        }
        let (first, second) = (keys[(four + 1) % 3], keys[(four + 2) % 3].wrapping_add(four as u32 + 1));
        for i in 0..N {
            (x[i], y[i]) = (x[i].wrapping_add(first), y[i].wrapping_add(second));
        }
    }
    [x, y]
}

#[cfg(test)]
mod tests {
    use super::threefry;

    /// The known answers of Random123, the authors' library, for `threefry2x32 20`.
    #[test]
    fn known_answers() {
        assert_eq!(threefry([[0], [0]], [0, 0]), [[0x6b20_0159], [0x99ba_4efe]]);
        assert_eq!(
            threefry([[u32::MAX, 0], [u32::MAX, 0]], [u32::MAX; 2]).map(|x| x[0]),
            [0x1cb9_96fc, 0xbb00_2be7]
        );
        let (counter, key) = ([[7, 0x243f_6a88], [7, 0x85a3_08d3]], [0x1319_8a2e, 0x0370_7344]);
        assert_eq!(threefry(counter, key).map(|x| x[1]), [0xc492_3a9c, 0x483d_f7a0]);
    }
}
