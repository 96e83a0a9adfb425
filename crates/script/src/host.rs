//! What a running script needs from the engine around it, and how native functions reach it.

use kara_resp::Writer;
use scoped_tls_hkt::scoped_thread_local;

/// The run can't go on: it was killed, or must start again under other locks. The script can't catch this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort;

/// The engine around one run.
pub trait Host {
    /// Runs a command; its reply, errors included, is appended to `reply`, whose protocol version is the script's choice.
    fn call(&mut self, args: &[&[u8]], reply: &mut Writer) -> Result<(), Abort>;

    /// `redis.log`; levels 0 (debug) to 3 (warning).
    fn log(&mut self, level: u8, text: &[u8]);

    /// `redis.acl_check_cmd`; the error is the reply's text with its code.
    fn may_run(&mut self, args: &[&[u8]]) -> Result<bool, String>;

    /// `redis.setresp`, 2 or 3.
    fn set_resp(&mut self, version: u8);

    /// `redis.set_repl`: whether what follows goes into the append-only file, and to replicas.
    fn set_repl(&mut self, _in_log: bool, _to_replicas: bool) {}

    /// Called every now and then while Lua code runs.
    fn interrupt(&mut self) -> Result<(), Abort>;

    /// `redis.register_function`; the error is the reply's text with its code.
    fn register(&mut self, function: LibraryFunction) -> Result<(), String>;
}

/// What a library registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryFunction {
    pub name: Vec<u8>,
    pub description: Option<Vec<u8>>,
    pub flags: Vec<Vec<u8>>,
}

scoped_thread_local!(static mut HOST: for<'a> &'a mut (dyn Host + 'a));

/// Makes `host` the one that native functions reach while `run` runs.
pub(crate) fn with_host<R>(host: &mut dyn Host, run: impl FnOnce() -> R) -> R {
    HOST.set(host, run)
}

/// The host of the run at hand; `None` outside of one.
pub(crate) fn host<R>(f: impl FnOnce(&mut dyn Host) -> R) -> Option<R> {
    if HOST.is_set() { Some(HOST.with(|host| f(host))) } else { None }
}
