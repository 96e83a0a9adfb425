//! The log's levels and where lines go.
#[derive(Clone, Copy, Debug)]
pub enum Level { Debug, Verbose, Notice, Warning }
pub trait LogSink: Send + Sync { fn log(&self, level: Level, text: &str); }
