//! Raw system calls, and the only unsafe code of the driver.

pub mod bpf;
