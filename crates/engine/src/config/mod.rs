//! The configuration: the registry of directives, the file's and the command line's syntax, CONFIG GET, SET
//! and REWRITE. No sockets, no clients: who may call what is decided by the command, what a change means by
//! the `apply` callback it passes in.

mod checks;
mod choices;
mod effect;
mod invocation;
mod load;
mod rewrite;
mod shapes;
mod store;
mod table;
mod value;

#[cfg(test)]
mod tests;

pub use checks::{TITLE_VARIABLES, expand_template};
pub use choices::*;
pub use effect::without_effect;
pub use invocation::{Invocation, Sources, invocation};
pub use load::{LineRef, LoadError, Loaded, Located, ProcessSurroundings, Surroundings, load, os_text};
pub use rewrite::RewriteError;
pub use shapes::*;
pub use store::{ApplyError, Changes, ConfigStore, SetContext, SetError};
pub use table::{Config, DIRECTIVES, Directive, Flags};
pub use value::{Fault, Source};

/// The directive of this name or alias, in any case.
pub fn find(name: &[u8]) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|directive| directive.is_called(name))
}

impl Directive {
    /// Whether `name` is this directive's name or alias, in any case.
    pub fn is_called(&self, name: &[u8]) -> bool {
        let same = |own: &str| own.as_bytes().eq_ignore_ascii_case(name);
        same(self.name) || self.alias.is_some_and(same)
    }
}

impl std::fmt::Debug for Directive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directive").field("name", &self.name).field("flags", &self.flags).finish()
    }
}
