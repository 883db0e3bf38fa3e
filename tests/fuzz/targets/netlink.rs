//! Fuzzes `driver::testing::fuzz::netlink`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driver::testing::fuzz::netlink(bytes));
