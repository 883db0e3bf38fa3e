//! What whoever runs the node says about it, in the driver's configuration file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{IfName, PciAddress};

/// A configuration file, read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeConfig {
    pub layer: NodeLayer,
    /// What holds on the nodes whose label names it, over [`Self::layer`].
    pub profiles: BTreeMap<String, NodeLayer>,
}

/// What one place says. `None` leaves it to the place below.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeLayer {
    pub filter: Option<String>,
    pub include: Option<Vec<NamePattern>>,
    pub exclude: Option<Vec<NamePattern>>,
    pub sriov: Option<Vec<SriovRule>>,
    pub providers: Option<Vec<ProviderRule>>,
}

impl NodeLayer {
    /// This layer over `below`: each field that it has replaces the whole field there.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            filter: self.filter.or(below.filter),
            include: self.include.or(below.include),
            exclude: self.exclude.or(below.exclude),
            sriov: self.sriov.or(below.sriov),
            providers: self.providers.or(below.providers),
        }
    }

    /// With the defaults where nobody says anything.
    pub fn settled(self) -> NodeRules {
        NodeRules {
            publish: PublishRules {
                filter: self.filter,
                include: self.include.unwrap_or_default(),
                exclude: self.exclude.unwrap_or_default(),
            },
            sriov: self.sriov.unwrap_or_default(),
            providers: self.providers.unwrap_or_default(),
        }
    }
}

/// What holds on this node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeRules {
    pub publish: PublishRules,
    pub sriov: Vec<SriovRule>,
    pub providers: Vec<ProviderRule>,
}

/// What claims can ask for.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishRules {
    /// CEL, of which a device is published that it is true of.
    pub filter: Option<String>,
    /// Interfaces that are offered although they look like a CNI's, or are stacked on the way out.
    pub include: Vec<NamePattern>,
    /// Interfaces that are not offered. These win.
    pub exclude: Vec<NamePattern>,
}

/// Names of interfaces or, of devices without one, of RDMA devices, or places on the PCI bus; `*` standing for any number of any characters.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePattern(String);

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is no name of an interface or an RDMA device and no PCI address, with or without *")]
pub struct NoPattern;

impl NamePattern {
    pub fn matches(&self, name: &str) -> bool {
        matches(&self.0, name)
    }
}

/// Whether `name` is what `pattern` says, where `*` is the only character that means something.
///
/// What precedes the first star and what follows the last are at the ends; each part between them is
/// taken where it is found first.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<_> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}

/// `IB_DEVICE_NAME_MAX` in `include/uapi/rdma/ib_user_verbs.h` (Linux 6.12), with the zero at the end.
const MAX_RDMA_NAME_LEN: usize = 64;

impl FromStr for NamePattern {
    type Err = NoPattern;

    fn from_str(text: &str) -> Result<Self, NoPattern> {
        // A star stands for nothing as well, so what is left must be able to be a name.
        let rest = text.replace('*', "");
        // Names of RDMA devices and of functions as devices, and parts of PCI addresses.
        let is_longer = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        let is_name = rest.is_empty() && !text.is_empty()
            || rest.parse::<IfName>().is_ok()
            || (1..MAX_RDMA_NAME_LEN).contains(&rest.len()) && rest.chars().all(is_longer);
        if is_name { Ok(Self(text.to_owned())) } else { Err(NoPattern) }
    }
}

impl TryFrom<String> for NamePattern {
    type Error = NoPattern;

    fn try_from(text: String) -> Result<Self, NoPattern> {
        text.parse()
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Somebody who knows more of this node's devices than the node does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProviderRule {
    /// What logs and errors call it.
    pub name: String,
    pub place: ProviderPlace,
    /// How often it is asked for what it knows.
    pub refresh: Duration,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// Where a provider is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ProviderPlace {
    File(PathBuf),
    /// An HTTP server on a socket of this node.
    Socket(PathBuf),
    /// `http` or `https`; `ca` is whom to believe, besides those whom the system does.
    Url {
        url: String,
        ca: Option<PathBuf>,
    },
}

/// How many virtual functions a physical one shall have.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SriovRule {
    pub pf: PfSelector,
    /// Above 0, and at most what the function says it can have.
    pub num_vfs: u32,
}

/// Which physical functions a rule is for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PfSelector {
    Interface(IfName),
    PciAddress(PciAddress),
    /// All of one kind, by `vendor` and `device` as in sysfs, such as `15b3` and `101d`.
    Id {
        vendor: String,
        device: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_nothing_else_does() {
        for (pattern, name, fits) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth", true),
            ("eth*", "veth1", false),
            ("*_h", "0a1b2c_h", true),
            ("en*s*f0", "enp1s0f0", true),
            ("en*s*f0", "enp1f0", false),
            ("a*a", "a", false),
            ("*", "anything", true),
            ("e.h0", "eth0", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_could_be_a_name() {
        for right in
            ["eth0", "*", "enp*s0", "flannel.1", "0000:3b:*", "0000:3b:00.0", "pci-0000-3b-00-0"]
        {
            assert!(right.parse::<NamePattern>().is_ok(), "{right}");
        }
        for wrong in ["", "a/b", "a b*", &"x".repeat(64)] {
            assert_eq!(wrong.parse::<NamePattern>(), Err(NoPattern), "{wrong}");
        }
    }

    #[test]
    fn each_field_of_a_layer_replaces_the_one_below_and_no_other() {
        let below = NodeLayer {
            filter: Some("true".to_owned()),
            exclude: Some(vec!["eth0".parse().unwrap()]),
            ..NodeLayer::default()
        };
        let above = NodeLayer { exclude: Some(Vec::new()), ..NodeLayer::default() };
        let rules = above.over(below).settled();
        assert_eq!(rules.publish.filter.as_deref(), Some("true"));
        assert_eq!(rules.publish.exclude, []);
    }
}
