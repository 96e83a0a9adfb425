//! The directives that are parsed, stored and shown, but change nothing yet. Whoever makes one work deletes its
//! name here; the list of gaps is generated from what is left.

use super::DIRECTIVES;

/// Directives whose field something reads. Everything else is a gap.
const IN_EFFECT: &[&str] = &[];

/// The names whose value has no effect yet, in alphabetical order.
pub fn without_effect() -> Vec<&'static str> {
    DIRECTIVES.iter().map(|d| d.name).filter(|name| !IN_EFFECT.contains(name)).collect()
}
