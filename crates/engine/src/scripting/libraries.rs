//! Libraries of functions, by name. Workers run a library's code in their own machine when one of its functions is first
//! called there.

use super::shebang::ScriptFlags;
use crate::error::CommandError;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A function as its library registered it.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: Vec<u8>,
    pub description: Option<Vec<u8>>,
    pub flags: ScriptFlags,
}

/// A library.
#[derive(Debug)]
pub struct Library {
    pub name: Vec<u8>,
    /// As the client sent it, first line included.
    pub code: Box<[u8]>,
    pub functions: Vec<Function>,
    /// A function touched keys that it wasn't given: lock every shard at once.
    pub needs_all: AtomicBool,
}

impl Library {
    /// Bytes held.
    pub fn memory_usage(&self) -> usize {
        let function =
            |f: &Function| size_of::<Function>() + f.name.len() + f.description.as_ref().map_or(0, Vec::len);
        size_of::<Library>()
            + self.name.len()
            + self.code.len()
            + self.functions.iter().map(function).sum::<usize>()
    }
}

/// A consistent set of libraries.
#[derive(Clone, Debug, Default)]
pub struct Set {
    pub libraries: BTreeMap<Vec<u8>, Arc<Library>>,
    /// By lower-case name: the library and the function's place in it.
    functions: HashMap<Vec<u8>, (Arc<Library>, usize)>,
}

impl Set {
    /// A function by any-case name.
    pub fn function(&self, name: &[u8]) -> Option<(&Arc<Library>, &Function)> {
        let (library, at) = self.functions.get(&name.to_ascii_lowercase())?;
        Some((library, library.functions.get(*at)?))
    }

    /// How many functions there are.
    pub fn functions_len(&self) -> usize {
        self.functions.len()
    }

    /// Adds a library; a known one of the name is replaced if wanted.
    pub fn add(&mut self, library: Arc<Library>, replace: bool) -> Result<(), CommandError> {
        let known = self.libraries.get(&library.name).cloned();
        if known.is_some() && !replace {
            return Err(CommandError::quoting("ERR Library '{}' already exists", &[&library.name]));
        }
        for function in &library.functions {
            if let Some((owner, _)) = self.function(&function.name)
                && known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, owner))
            {
                return Err(CommandError::quoting("ERR Function {} already exists", &[&function.name]));
            }
        }
        self.remove(&library.name);
        for (at, function) in library.functions.iter().enumerate() {
            self.functions.insert(function.name.to_ascii_lowercase(), (library.clone(), at));
        }
        self.libraries.insert(library.name.clone(), library);
        Ok(())
    }

    /// Removes a library; false where there is none of the name.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let Some(library) = self.libraries.remove(name) else { return false };
        self.functions.retain(|_, (owner, _)| !Arc::ptr_eq(owner, &library));
        true
    }

    /// Bytes held.
    pub fn memory_usage(&self) -> usize {
        self.libraries.values().map(|library| library.memory_usage()).sum()
    }
}

/// The libraries that all workers share.
#[derive(Debug, Default)]
pub struct Libraries {
    set: RwLock<Arc<Set>>,
}

impl Libraries {
    /// The libraries of this moment.
    pub fn now(&self) -> Arc<Set> {
        self.set.read().clone()
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        *self.set.write() = Arc::default();
    }

    /// Changes the libraries as one; they stay as they are after an error.
    pub fn change<R>(&self, f: impl FnOnce(&mut Set) -> Result<R, CommandError>) -> Result<R, CommandError> {
        let mut current = self.set.write();
        let mut next = Set::clone(&current);
        let result = f(&mut next)?;
        *current = Arc::new(next);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(name: &str, functions: &[&str]) -> Arc<Library> {
        let function = |name: &&str| Function {
            name: name.as_bytes().to_vec(),
            description: None,
            flags: ScriptFlags::empty(),
        };
        Arc::new(Library {
            name: name.as_bytes().to_vec(),
            code: Box::default(),
            functions: functions.iter().map(function).collect(),
            needs_all: AtomicBool::new(false),
        })
    }

    #[test]
    fn names_are_taken_once_and_a_failed_change_changes_nothing() {
        let libraries = Libraries::default();
        let add = |l, replace| libraries.change(|set| set.add(l, replace));
        assert!(add(library("a", &["f", "g"]), false).is_ok());
        assert!(add(library("a", &["h"]), false).is_err());
        assert!(add(library("b", &["G"]), false).is_err());
        assert!(libraries.now().function(b"F").is_some() && libraries.now().function(b"h").is_none());
        assert!(add(library("a", &["h", "g"]), true).is_ok());
        assert!(libraries.now().function(b"f").is_none());
        assert_eq!(libraries.now().functions_len(), 2);
    }
}
