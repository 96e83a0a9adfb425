//! libFuzzer's way into `checks/rdb_payload.rs`.
#![no_main]

#[path = "../checks/rdb_payload.rs"]
mod rdb_payload;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rdb_payload::check(data));
