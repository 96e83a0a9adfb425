//! A worker's virtual machines and what it has compiled in them. Made when first needed.

use super::cache::{Cache, Script, Sha, sha_of};
use super::libraries::{Library, Set};
use super::shebang;
use crate::config::Config;
use crate::error::CommandError;
use kara_script::{Chunk, Host, Kind, LoadError, Options, Vm};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes that a machine's Lua code may hold.
const MEMORY_LIMIT: usize = 2 << 30;
/// Scripts longer than this are looked up by their SHA1 rather than kept a second time as the key of a table.
const SHORT: usize = 4096;

/// A script ready to run on this worker.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub script: Arc<Script>,
    pub chunk: Chunk,
}

/// A library loaded on this worker.
struct Loaded {
    library: Arc<Library>,
    functions: HashMap<Vec<u8>, Chunk>,
}

#[derive(Default)]
struct Tables {
    by_sha: HashMap<Sha, Rc<Compiled>>,
    by_body: HashMap<Box<[u8]>, Rc<Compiled>>,
    libraries: HashMap<Vec<u8>, Loaded>,
}

/// The machines of one worker.
#[derive(Default)]
pub struct Machines {
    eval: RefCell<Option<Rc<Vm>>>,
    functions: RefCell<Option<Rc<Vm>>>,
    insecure: Cell<bool>,
    tables: RefCell<Tables>,
    /// The libraries when they were last compared with what is loaded here.
    seen: RefCell<Arc<Set>>,
    /// The script that ran last: the next is often the same.
    last: RefCell<Option<Rc<Compiled>>>,
}

impl std::fmt::Debug for Machines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machines").finish_non_exhaustive()
    }
}

impl Machines {
    /// The machine of a kind.
    pub(crate) fn vm(&self, kind: Kind, config: &Config) -> Result<Rc<Vm>, CommandError> {
        // Two names of one thing.
        let insecure = config.lua_enable_insecure_api || config.lua_enable_deprecated_api;
        if self.insecure.get() != insecure {
            self.reset();
            self.insecure.set(insecure);
        }
        let slot = match kind {
            Kind::Eval => &self.eval,
            Kind::Functions => &self.functions,
        };
        let mut slot = slot.borrow_mut();
        if let Some(vm) = &*slot {
            return Ok(vm.clone());
        }
        let options = Options {
            kind,
            insecure,
            memory_limit: MEMORY_LIMIT,
            redis_version: super::REDIS_VERSION.to_string(),
            valkey_version: super::VALKEY_VERSION.to_string(),
        };
        let vm = Vm::new(&options).map_err(|error| CommandError::owned(format!("ERR {error}")))?;
        Ok(slot.insert(Rc::new(vm)).clone())
    }

    /// Forgets everything.
    pub(crate) fn reset(&self) {
        self.last.replace(None);
        *self.tables.borrow_mut() = Tables::default();
        *self.eval.borrow_mut() = None;
        *self.functions.borrow_mut() = None;
    }

    /// Bytes of both machines, some times a second, between commands.
    pub(crate) fn used_memory(&self) -> (u64, u64) {
        let used = |slot: &RefCell<Option<Rc<Vm>>>| {
            let vm = slot.try_borrow().ok().and_then(|vm| vm.clone());
            vm.map_or(0, |vm| {
                vm.tidy_up();
                vm.used_memory() as u64
            })
        };
        (used(&self.eval), used(&self.functions))
    }

    /// EVAL: the script of that text, compiled and cached if it is new. The count tells of evicted ones.
    pub(crate) fn by_body(
        &self,
        vm: &Vm,
        cache: &Cache,
        body: &[u8],
    ) -> Result<(Rc<Compiled>, u64), CommandError> {
        if let Some(last) = self.last(|script| *script.body == *body) {
            return Ok((last, 0));
        }
        let (known, evicted) = self.find_body(vm, cache, body)?;
        self.last.replace(Some(known.clone()));
        Ok((known, evicted))
    }

    fn last(&self, is_it: impl FnOnce(&Script) -> bool) -> Option<Rc<Compiled>> {
        let last = self.last.borrow();
        let last = last.as_ref().filter(|last| is_it(&last.script) && !last.script.is_evicted());
        last.cloned()
    }

    fn find_body(&self, vm: &Vm, cache: &Cache, body: &[u8]) -> Result<(Rc<Compiled>, u64), CommandError> {
        if let Some(known) = self.tables.borrow().by_body.get(body)
            && !known.script.is_evicted()
        {
            return Ok((known.clone(), 0));
        }
        let sha = sha_of(body);
        if let Some(known) = self.by_sha(vm, cache, &sha)? {
            self.remember(body, &known);
            return Ok((known, 0));
        }
        let (compiled, evicted) = self.add(vm, cache, sha, body, false)?;
        self.remember(body, &compiled);
        Ok((compiled, evicted))
    }

    fn remember(&self, body: &[u8], compiled: &Rc<Compiled>) {
        if body.len() <= SHORT {
            self.tables.borrow_mut().by_body.insert(body.into(), compiled.clone());
        }
    }

