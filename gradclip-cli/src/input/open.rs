//! Opening a set of files: each is mapped, its header read, and what the files say of each other checked.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::dtype::{Class, GRADIENTS};
use super::header::Header;
use super::source::{Files, STANDARD, Source, broken, shown, wrong};
use super::{Gradient, Index, Set, Shard, index, kind};
use crate::failure::Failure;
use crate::text;

const TWICE: &str = "expected every file once, but it is named twice, by itself or by an index";

/// An input that is one of two things.
#[derive(Debug)]
pub(crate) enum Opened {
    /// Gradients.
    Set(Set),
    /// Text, or what may be.
    Text(Source),
}

/// Opens gradients or text. What begins as neither is taken for a safetensors file, whose errors say more.
pub(crate) fn opened(argument: &str, input: &Path) -> Result<Opened, Failure> {
    if index::is_index(input) {
        return Set::open(&Files::System, argument, std::slice::from_ref(&input.to_owned())).map(Opened::Set);
    }
    let source = Source::open(input)
        .map_err(|error| wrong(argument, input, format!("expected a file, but {error}")))?;
    if kind::is_text(&source) {
        return Ok(Opened::Text(source));
    }
    let name = input.file_name().map(PathBuf::from).unwrap_or_default();
    let shard = Shard::of(input.to_owned(), name, None, source);
    let shard = shard.map_err(|(path, problem)| wrong(argument, &path, broken(problem)))?;
    Set::of_one(shard).map(Opened::Set).map_err(|problem| wrong(argument, input, problem))
}

impl Set {
    /// Opens what `argument` of the command names, as gradients: a tensor that is none is refused.
    pub(crate) fn open(files: &Files<'_>, argument: &str, inputs: &[PathBuf]) -> Result<Set, Failure> {
        let mut set = Set::parameters(files, argument, inputs)?;
        set.gradients = gradients(&set.files).map_err(|(path, problem)| wrong(argument, path, problem))?;
        Ok(set)
    }

    /// A set of one file.
    pub(super) fn of_one(shard: Shard) -> Result<Set, String> {
        let files = vec![shard];
        let gradients = gradients(&files).map_err(|(_, problem)| problem)?;
        Ok(Set { files, indexes: Vec::new(), gradients, aliases: HashMap::new() })
    }

    /// Opens files of which some tensors will be looked up. Others may be of any type.
    pub(super) fn parameters(files: &Files<'_>, argument: &str, inputs: &[PathBuf]) -> Result<Set, Failure> {
        let mut set =
            Set { files: Vec::new(), indexes: Vec::new(), gradients: Vec::new(), aliases: HashMap::new() };
        // Before it is waited for.
        if inputs.iter().filter(|input| input.as_os_str() == STANDARD).count() > 1 {
            return Err(wrong(argument, Path::new(STANDARD), TWICE));
        }
        let mut opened = HashSet::new();
        for input in inputs {
            if !index::is_index(input) {
                let name = input.file_name().map(PathBuf::from).unwrap_or_default();
                set.add((files, argument), &mut opened, input.clone(), name, None)?;
                continue;
            }
            let index = Index::read(argument, input)?;
            let place = set.indexes.len();
            for shard in index.shards() {
                set.add((files, argument), &mut opened, index.sibling(shard), shard.into(), Some(place))?;
            }
            set.indexes.push(index);
        }
        let owners = owners(argument, &set.files)?;
        set.aliases = aliases(&set, &owners);
        for place in 0..set.indexes.len() {
            set.check_index(argument, place, &owners)?;
        }
        Ok(set)
    }

