//! Names for devices: DNS labels that stay the same over scans, reboots and absences of neighbours.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::{DeviceName, IfIndex, MacAddr, PciAddress, Record};

/// What a device's name is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Nameable<'a> {
    /// Its interface, or else its RDMA device; nobody else on its PCI function is called so.
    pub(super) called: Cow<'a, str>,
    pub(super) pci: Option<PciAddress>,
    /// Tells apart interfaces of one PCI function where something does: `pf0vf1`, `1`.
    pub(super) port: Option<String>,
    /// `None` for what has none.
    pub(super) interface: Option<OfInterface>,
}

/// By what an interface is known beside its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct OfInterface {
    pub(super) index: IfIndex,
    pub(super) mac: Option<MacAddr>,
}

/// The name of an interface on PCI that a claim has: it may be away, and come back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Held<'a> {
    name: &'a DeviceName,
    pci: PciAddress,
    called: &'a str,
    interface: OfInterface,
}

impl<'a> Held<'a> {
    /// `None` for what is named by nothing but itself.
    pub(super) fn of(record: &'a Record) -> Option<Self> {
        let device = &record.device;
        let interface = OfInterface { index: device.index?, mac: device.mac };
        let (called, pci) = (device.interface.as_ref()?.as_str(), device.pci.as_ref()?.address);
        Some(Self { name: &device.name, pci, called, interface })
    }

    /// Which of these it is, if it is here: by its name or its index, or by its address where the kernel
    /// has made it anew.
    fn find(&self, all: &[Nameable<'_>]) -> Option<usize> {
        let find = |is_it: &dyn Fn(&Nameable<'_>, OfInterface) -> bool| {
            all.iter().position(|it| {
                it.pci == Some(self.pci)
                    && it.interface.is_some_and(|interface| is_it(it, interface))
            })
        };
        let mac = self.interface.mac;
        find(&|it, _| it.called == self.called)
            .or_else(|| find(&|_, interface| interface.index == self.interface.index))
            .or_else(|| find(&|_, interface| mac.is_some() && interface.mac == mac))
    }
}

/// A name for each, in the same order.
///
/// On PCI it is `pci-`, the address with `-` for `:` and `.`, and the port if there is one; else the
/// interface's name if that is a DNS label; else `net-` and that name in base32. So no name depends
/// on what else is there, with one exception: of interfaces that share a PCI function and a port the
/// first in the given order keeps the plain name, and the others add their own. What is held keeps its
/// name, and nobody else on its function gets it, also while it is away.
pub(super) fn device_names(interfaces: &[Nameable<'_>], held: &[Held<'_>]) -> Vec<DeviceName> {
    let own: BTreeMap<usize, &DeviceName> =
        held.iter().filter_map(|held| Some((held.find(interfaces)?, held.name))).collect();
    let mut taken: BTreeSet<DeviceName> = own.values().map(|name| (*name).clone()).collect();
    interfaces
        .iter()
        .enumerate()
        .map(|(nth, interface)| {
            if let Some(name) = own.get(&nth) {
                return (*name).clone();
            }
            let plain = plain_name(interface);
            // What has no interface is the whole function, of which somebody may hold a part.
            let is_held =
                interface.interface.is_some() && held.iter().any(|held| *held.name == plain);
            let name = if is_held || taken.contains(&plain) {
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
                interface: None,
            })
            .collect();
        device_names(&nameable, &[]).iter().map(ToString::to_string).collect()
    }

    const PLACE: &str = "0000:8a:00.0";

    /// An interface of a function that has several, by its name, index and the end of its address.
    fn port(name: &str, index: u32, mac: u8) -> Nameable<'_> {
        Nameable {
            called: Cow::Borrowed(name),
            pci: Some(PLACE.parse().unwrap()),
            port: None,
            interface: Some(OfInterface {
                index: IfIndex(index),
                mac: Some(MacAddr([2, 0, 0, 0, 0, mac])),
            }),
        }
    }

