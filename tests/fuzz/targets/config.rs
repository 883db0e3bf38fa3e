//! Fuzzes `driver::testing::fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driver::testing::fuzz::config(bytes));
