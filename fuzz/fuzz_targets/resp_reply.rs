//! libFuzzer's way into `checks/resp_reply.rs`.
#![no_main]

#[path = "../checks/resp_reply.rs"]
mod resp_reply;

libfuzzer_sys::fuzz_target!(|data: &[u8]| resp_reply::check(data));
