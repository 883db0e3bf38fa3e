//! Fuzzes `driver::testing::fuzz::nri`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driver::testing::fuzz::nri(bytes));
