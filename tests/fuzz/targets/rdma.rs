//! Fuzzes `driver::testing::fuzz::rdma`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| driver::testing::fuzz::rdma(bytes));
