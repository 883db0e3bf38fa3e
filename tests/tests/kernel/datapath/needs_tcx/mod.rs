//! What kernels before 6.6 cannot have: there the vm ring leaves these out, and says so by name.

pub(crate) mod ahead;
