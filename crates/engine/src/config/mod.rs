//! The registry of configuration names: parsing, validation, defaults, CONFIG GET/SET/REWRITE.
