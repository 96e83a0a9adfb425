//! The one program: acts by the name it is called by.
fn main() {}
