//! libFuzzer's way into `checks/resp_request.rs`.
#![no_main]

#[path = "../checks/resp_request.rs"]
mod resp_request;

libfuzzer_sys::fuzz_target!(|data: &[u8]| resp_request::check(data));
