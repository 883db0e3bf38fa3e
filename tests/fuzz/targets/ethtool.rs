//! Fuzzes `driver::testing::fuzz::ethtool`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driver::testing::fuzz::ethtool(bytes));