    /// Compiles a script and makes it known to all; `keep`: it isn't evicted.
    pub(crate) fn add(
        &self,
        vm: &Vm,
        cache: &Cache,
        sha: Sha,
        body: &[u8],
        keep: bool,
    ) -> Result<(Rc<Compiled>, u64), CommandError> {
        let (flags, code) = shebang::script(body)?;
        let chunk = compile(vm, code)?;
        let (script, evicted) = cache.add(sha, body, flags, keep);
        let compiled = Rc::new(Compiled { script, chunk });
        let mut tables = self.tables.borrow_mut();
        tables.by_sha.insert(sha, compiled.clone());
        if tables.by_sha.len() > 64 && tables.by_sha.len().is_multiple_of(64) {
            // Others may have evicted what is compiled here.
            tables.by_sha.retain(|_, compiled| !compiled.script.is_evicted());
            tables.by_body.retain(|_, compiled| !compiled.script.is_evicted());
        }
        Ok((compiled, evicted))
    }

    /// EVALSHA: a script that some worker knows.
    pub(crate) fn by_sha(
        &self,
        vm: &Vm,
        cache: &Cache,
        sha: &Sha,
    ) -> Result<Option<Rc<Compiled>>, CommandError> {
        if let Some(last) = self.last(|script| script.sha == *sha) {
            return Ok(Some(last));
        }
        if let Some(known) = self.tables.borrow().by_sha.get(sha)
            && !known.script.is_evicted()
        {
            self.last.replace(Some(known.clone()));
            return Ok(Some(known.clone()));
        }
        let Some(script) = cache.get(sha) else { return Ok(None) };
        let (_, code) = shebang::script(&script.body)?;
        let compiled = Rc::new(Compiled { chunk: compile(vm, code)?, script });
        self.tables.borrow_mut().by_sha.insert(*sha, compiled.clone());
        Ok(Some(compiled))
    }

    /// SCRIPT FLUSH: what was compiled here goes, and the machine is collected.
    pub(crate) fn flush_scripts(&self) {
        self.last.replace(None);
        let mut tables = self.tables.borrow_mut();
        tables.by_sha.clear();
        tables.by_body.clear();
        *self.eval.borrow_mut() = None;
    }

    /// FUNCTION FLUSH: a fresh machine for the libraries to come.
    pub(crate) fn flush_functions(&self) {
        self.tables.borrow_mut().libraries.clear();
        *self.functions.borrow_mut() = None;
    }

    /// A library is gone.
    pub(crate) fn forget(&self, name: &[u8]) {
        self.tables.borrow_mut().libraries.remove(name);
    }

    /// Lets go of libraries that are gone or replaced; with the last one goes the machine.
    pub(crate) fn keep_only(&self, set: &Arc<Set>) {
        if Arc::ptr_eq(&self.seen.borrow(), set) {
            return;
        }
        self.seen.replace(set.clone());
        let mut tables = self.tables.borrow_mut();
        let known = |name: &[u8], loaded: &Loaded| {
            set.libraries.get(name).is_some_and(|library| Arc::ptr_eq(library, &loaded.library))
        };
        tables.libraries.retain(|name, loaded| known(name, loaded));
        if set.libraries.is_empty() {
            *self.functions.borrow_mut() = None;
        }
    }

    /// A function of a library, which is loaded here if it wasn't yet.
    pub(crate) fn function(
        &self,
        vm: &Vm,
        library: &Arc<Library>,
        name: &[u8],
    ) -> Result<Option<Chunk>, LoadError> {
        if let Some(loaded) = self.tables.borrow().libraries.get(&library.name)
            && Arc::ptr_eq(&loaded.library, library)
        {
            return Ok(loaded.functions.get(name).cloned());
        }
        let code = shebang::library(&library.code).map(|(_, code)| code).unwrap_or_default();
        let chunk = vm.compile(code, LIBRARY_CHUNK).map_err(|_| LoadError::Aborted)?;
        let functions = vm.load(&chunk, &mut Again)?;
        self.loaded(library.clone(), functions);
        let tables = self.tables.borrow();
        Ok(tables.libraries.get(&library.name).and_then(|loaded| loaded.functions.get(name).cloned()))
    }

    /// A library was loaded here.
    pub(crate) fn loaded(&self, library: Arc<Library>, functions: Vec<(Vec<u8>, Chunk)>) {
        let loaded = Loaded { library, functions: functions.into_iter().collect() };
        self.tables.borrow_mut().libraries.insert(loaded.library.name.clone(), loaded);
    }
}

/// The chunk name of scripts.
pub(crate) const SCRIPT_CHUNK: &str = "@user_script";
/// The chunk name of libraries.
pub(crate) const LIBRARY_CHUNK: &str = "@user_function";

fn compile(vm: &Vm, code: &[u8]) -> Result<Chunk, CommandError> {
    vm.compile(code, SCRIPT_CHUNK).map_err(|problem| {
        CommandError::owned(format!("ERR Error compiling script (new function): {problem}"))
    })
}

/// Loads a library once more on another worker: it did well on the first.
struct Again;

impl Host for Again {
    fn call(&mut self, _: &[&[u8]], _: &mut kara_resp::Writer) -> Result<(), kara_script::Abort> {
        Err(kara_script::Abort)
    }

    fn log(&mut self, _: u8, _: &[u8]) {}

    fn may_run(&mut self, _: &[&[u8]]) -> Result<bool, String> {
        Ok(false)
    }

    fn set_resp(&mut self, _: u8) {}

    fn interrupt(&mut self) -> Result<(), kara_script::Abort> {
        Ok(())
    }

    fn register(&mut self, _: kara_script::LibraryFunction) -> Result<(), String> {
        Ok(())
    }
}
