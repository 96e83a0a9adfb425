//! FUNCTION LOAD and libraries in files: a library's code runs once and registers its functions.

use super::libraries::{Function, Library};
use super::machine::{LIBRARY_CHUNK, Machines};
use super::shebang::{self, ScriptFlags};
use crate::config::Config;
use crate::cx::Cx;
use crate::error::CommandError;
use crate::log::Level;
use crate::session::Origin;
use crate::shared::Shared;
use kara_resp::Writer;
use kara_script::{Abort, Chunk, Host, Kind, LibraryFunction, LoadError};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// A library's code may run this long (it only registers).
const TIME_LIMIT: Duration = Duration::from_millis(500);

/// The stack of a thread that runs a library's code from a file, bytes. Lua's C functions nest, some with buffers of 8 KB.
const STACK: usize = 16 << 20;

/// A library with what it registered on this worker.
pub(crate) type Loaded = (Arc<Library>, Vec<(Vec<u8>, Chunk)>);

/// Runs a library's code. Nobody knows the library yet.
pub(crate) fn load(cx: &mut Cx, code: &[u8]) -> Result<Loaded, CommandError> {
    // What a primary or a log says was run in time once.
    let is_ours = cx.origin != Origin::AofLoad && cx.session.origin != Origin::Primary;
    run(cx.shared, cx.config, cx.machines, code, is_ours.then_some(TIME_LIMIT))
}

/// Takes over a library of a file; it replaces one of its name if `replace` is set.
pub(crate) fn from_file(
    shared: &Shared,
    config: &Config,
    code: &[u8],
    replace: bool,
) -> Result<(), CommandError> {
    let loaded = std::thread::scope(|scope| {
        // Workers run the code again in their own machines.
        let body = || run(shared, config, &Machines::default(), code, None).map(|(library, _)| library);
        let thread = std::thread::Builder::new().name("library".into()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, body);
        thread.map(|thread| thread.join()).map_err(|error| CommandError::owned(format!("ERR {error}")))
    })?;
    let library = loaded.map_err(|_| CommandError::text("ERR the library's code made its thread end"))??;
    shared.scripts.libraries.change(|set| set.add(library, replace))
}

fn run(
    shared: &Shared,
    config: &Config,
    machines: &Machines,
    code: &[u8],
    limit: Option<Duration>,
) -> Result<Loaded, CommandError> {
    let (name, body) = shebang::library(code)?;
    let vm = machines.vm(Kind::Functions, config)?;
    let chunk = vm
        .compile(body, LIBRARY_CHUNK)
        .map_err(|problem| CommandError::owned(format!("ERR Error compiling function: {problem}")))?;
    let mut loader = Loader {
        shared,
        functions: Vec::new(),
        problem: None,
        until: limit.map(|limit| Instant::now() + limit),
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
    until: Option<Instant>,
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
        if self.until.is_some_and(|until| Instant::now() > until) { Err(Abort) } else { Ok(()) }
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
