//! The kernel ring: real programs, namespaces and packets on the running kernel. Needs root, and
//! runs in private mount, network and process namespaces on one thread (`cargo xtask test`).

mod datapath;
