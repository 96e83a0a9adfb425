//! Log levels and the place where lines go; the server implements it.

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Verbose,
    Notice,
    Warning,
}

impl Level {
    /// The level of `redis.log`'s number.
    pub fn from_script(number: u8) -> Level {
        match number {
            0 => Level::Debug,
            1 => Level::Verbose,
            2 => Level::Notice,
            _ => Level::Warning,
        }
    }
}

/// Where log lines go. Callable from every thread.
pub trait LogSink: Send + Sync {
    /// Writes a line, unless its level is below `loglevel`.
    fn log(&self, level: Level, text: &str);
}
