//! The state of an optimiser as a record of Burn's, under the names of Burn's own optimisers.

use std::collections::BTreeMap;

use burn::optim::OptimizerRecord;
use burn::tensor::{Bytes, DType as BurnDType};
use burn_pack::{Reader, Scalar, Tensor, Writer};
use gradclip::{History, Moment, Optimizer};

use crate::error::Error;

/// Key of what [`History::to_bytes`] gives, in hexadecimal digits: Burn's optimisers pass over it.
const HISTORY: &str = "gradclip.history";

/// The rank of a parameter, under the name that Burn gives it.
const RANK: &str = "__rank";

/// What a run of a stepper goes on from.
#[derive(Clone)]
pub(crate) struct Saved {
    pub(crate) history: History,
    /// By the number of the parameter.
    pub(crate) states: BTreeMap<u64, State>,
}

/// What an optimiser keeps of one parameter.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) path: Option<String>,
    pub(crate) shape: Vec<usize>,
    /// Of each moment all elements, `f32`.
    pub(crate) moments: Vec<Bytes>,
}

/// What moments are called in Burn's records.
static ADAM: [&str; 3] = ["momentum.moment_1", "momentum.moment_2", "momentum.max_moment_2"];
static MOMENTUM: [&str; 1] = ["momentum.velocity"];
static LION: [&str; 1] = ["momentum"];

/// Those of an optimiser, in the order of [`gradclip::Stepper::moments`].
fn names(optimizer: &Optimizer) -> &'static [&'static str] {
    let all: &[&str] = match optimizer {
        Optimizer::Lion(_) => &LION,
        Optimizer::Sgd(_) | Optimizer::Lars(_) => &MOMENTUM,
        _ => &ADAM,
    };
    all.get(..optimizer.moments()).unwrap_or(all)
}

/// Whether Burn's optimiser counts steps: those of Adam do.
fn counts_steps(optimizer: &Optimizer) -> bool {
    optimizer.moments() > 1
}

const STEPS: &str = "momentum.time";

impl Saved {
    /// As a record that [`Saved::from_record`] reads, and Burn's optimiser of the same kind.
    pub(crate) fn into_record(self, optimizer: &Optimizer) -> Result<OptimizerRecord, Error> {
        let (steps, bytes) = (self.history.updates(), self.history.to_bytes());
        let mut tensors = Vec::new();
        let mut scalars = BTreeMap::new();
        let mut paths = BTreeMap::new();
        for (id, state) in self.states {
            scalars.insert(format!("{id}.{RANK}"), Scalar::from(state.shape.len()));
            if counts_steps(optimizer) {
                scalars.insert(format!("{id}.{STEPS}"), Scalar::from(steps));
            }
            paths.extend(state.path.map(|path| (id.to_string(), path)));
            for (name, values) in names(optimizer).iter().zip(state.moments) {
                let (name, shape) = (format!("{id}.{name}"), state.shape.clone());
                tensors.push(Tensor::new(name, BurnDType::F32, shape, Some(id), values));
            }
        }
        let mut writer = Writer::new(tensors).with_metadata(HISTORY, &hexadecimal(&bytes));
        writer = scalars.iter().fold(writer, |writer, (key, value)| writer.with_scalar(key, *value));
        writer = paths.iter().fold(writer, |writer, (key, value)| writer.with_metadata(key, value));
        let bytes = writer.into_bytes().map_err(|error| wrong(error.to_string()))?;
        Ok(OptimizerRecord::from_bytes(bytes)?)
    }