    fn names_while<'a>(
        here: &[Nameable<'a>],
        held: &[(&'a DeviceName, &Nameable<'a>)],
    ) -> Vec<String> {
        let held: Vec<_> = held
            .iter()
            .map(|(name, it)| Held {
                name,
                pci: it.pci.unwrap(),
                called: match &it.called {
                    Cow::Borrowed(called) => called,
                    Cow::Owned(_) => panic!(),
                },
                interface: it.interface.unwrap(),
            })
            .collect();
        device_names(here, &held).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_away_keeps_its_name_and_so_does_the_one_that_stays() {
        let (first, second) = (port("ens1", 2, 2), port("ens1d1", 3, 3));
        let (plain, own) = ("pci-0000-8a-00-0", "pci-0000-8a-00-0-if-mvxhgmlege");
        let [plain_name, own_name] = [plain, own].map(|it| it.parse::<DeviceName>().unwrap());
        let both = [first.clone(), second.clone()];
        assert_eq!(names_while(&both, &[]), [plain, own]);
        // Before it goes, while it is away, and while the other one is.
        let first_held = [(&plain_name, &first)];
        assert_eq!(names_while(&both, &first_held), [plain, own]);
        assert_eq!(names_while(&both[1..], &first_held), [own]);
        assert_eq!(names_while(&both[..1], &[(&own_name, &second)]), [plain]);
        // Whichever was there first has the plain name.
        let second_held = [(&plain_name, &second)];
        assert_eq!(names_while(&both, &second_held), ["pci-0000-8a-00-0-if-mvxhgmi", plain]);
        assert_eq!(names_while(&both[..1], &second_held), ["pci-0000-8a-00-0-if-mvxhgmi"]);
    }

    /// It would be offered a second time else.
    #[test]
    fn what_is_held_is_known_under_another_name_too() {
        let held = port("ens1", 2, 2);
        let name = "pci-0000-8a-00-0".parse().unwrap();
        for here in [port("nic0", 2, 2), port("nic0", 9, 2), port("nic0", 2, 9)] {
            assert_eq!(names_while(&[here], &[(&name, &held)]), ["pci-0000-8a-00-0"]);
        }
        // What drives the function by something else than an interface has all of it.
        let whole = Nameable { interface: None, ..port("mlx5_0", 0, 0) };
        assert_eq!(names_while(&[whole], &[(&name, &held)]), ["pci-0000-8a-00-0"]);
        let elsewhere = Nameable { pci: Some("0000:8a:00.1".parse().unwrap()), ..port("b", 2, 2) };
        assert_eq!(names_while(&[elsewhere], &[(&name, &held)]), ["pci-0000-8a-00-1"]);
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
            held in prop::collection::vec(0..3_u8, 20),
        ) {
            let mut nameable: Vec<_> = interfaces
                .into_iter()
                .map(|(name, (is_on_pci, port))| Nameable {
                    called: Cow::Owned(name),
                    pci: is_on_pci.then(|| "10000000:8a:00.0".parse().unwrap()),
                    port,
                    interface: None,
                })
                .collect();
            let names: BTreeSet<_> = device_names(&nameable, &[]).into_iter().collect();
            prop_assert_eq!(names.len(), nameable.len());

            for (index, it) in (2..).zip(&mut nameable) {
                it.interface = Some(OfInterface { index: IfIndex(index), mac: None });
            }
            let all = device_names(&nameable, &[]);
            let of = |nth: usize| {
                let Nameable { called, pci, interface, .. } = &nameable[nth];
                Some(Held { name: &all[nth], pci: (*pci)?, called, interface: (*interface)? })
            };
            // Of those that are held some are away.
            let records: Vec<_> =
                (0..all.len()).filter(|nth| held[*nth] > 0).filter_map(of).collect();
            let (here, away): (Vec<_>, Vec<_>) = (0..all.len()).partition(|nth| held[*nth] < 2);
            let seen: Vec<_> = here.iter().map(|nth| nameable[*nth].clone()).collect();
            let now = device_names(&seen, &records);
            for (name, nth) in now.iter().zip(&here) {
                prop_assert!(held[*nth] == 0 || *name == all[*nth]);
            }
            let names: BTreeSet<_> = now.iter().chain(away.iter().map(|nth| &all[*nth])).collect();
            prop_assert_eq!(names.len(), all.len());
        }
    }
}
