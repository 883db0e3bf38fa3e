//! Names for devices: DNS labels that stay the same over scans, reboots and absences of neighbours.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::model::{DeviceName, PciAddress};

/// What a device's name is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Nameable<'a> {
    /// Its interface, or else its RDMA device; nobody else on its PCI function is called so.
    pub(super) called: Cow<'a, str>,
    pub(super) pci: Option<PciAddress>,
    /// Tells apart interfaces of one PCI function where something does: `pf0vf1`, `1`.
    pub(super) port: Option<String>,
}

/// A name for each, in the same order.
///
/// On PCI it is `pci-`, the address with `-` for `:` and `.`, and the port if there is one; else the
/// interface's name if that is a DNS label; else `net-` and that name in base32. So no name depends
/// on what else is there, with one exception: of interfaces that share a PCI function and a port the
/// first in the given order keeps the plain name, and the others add their own.
pub(super) fn device_names(interfaces: &[Nameable<'_>]) -> Vec<DeviceName> {
    let mut taken = BTreeSet::new();
    interfaces
        .iter()
        .map(|interface| {
            let plain = plain_name(interface);
            let name = if taken.contains(&plain) {
                // No port has a hyphen, so this is nobody's plain name.
                label(&format!("{plain}-if-{}", encoded(&interface.called)))
            } else {
                plain
            };
            taken.insert(name.clone());
            name
        })
        .collect()
}

fn plain_name(interface: &Nameable<'_>) -> DeviceName {
    let name: &str = &interface.called;
    let Some(pci) = interface.pci else {
        return match name.parse() {
            // What begins like our own encoding has to be encoded itself, to be told from it.
            Ok(label) if !name.starts_with(ENCODED) => label,
            _ => label(&format!("{ENCODED}{}", encoded(name))),
        };
    };
    let address = pci.to_string().replace([':', '.'], "-");
    match interface.port.as_deref().map(as_label) {
        Some(port) if !port.is_empty() => label(&format!("pci-{address}-{port}")),
        _ => label(&format!("pci-{address}")),
    }
}

const ENCODED: &str = "net-";

/// The characters of `text` that may stand in a label.
fn as_label(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    lower.chars().filter(char::is_ascii_alphanumeric).take(MAX_PORT_LEN).collect()
}

/// Leaves room in a label for a PCI address, a port and an encoded interface name.
const MAX_PORT_LEN: usize = 12;

#[expect(clippy::expect_used, reason = "no argument can make anything but a label")]
fn label(text: &str) -> DeviceName {
    text.parse().expect("letters, digits and inner hyphens, fewer than 64")
}

/// Base32 of RFC 4648, in lower case and without padding: fifteen bytes make 24 characters.
fn encoded(text: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut out = String::new();
    for group in text.as_bytes().chunks(5) {
        let bits = group.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        let bits = bits << (40 - 8 * group.len());
        let characters = (8 * group.len()).div_ceil(5);
        for place in 0..characters {
            let five = bits >> (35 - 5 * place) & 31;
            out.push(char::from(ALPHABET[usize::try_from(five).unwrap_or_default()]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(interfaces: &[(&str, Option<&str>, Option<&str>)]) -> Vec<String> {
        let nameable: Vec<_> = interfaces
            .iter()
            .map(|(interface, pci, port)| Nameable {
                called: Cow::Borrowed(*interface),
                pci: pci.map(|text| text.parse().unwrap()),
                port: port.map(str::to_owned),
            })
            .collect();
        device_names(&nameable).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn hardware_is_named_by_its_place_and_the_rest_by_its_interface() {
        assert_eq!(
            names(&[
                ("ens1", Some("0000:8a:00.0"), None),
                ("ens2", Some("10000:e1:1f.7"), None),
                ("veth0", None, None),
                ("eth0.100", None, None),
                ("Foo", None, None),
                ("net-x", None, None),
            ]),
            [
                "pci-0000-8a-00-0",
                "pci-10000-e1-1f-7",
                "veth0",
                "net-mv2gqmbogeyda",
                "net-izxw6",
                "net-nzsxilly",
            ]
        );
    }

    #[test]
    fn interfaces_of_one_function_are_told_apart() {
        let function = Some("0000:8a:00.0");
        assert_eq!(
            names(&[
                ("ens1", function, None),
                ("ens1d1", function, Some("1")),
                ("rep0", function, Some("pf0vf1")),
                ("odd0", function, None),
            ]),
            [
                "pci-0000-8a-00-0",
                "pci-0000-8a-00-0-1",
                "pci-0000-8a-00-0-pf0vf1",
                "pci-0000-8a-00-0-if-n5sgima",
            ]
        );
    }

    #[test]
    fn base32_is_that_of_the_standard() {
        // Test vectors of RFC 4648, section 10.
        let vectors =
            [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foob", "mzxw6yq")];
        for (plain, coded) in vectors {
            assert_eq!(encoded(plain), coded);
        }
        assert_eq!(encoded("fooba"), "mzxw6ytb");
        assert_eq!(encoded("foobar"), "mzxw6ytboi");
    }

    proptest! {
        #[test]
        fn names_are_distinct_whatever_the_interfaces_are_called(
            interfaces in prop::collection::btree_map(
                "[!-.0-9;-~]{1,15}",
                (any::<bool>(), prop::option::of("[ -~]{0,3}|[a-z]{20}")),
                1..20,
            ),
        ) {
            let nameable: Vec<_> = interfaces
                .into_iter()
                .map(|(name, (is_on_pci, port))| Nameable {
                    called: Cow::Owned(name),
                    pci: is_on_pci.then(|| "10000000:8a:00.0".parse().unwrap()),
                    port,
                })
                .collect();
            let names: BTreeSet<_> = device_names(&nameable).into_iter().collect();
            prop_assert_eq!(names.len(), nameable.len());
        }
    }
}
