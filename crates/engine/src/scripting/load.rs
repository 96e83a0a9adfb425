//! FUNCTION LOAD: a library's code runs once and registers its functions.

use super::libraries::{Function, Library};
use super::machine::LIBRARY_CHUNK;
use super::shebang::{self, ScriptFlags};
use crate::cx::Cx;
use crate::error::CommandError;
use crate::log::Level;
use crate::shared::Shared;
use kara_resp::Writer;
use kara_script::{Abort, Chunk, Host, Kind, LibraryFunction, LoadError};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// A library's code may run this long (it only registers).
const TIME_LIMIT: Duration = Duration::from_millis(500);

/// A library with what it registered on this worker.
pub(crate) type Loaded = (Arc<Library>, Vec<(Vec<u8>, Chunk)>);

/// Runs a library's code. Nobody knows the library yet.
pub(crate) fn load(cx: &mut Cx, code: &[u8]) -> Result<Loaded, CommandError> {
    let (name, body) = shebang::library(code)?;
    let vm = cx.machines.vm(Kind::Functions, cx.config)?;
    let chunk = vm
        .compile(body, LIBRARY_CHUNK)
        .map_err(|problem| CommandError::owned(format!("ERR Error compiling function: {problem}")))?;
    let mut loader = Loader {
        shared: cx.shared,
        functions: Vec::new(),
        problem: None,
        until: Instant::now() + TIME_LIMIT,
    };
    let registered = vm.load(&chunk, &mut loader);
    if let Some(problem) = loader.problem {
        return Err(problem);
    }
    let chunks = match registered {
        Ok(chunks) => chunks,
        Err(LoadError::Aborted) => {
            return Err(CommandError::text("ERR Error registering functions: FUNCTION LOAD timeout"));
        }
        Err(LoadError::Failed(failure)) => {
            let mut text = b"ERR Error registering functions: ".to_vec();
            text.extend_from_slice(&failure.text);
            return Err(CommandError::Bytes(text));
        }
    };
    if loader.functions.is_empty() {
        return Err(CommandError::text("ERR No functions registered"));
    }
    let library =
        Library { name, code: code.into(), functions: loader.functions, needs_all: AtomicBool::new(false) };
    Ok((Arc::new(library), chunks))
}

/// The host of a library's code.
struct Loader<'s> {
    shared: &'s Shared,
    functions: Vec<Function>,
    /// Found after the code has run: the reply's own words.
    problem: Option<CommandError>,
    until: Instant,
}

impl Host for Loader<'_> {
    fn call(&mut self, _: &[&[u8]], reply: &mut Writer) -> Result<(), Abort> {
        reply.error("ERR server.call can only be called inside a script invocation");
        Ok(())
    }

    fn log(&mut self, level: u8, text: &[u8]) {
        self.shared.host.log(Level::from_script(level), &String::from_utf8_lossy(text));
    }

    fn may_run(&mut self, _: &[&[u8]]) -> Result<bool, String> {
        Err("ERR server.acl_check_cmd can only be called inside a script invocation".to_string())
    }

    fn set_resp(&mut self, _: u8) {}

    fn interrupt(&mut self) -> Result<(), Abort> {
        if Instant::now() > self.until { Err(Abort) } else { Ok(()) }
    }

    fn register(&mut self, function: LibraryFunction) -> Result<(), String> {
        if self.problem.is_some() {
            return Ok(());
        }
        let mut flags = ScriptFlags::empty();
        for flag in &function.flags {
            flags |= ScriptFlags::by_name(flag).ok_or("ERR unknown flag given")?;
        }
        if !shebang::is_name(&function.name) {
            self.problem = Some(CommandError::text(
                "ERR Function names can only contain letters, numbers, or underscores(_) and must be at least one \
                 character long",
            ));
        } else if self.functions.iter().any(|known| known.name.eq_ignore_ascii_case(&function.name)) {
            self.problem = Some(CommandError::text("ERR Function already exists in the library"));
        }
        self.functions.push(Function { name: function.name, description: function.description, flags });
        Ok(())
    }
}
