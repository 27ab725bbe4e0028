//! Cases that PyTorch computed (`../tests/data/cases`), cut over ranks.

use std::path::Path;

use gradclip::cpu::SliceMut;
use gradclip::{Clip, DType, NonFinite, NormType};
use gradclip_mpi::{Piece, Ranks};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Elements of any type.
#[derive(Clone)]
enum Data {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Data {
    fn read(dtype: Dtype, bytes: &[u8]) -> Data {
        let words = || bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        match dtype {
            Dtype::F32 => Data::F32(bytemuck::pod_collect_to_vec(bytes)),
            Dtype::F16 => Data::F16(words().map(f16::from_bits).collect()),
            Dtype::BF16 => Data::Bf16(words().map(bf16::from_bits).collect()),
            other => panic!("{other:?}"),
        }
    }

    fn len(&self) -> usize {
        match self {
            Data::F32(v) => v.len(),
            Data::F16(v) => v.len(),
            Data::Bf16(v) => v.len(),
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::F32,
            Data::F16(_) => DType::F16,
            Data::Bf16(_) => DType::Bf16,
        }
    }

    fn values(&self) -> Vec<f64> {
        match self {
            Data::F32(v) => v.iter().map(|&x| x.into()).collect(),
            Data::F16(v) => v.iter().map(|&x| x.into()).collect(),
            Data::Bf16(v) => v.iter().map(|&x| x.into()).collect(),
        }
    }

    fn cut(&self, from: usize, until: usize) -> Data {
        match self {
            Data::F32(v) => Data::F32(v[from..until].to_vec()),
            Data::F16(v) => Data::F16(v[from..until].to_vec()),
            Data::Bf16(v) => Data::Bf16(v[from..until].to_vec()),
        }
    }

    fn slice(&mut self) -> SliceMut<'_> {
        match self {
            Data::F32(v) => v[..].as_mut().into(),
            Data::F16(v) => v[..].as_mut().into(),
            Data::Bf16(v) => v[..].as_mut().into(),
        }
    }
}

/// Tensors by name.
fn tensors(path: &Path) -> Vec<(String, Data)> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    let all = parsed.tensors().into_iter().filter(|(name, _)| name.starts_with("g."));
    let mut all: Vec<_> = all.map(|(name, view)| (name, Data::read(view.dtype(), view.data()))).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn number(value: &Value) -> f64 {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap()
}

/// Each tensor cut into as many parts as there are ranks, wherever that is: the norm within 0.65 ulp of exact, elements as near to PyTorch's as
/// the case says PyTorch is to exact arithmetic.
pub fn peers_have_the_same_on_ranks(ranks: &Ranks) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/cases");
    let mut cases = 0;
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for case in names {
        let json: Value = serde_json::from_slice(&std::fs::read(case.join("case.json")).unwrap()).unwrap();
        let clips = json["function"] == "torch.nn.utils.clip_grad_norm_" && json["error"].is_null();
        if !clips || number(&json["args"]["max_norm"]) < 0.0 {
            continue;
        }
        let exact = number(&json["true_norm"]);
        let kind = match number(&json["args"]["norm_type"]) {
            2.0 => NormType::Two,
            1.0 => NormType::One,
            f64::INFINITY => NormType::Inf,
            p => NormType::P(p),
        };
        let clip = Clip::global_norm(number(&json["args"]["max_norm"])).norm_type(kind).eps(1e-6);
        let clip = clip.on_non_finite(NonFinite::Nan);
        let input = tensors(&case.join(json["input"].as_str().unwrap()));
        // Some inputs are too large to be files.
        if input.is_empty() {
            continue;
        }
        let at = |len: usize, rank: usize| len * rank / ranks.size();
        let own = |(name, data): &(String, Data)| {
            let (from, until) = (at(data.len(), ranks.rank()), at(data.len(), ranks.rank() + 1));
            let piece = Piece::part(name, data.len() as u64, from as u64..until as u64).dtype(data.dtype());
            (piece, data.cut(from, until))
        };
        let (pieces, mut parts): (Vec<Piece>, Vec<Data>) = input.iter().map(own).unzip();
        let agreed = ranks.agree(&clip, &pieces).unwrap();
        let mut over = agreed.prepare(parts.iter_mut().map(Data::slice)).unwrap();
        over.clip(parts.iter_mut().map(Data::slice)).unwrap();
        let what = format!("{} on {} ranks", json["name"], ranks.size());
        let norm = over.prepared().norm().unwrap();
        ranks.alike("norms", &norm.to_bits().to_le_bytes()).unwrap();
        if exact.is_finite() && exact < f64::from(f32::MAX) {
            let near = exact as f32;
            let ulp = f64::from(near.next_up()) - f64::from(near);
            assert!((norm - exact).abs() <= 0.65 * ulp, "{what}: {norm} {exact}");
        } else if !exact.is_finite() {
            assert_eq!(norm.is_nan(), exact.is_nan(), "{what}: {norm} {exact}");
        }
        cases += 1;
        // What PyTorch got wrong, and what it does with norms that are not finite, has no tolerance.
        let Some(rtol) = json["rtol"].as_str().and_then(|s| s.parse::<f64>().ok()) else { continue };
        if !exact.is_finite() || json["peer_wrong"].as_array().is_some_and(|wrong| !wrong.is_empty()) {
            continue;
        }
        let atol = number(&json["atol"]);
        let unchanged = json["unchanged"] == true;
        let expected = if unchanged { input.clone() } else { tensors(&case.join("expected.safetensors")) };
        for ((part, (name, want)), (_, whole)) in parts.iter().zip(&expected).zip(&input) {
            let want = want.cut(at(whole.len(), ranks.rank()), at(whole.len(), ranks.rank() + 1));
            for (got, want) in part.values().into_iter().zip(want.values()) {
                assert!((got - want).abs() <= rtol * want.abs() + atol, "{what}, {name}: {got} {want}");
            }
        }
    }
    assert!(cases >= 10, "{cases} cases");
}