    fn add(
        &mut self,
        (files, argument): (&Files<'_>, &str),
        opened: &mut HashSet<PathBuf>,
        path: PathBuf,
        name: PathBuf,
        index: Option<usize>,
    ) -> Result<(), Failure> {
        let same =
            if path.as_os_str() == STANDARD { path.clone() } else { path.canonicalize().unwrap_or_default() };
        if same.as_os_str() != "" && !opened.insert(same) {
            return Err(wrong(argument, &path, TWICE));
        }
        let source = files.open(&path).map_err(|error| wrong(argument, &path, broken(error)))?;
        let shard = Shard::of(path, name, index, source);
        self.files.push(shard.map_err(|(path, problem)| wrong(argument, &path, broken(problem)))?);
        Ok(())
    }

    /// What an index says of its shards must be so: whoever reads them by it would else miss a tensor.
    fn check_index(
        &self,
        argument: &str,
        place: usize,
        owners: &HashMap<&str, usize>,
    ) -> Result<(), Failure> {
        let index = &self.indexes[place];
        let mut files = self.files.iter().enumerate().filter(|(_, file)| file.index == Some(place));
        let named: HashMap<&Path, usize> = files.by_ref().map(|(i, file)| (file.name.as_path(), i)).collect();
        for (tensor, shard) in &index.weights {
            let expected = named.get(Path::new(shard)).copied();
            let found = owners.get(tensor.as_str()).copied();
            if (found.is_some() && found == expected)
                || (found.is_none() && self.aliases.contains_key(tensor))
            {
                continue;
            }
            let (tensor, shard) = (text::escaped(tensor), text::escaped(shard));
            let instead = match found {
                Some(file) => format!("it lies in `{}`", shown(&self.files[file].path)),
                None => "neither a tensor nor an alias in `__metadata__` has this name there".into(),
            };
            let problem =
                format!("expected tensor `{tensor}` in shard `{shard}`, as the index says, but {instead}");
            return Err(wrong(argument, &index.path, problem));
        }
        Ok(())
    }
}

impl Shard {
    /// A file of these bytes; the error comes with the path.
    pub(super) fn of(
        path: PathBuf,
        name: PathBuf,
        index: Option<usize>,
        source: Source,
    ) -> Result<Shard, (PathBuf, String)> {
        match Header::parse(&source) {
            Ok(header) => Ok(Shard { path, name, index, header, source, spill: OnceCell::new() }),
            Err(problem) => Err((path, problem)),
        }
    }
}

/// The file of each tensor.
fn owners<'a>(argument: &str, files: &'a [Shard]) -> Result<HashMap<&'a str, usize>, Failure> {
    let mut owners = HashMap::new();
    for (i, file) in files.iter().enumerate() {
        for entry in &file.header.entries {
            if let Some(first) = owners.insert(entry.name.as_str(), i) {
                return Err(Failure::Usage(format!(
                    "{argument} `{}` and `{}`: expected every tensor once in the set, but both have `{}`",
                    shown(&files[first].path),
                    shown(&file.path),
                    text::escaped(&entry.name)
                )));
            }
        }
    }
    Ok(owners)
}

/// Names that `__metadata__`, or that of an index, gives tensors besides their own: of tied tensors only
/// one is kept.
fn aliases(set: &Set, owners: &HashMap<&str, usize>) -> HashMap<String, String> {
    let metadata = set.files.iter().map(|file| &file.header.metadata);
    let all = metadata.chain(set.indexes.iter().map(|index| &index.metadata)).flatten();
    let is_alias = |(alias, kept): &&(String, String)| {
        owners.contains_key(kept.as_str()) && !owners.contains_key(alias.as_str())
    };
    all.filter(is_alias).cloned().collect()
}

/// The tensors to clip; an error comes with the path of its file.
fn gradients(files: &[Shard]) -> Result<Vec<Gradient>, (&Path, String)> {
    let mut gradients = Vec::new();
    for (file, shard) in files.iter().enumerate() {
        for (i, entry) in shard.header.entries.iter().enumerate() {
            let shown = text::escaped(&entry.name);
            match entry.dtype.class {
                Class::Passed => {}
                Class::Refused(why) => {
                    let (name, types) = (entry.dtype.name, GRADIENTS);
                    let given = format!("tensor `{shown}` is {name}; gradients may be {types}: {why}");
                    return Err((&shard.path, given));
                }
                Class::Gradient(float) => gradients.push(Gradient {
                    name: entry.name.clone(),
                    shown,
                    float,
                    shape: entry.shape.clone(),
                    file,
                    entry: i,
                }),
            }
        }
    }
    Ok(gradients)
}
