//! Settings of the network stack for the interface: the map `sysctls`, and the fields that are
//! other names for some of them.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::merge::{Entries, Entry};
use super::reader::{Leaf, Object, Spot, quote};
use crate::model::{Family, Problems, SYSCTLS, SysctlName};

/// Each setting with its value, and the field that says it.
pub(super) type Settings = Entries<SysctlName, String>;

/// The interface's place in a name, as CNI's tuning plugin writes it.
pub(super) const PLACEHOLDER: &str = "IFNAME";

/// What `forwarding` stands for, and the two fields for IPv4 alone.
const FORWARDING: [(Family, &str); 2] =
    [(Family::Ipv4, "forwarding"), (Family::Ipv6, "forwarding")];
pub(super) const NUMBERS: [(&str, &str); 2] =
    [("arpIgnore", "arp_ignore"), ("arpAnnounce", "arp_announce")];

/// Values that a setting takes, by `Documentation/networking/ip-sysctl.rst` (Linux 6.18): the lowest
/// to the highest, and one more. The kernel itself takes any number for most of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Values {
    pub(super) range: RangeInclusive<u32>,
    pub(super) besides: Option<u32>,
}

impl Values {
    pub(super) fn of(name: &str) -> Self {
        let (range, besides) = match name {
            "arp_accept" | "arp_announce" | "rp_filter" | "accept_dad" | "accept_ra"
            | "use_tempaddr" => (0..=2, None),
            "arp_ignore" => (0..=3, Some(8)),
            "force_igmp_version" => (0..=3, None),
            // 2 needs a secret, which no setting here gives.
            "addr_gen_mode" => (0..=1, Some(3)),
            "dad_transmits" => (0..=255, None),
            _ => (0..=1, None),
        };
        Self { range, besides }
    }

    fn has(&self, value: u32) -> bool {
        self.range.contains(&value) || self.besides == Some(value)
    }

    fn text(&self) -> String {
        let (first, last) = (self.range.start(), self.range.end());
        let besides = self.besides.map(|value| format!(" or {value}")).unwrap_or_default();
        format!("{first} to {last}{besides}")
    }
}

/// All that the fields of `interface` say about settings.
pub(super) fn read(interface: &Object<'_>, problems: &mut Problems) -> Leaf<Settings> {
    let mut said = Said::default();
    if let Some(spot) = interface.field("forwarding") {
        said.is_wrong |= said.forwarding(&spot, problems).is_none();
    }
    for (field, name) in NUMBERS {
        if let Some(spot) = interface.field(field) {
            said.is_wrong |= said.number(&spot, name, problems).is_none();
        }
    }
    if let Some(spot) = interface.field("sysctls") {
        said.is_wrong |= said.map(&spot, problems).is_none();
    }
    match (said.is_wrong, said.settings.is_empty()) {
        (true, _) => Leaf::Wrong,
        (false, true) => Leaf::Unsaid,
        (false, false) => Leaf::Said(said.settings),
    }
}

#[derive(Default)]
struct Said {
    settings: Settings,
    is_wrong: bool,
}

impl Said {
    fn forwarding(&mut self, spot: &Spot<'_>, problems: &mut Problems) -> Option<()> {
        let value = u32::from(spot.flag(problems)?);
        for (family, name) in FORWARDING {
            self.add(spot, SysctlName { family, name: name.to_owned() }, value, problems)?;
        }
        Some(())
    }

    fn number(&mut self, spot: &Spot<'_>, name: &str, problems: &mut Problems) -> Option<()> {
        let Value::Number(number) = spot.value else {
            return spot.refuse_type("an integer", problems);
        };
        let value = in_range(spot, name, &number.to_string(), problems)?;
        let name = SysctlName { family: Family::Ipv4, name: name.to_owned() };
        self.add(spot, name, value, problems)
    }

    fn map(&mut self, spot: &Spot<'_>, problems: &mut Problems) -> Option<()> {
        let map = spot.any_object(problems)?;
        let mut fits = Some(());
        for (key, spot) in map.entries() {
            let Some(name) = setting(key) else {
                fits = spot.refuse(unknown(key), problems);
                continue;
            };
            let text = match spot.value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => {
                    fits = spot.refuse_type("a string or an integer", problems);
                    continue;
                }
            };
            let value = in_range(&spot, &name.name, &text, problems);
            fits = value.and_then(|value| self.add(&spot, name, value, problems)).and(fits);
        }
        fits
    }

    /// Adds a setting, unless another field says something else.
    fn add(
        &mut self,
        spot: &Spot<'_>,
        name: SysctlName,
        value: u32,
        problems: &mut Problems,
    ) -> Option<()> {
        let value = value.to_string();
        if let Some(other) = self.settings.get(&name).filter(|other| other.value != value) {
            let message = format!(
                "sets {name} to {value}, {} to {}",
                other.path,
                other.value,
                name = key_of(name.family, &name.name)
            );
            return spot.refuse(message, problems);
        }
        self.settings.insert(name, Entry { path: spot.path.clone(), value });
        Some(())
    }
}

fn in_range(spot: &Spot<'_>, name: &str, text: &str, problems: &mut Problems) -> Option<u32> {
    let values = Values::of(name);
    // Digits only: `str::parse` would take a sign as well.
    let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let Some(number) = number.filter(|number| values.has(*number)) else {
        let said = if spot.value.is_number() { text.to_owned() } else { quote(text) };
        return spot.refuse(format_args!("{said} is not {}", values.text()), problems);
    };
    Some(number)
}

/// How the map names a setting.
pub(super) fn key_of(family: Family, name: &str) -> String {
    format!("net.{}.conf.{PLACEHOLDER}.{name}", word(family))
}

fn word(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

/// The setting that a key of the map names, if a claim may change it.
fn setting(key: &str) -> Option<SysctlName> {
    let (family, name) = SYSCTLS.into_iter().find(|(family, name)| key_of(*family, name) == key)?;
    Some(SysctlName { family, name: name.to_owned() })
}

/// What is wrong with a key of the map.
fn unknown(key: &str) -> String {
    let dotted = key.replace('/', ".");
    if dotted != key && setting(&dotted).is_some() {
        return format!("is written with dots: {dotted}");
    }
    let parts: Vec<_> = dotted.split('.').collect();
    let ["net", family, "conf", interface, name] = parts[..] else { return NO_SETTING.to_owned() };
    let Some(family) = FAMILIES.into_iter().find(|it| word(*it) == family) else {
        return NO_SETTING.to_owned();
    };
    let right = key_of(family, name);
    if interface != PLACEHOLDER && setting(&right).is_some() {
        return format!("is not of this interface, write {right}");
    }
    let known = SYSCTLS.into_iter().filter(|(of, _)| *of == family).map(|(_, name)| name);
    let known: Vec<_> = known.collect();
    format!("{} cannot be set, these can: {}", quote(name), known.join(", "))
}

const NO_SETTING: &str =
    "is no setting of an interface, which look like net.ipv4.conf.IFNAME.rp_filter";
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
