//! The one program: acts by the name it is called by.
#![forbid(unsafe_code)]

use kara_base::alloc::{CountingAlloc, Jemalloc};

#[global_allocator]
static ALLOCATOR: CountingAlloc<Jemalloc> = CountingAlloc(Jemalloc);

fn main() -> std::process::ExitCode {
    use std::os::unix::ffi::OsStringExt;
    let mut words = std::env::args_os().map(OsStringExt::into_vec);
    let program = words.next().unwrap_or_else(|| b"kara-server".to_vec());
    let args: Vec<Vec<u8>> = words.collect();
    if let Some(tool) = kara_tools::by_name(&program) {
        return tool(&args);
    }
    kara_server::main_with_args(&program, &args)
}
