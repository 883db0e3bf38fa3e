//! Names: of interfaces, as the kernel takes them, and of devices, as the API takes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A network interface name that the kernel accepts.
///
/// One to fifteen bytes of printable ASCII, neither `.` nor `..`, without `/` and `:`. That is a
/// little stricter than `dev_valid_name()` in `net/core/dev.c` (Linux 6.12), which lets most
/// non-ASCII bytes pass; names like that would not survive JSON and log lines unharmed.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(Box<str>);

/// Why a text is no interface name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IfNameError {
    #[error("an interface name has 1 to 15 bytes, not {0}")]
    Length(usize),
    #[error("`.` and `..` are no interface names")]
    Reserved,
    #[error("an interface name cannot contain {0:?}")]
    Character(char),
}

impl IfName {
    /// Longest name in bytes: `IFNAMSIZ` less the terminating NUL.
    pub const MAX_LEN: usize = 15;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Stands where a name has to be and nothing has one.
    pub(super) fn none() -> Self {
        Self("none".into())
    }
}

impl FromStr for IfName {
    type Err = IfNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > Self::MAX_LEN {
            return Err(IfNameError::Length(text.len()));
        }
        if matches!(text, "." | "..") {
            return Err(IfNameError::Reserved);
        }
        match text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '/' | ':')) {
            Some(c) => Err(IfNameError::Character(c)),
            None => Ok(Self(text.into())),
        }
    }
}

impl TryFrom<String> for IfName {
    type Error = IfNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<IfName> for String {
    fn from(name: IfName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a device in a `ResourceSlice`: a DNS label, so it holds no dots and can be the name
/// of a directory on bpffs.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(Box<str>);

/// A text that is no DNS label.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no DNS label: 1 to 63 of a-z, 0-9 and `-`, with neither end a `-`")]
pub struct DeviceNameError(String);

impl DeviceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceName {
    type Err = DeviceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_label = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_label { Ok(Self(text.into())) } else { Err(DeviceNameError(text.to_owned())) }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = DeviceNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_name_fits_the_kernel() {
        assert_eq!("eth0.100".parse::<IfName>().unwrap().as_str(), "eth0.100");
        assert_eq!("".parse::<IfName>(), Err(IfNameError::Length(0)));
        assert_eq!("a234567890123456".parse::<IfName>(), Err(IfNameError::Length(16)));
        assert_eq!("..".parse::<IfName>(), Err(IfNameError::Reserved));
        assert_eq!("a/b".parse::<IfName>(), Err(IfNameError::Character('/')));
        assert_eq!("a b".parse::<IfName>(), Err(IfNameError::Character(' ')));
    }

    #[test]
    fn a_device_name_is_a_dns_label() {
        assert!("pci-0000-8a-00-0".parse::<DeviceName>().is_ok());
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"x".repeat(64)] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad:?}");
        }
    }
}
