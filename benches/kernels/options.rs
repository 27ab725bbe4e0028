//! What is asked for.

use gradclip::DType;

const HELP: &str = "\
  --seconds N      end after that long, whatever is left (90)
  --csv FILE       append a line for each measurement as it ends
  --elements LIST  sizes in order of worth, k, M and G for thousands and so on (100M,10M,1G,1M,100k)
  --type LIST      of f32, bf16, f16 (all), each at every size
  --resident LIST  numbers of workgroups that stay; none for no such form (264,528,1056)
  --rounds N       at most (21)
  --flush N        MiB read between measurements of what may lie in caches (256, on software adapters 64)";

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) seconds: f64,
    pub(crate) csv: Option<String>,
    /// Multiples of eight, so that every type fills whole loads of 16 bytes.
    pub(crate) elements: Vec<u64>,
    pub(crate) types: Vec<DType>,
    pub(crate) resident: Vec<u32>,
    pub(crate) rounds: usize,
    /// Bytes.
    pub(crate) flush: Option<u64>,
}

impl Options {
    pub(crate) fn read(arguments: &[String]) -> Result<Options, String> {
        let mut options = Options {
            seconds: 90.0,
            csv: None,
            elements: list("100M,10M,1G,1M,100k", elements)?,
            types: vec![DType::F32, DType::Bf16, DType::F16],
            // Two, four and eight for each of an H100's multiprocessors.
            resident: vec![264, 528, 1056],
            rounds: 21,
            flush: None,
        };
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().cloned().ok_or(format!("{flag} needs a value"));
            match flag.as_str() {
                "--bench" => {} // cargo's own
                "--seconds" => options.seconds = seconds(&value()?)?,
                "--csv" => options.csv = Some(value()?),
                "--elements" => options.elements = list(&value()?, elements)?,
                "--type" => options.types = list(&value()?, dtype)?,
                "--resident" => {
                    let value = value()?;
                    options.resident = if value == "none" { Vec::new() } else { list(&value, positive)? };
                }
                "--rounds" => options.rounds = positive(&value()?)? as usize,
                "--flush" => options.flush = Some(u64::from(positive(&value()?)?) << 20),
                _ => return Err(format!("no such option: {flag}\n{HELP}")),
            }
        }
        Ok(options)
    }

    /// Types and sizes in order of worth: every type at the first size, then at the next.
    pub(crate) fn cases(&self) -> Vec<(DType, u64)> {
        self.elements.iter().flat_map(|&n| self.types.iter().map(move |&dtype| (dtype, n))).collect()
    }
}

fn list<T>(text: &str, one: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(one).collect()
}

fn positive(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or(format!("`{text}` is no whole number from 1 on"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok();
    seconds.filter(|s| s.is_finite() && *s > 0.0).ok_or(format!("`{text}` are no seconds"))
}

/// `100M` is 100,000,000; up to the next multiple of eight.
fn elements(text: &str) -> Result<u64, String> {
    let unit = match text.as_bytes().last() {
        Some(b'k') => 1_000,
        Some(b'M') => 1_000_000,
        Some(b'G') => 1_000_000_000,
        _ => 1,
    };
    let digits = if unit > 1 { &text[..text.len() - 1] } else { text };
    let count = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|&n| n > 0);
    let count = count.and_then(|n| n.checked_next_multiple_of(8));
    count.ok_or(format!("`{text}` is no number of elements, as 100k, 10M or 1G are"))
}

fn dtype(text: &str) -> Result<DType, String> {
    let all = [DType::F32, DType::Bf16, DType::F16];
    all.into_iter()
        .find(|dtype| dtype.to_string() == text)
        .ok_or(format!("no type `{text}`: f32, bf16 or f16"))
}
