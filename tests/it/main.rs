//! Black-box tests: every one starts its own server and talks to it over TCP.
#![forbid(unsafe_code)]

mod differential;
