//! The one program: acts by the name it is called by.
#![forbid(unsafe_code)]

use kara_base::alloc::{CountingAlloc, Jemalloc};

#[global_allocator]
static ALLOCATOR: CountingAlloc<Jemalloc> = CountingAlloc(Jemalloc);

fn main() -> std::process::ExitCode {
    use std::os::unix::ffi::OsStringExt;
    let args: Vec<Vec<u8>> = std::env::args_os().skip(1).map(OsStringExt::into_vec).collect();
    kara_server::main_with_args(&args)
}
