//! Fuzzes `driver::testing::fuzz::checkpoint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driver::testing::fuzz::checkpoint(bytes));
