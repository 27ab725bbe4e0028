//! What ranks disagree about.

use gradclip::Clip;
use gradclip_mpi::{Agreed, Error, Piece, Ranks, shard_ranges};

/// Every rank is told, and all go on.
pub fn what_ranks_disagree_about_is_an_error_on_all(ranks: &Ranks) {
    let clip = Clip::global_norm(1.0);
    let last = ranks.rank() + 1 == ranks.size();
    let disagree = |result: Result<Agreed, Error>, words: &str| match result {
        Err(Error::Disagree(told)) => assert!(told.contains(words), "{told}"),
        other => panic!("{other:?}"),
    };
    if ranks.size() > 1 {
        let other = if last { Clip::global_norm(2.0) } else { clip };
        disagree(ranks.agree(&other, &[]), "threshold 1.0 on rank 0 and 2.0 on rank");
        let scope = if last { Clip::per_tensor_norm(1.0) } else { clip };
        disagree(ranks.agree(&scope, &[]), "scope");
        let cuts = shard_ranges(100_000, ranks.size());
        let name = if last { "w.weigth" } else { "w" };
        disagree(
            ranks.agree(&clip, &[Piece::part(name, 100_000, cuts[ranks.rank()].clone())]),
            "are on no rank",
        );
        let result = ranks.alike("a checkpoint", &[u8::from(last)]);
        assert!(matches!(result, Err(Error::Disagree(_))), "{result:?}");
    }
    disagree(ranks.agree(&clip, &[Piece::part("w", 10, 0..4)]), "elements 4..10 are on no rank");
    ranks.alike("a checkpoint", &[1, 2, 3]).unwrap();
    let agreed = ranks.agree(&clip, &[]).unwrap();
    let mut over = agreed.prepare(std::iter::empty::<&mut [f32]>()).unwrap();
    over.clip(std::iter::empty::<&mut [f32]>()).unwrap();
    assert_eq!(over.prepared().norm(), Some(0.0));
    // A piece that is not as declared, refused before anything is exchanged.
    let piece = [Piece::whole(format!("own {}", ranks.rank()), 3)];
    let agreed = ranks.agree(&clip, &piece).unwrap();
    assert!(agreed.prepare([&mut [0.0f32; 2][..]]).is_err());
    let mut over = agreed.prepare([&mut [0.0f32; 3][..]]).unwrap();
    assert!(over.apply([&mut [0.0f32; 3][..]]).is_err());
    let mut g = [2.0f32, 0.0, 0.0];
    over.clip([&mut g[..]]).unwrap();
    let norm = 2.0 * (ranks.size() as f64).sqrt();
    assert_eq!(over.prepared().norm(), Some(f64::from(norm as f32)));
}