    /// From a record of ours, or of Burn's optimiser of the same kind.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] for one of another optimiser, or one in which parameters took different numbers of steps.
    pub(crate) fn from_record(record: OptimizerRecord, optimizer: &Optimizer) -> Result<Saved, Error> {
        let reader = Reader::from_bytes(record.into_bytes()?).map_err(|error| wrong(error.to_string()))?;
        let (scalars, words) = (reader.scalars().clone(), reader.metadata().clone());
        let mut tensors: BTreeMap<String, (Vec<usize>, Bytes)> = BTreeMap::new();
        let mut ids: BTreeMap<u64, Option<String>> = BTreeMap::new();
        for tensor in reader.into_tensors().map_err(|error| wrong(error.to_string()))? {
            let (name, dtype, shape, id, bytes) = tensor.into_parts().map_err(|e| wrong(e.to_string()))?;
            if dtype != BurnDType::F32 {
                return Err(wrong(format!("required moments of f32, given {dtype:?} for {name}")));
            }
            ids.extend(id.map(|id| (id, words.get(&id.to_string()).cloned())));
            tensors.insert(name, (shape.to_vec(), bytes));
        }
        let mut states = BTreeMap::new();
        let mut steps = Steps::default();
        for (id, path) in ids {
            states.insert(id, State::taken(id, path, &mut tensors, optimizer)?);
            let key = format!("{id}.{STEPS}");
            steps.add(scalars.get(&key).and_then(|&n| u64::try_from(n).ok()), &key)?;
        }
        if let Some(name) = tensors.keys().next() {
            let required = names(optimizer);
            return Err(wrong(format!("required for each parameter {required:?}, given `{name}` besides")));
        }
        let history = match words.get(HISTORY) {
            Some(digits) => History::from_bytes(&from_hexadecimal(digits)?)?,
            None => foreign(optimizer, steps.0, states.is_empty())?,
        };
        Ok(Saved { history, states })
    }

    /// That there is a state of the right size for each of these parameters, if there is any.
    pub(crate) fn check(&self, moments: &[Vec<Moment>], ids: &[u64]) -> Result<(), Error> {
        for (moments, id) in moments.iter().zip(ids) {
            // Without moments there is nothing to be saved.
            let Some(first) = moments.first() else { continue };
            let state = self.states.get(id);
            if state.is_none() && self.history.updates() > 0 {
                return Err(wrong(format!("required the state of parameter {id}, given none")));
            }
            let given = state.and_then(|s| s.moments.first()).map_or(first.elements * 4, |v| v.len() as u64);
            if given != first.elements * 4 {
                let required = first.elements;
                let given = given / 4;
                return Err(wrong(format!(
                    "parameter {id}: required moments of {required} elements, given {given}"
                )));
            }
        }
        Ok(())
    }
}

impl State {
    /// Takes the moments of a parameter out of those of all.
    fn taken(
        id: u64,
        path: Option<String>,
        tensors: &mut BTreeMap<String, (Vec<usize>, Bytes)>,
        optimizer: &Optimizer,
    ) -> Result<State, Error> {
        let mut state = State { path, shape: Vec::new(), moments: Vec::new() };
        for name in names(optimizer) {
            let name = format!("{id}.{name}");
            let Some((shape, values)) = tensors.remove(&name) else {
                return Err(wrong(format!("required `{name}` for {optimizer:?}, given none")));
            };
            state.shape = shape;
            state.moments.push(values);
        }
        Ok(state)
    }
}

/// How many steps all parameters took: one number for all of them.
#[derive(Default)]
struct Steps(Option<u64>);

impl Steps {
    fn add(&mut self, given: Option<u64>, key: &str) -> Result<(), Error> {
        if let (Some(before), Some(given)) = (self.0, given)
            && before != given
        {
            return Err(wrong(format!(
                "required the same number of steps for all parameters, given {before} and {given} ({key})"
            )));
        }
        self.0 = self.0.or(given);
        Ok(())
    }
}

/// The history of a run that Burn's optimiser made.
fn foreign(optimizer: &Optimizer, steps: Option<u64>, empty: bool) -> Result<History, Error> {
    match (optimizer, steps) {
        _ if empty => Ok(History::default()),
        (Optimizer::Adam(_), Some(steps)) => Ok(History::after_updates(steps)),
        // Of these only the first step differs from those after it.
        (Optimizer::Sgd(_) | Optimizer::Lion(_), _) => Ok(History::after_updates(1)),
        _ => Err(wrong(format!("required `{HISTORY}` for {optimizer:?}, given none"))),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hexadecimal(digits: &str) -> Result<Vec<u8>, Error> {
    let pair = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(pair).collect();
    bytes.ok_or_else(|| wrong(format!("required pairs of hexadecimal digits in `{HISTORY}`")))
}

fn wrong(message: String) -> Error {
    Error::Record { message }
}
