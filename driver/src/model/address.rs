//! Hardware addresses: of the link layer and of the PCI bus.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A 48-bit link-layer address. The default is all zeroes, which no interface can own.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

/// A text that is no 48-bit link-layer address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no MAC address: six pairs of hexadecimal digits with `:` between them")]
pub struct MacAddrError(String);

impl MacAddr {
    /// Whether an interface can own this address: neither a group address nor all zeroes
    /// (`is_valid_ether_addr()` in `include/linux/etherdevice.h`).
    pub fn is_assignable(self) -> bool {
        self.0[0] & 1 == 0 && !self.is_zero()
    }

    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }
}

impl FromStr for MacAddr {
    type Err = MacAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MacAddrError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(error)?;
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(octets)) }
    }
}

impl TryFrom<String> for MacAddr {
    type Error = MacAddrError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        self.0.iter().try_for_each(|octet| {
            write!(f, "{separator}{octet:02x}")?;
            separator = ":";
            Ok(())
        })
    }
}

/// A PCI function, `domain:bus:device.function` in lower-case hexadecimal.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// A text that is no PCI address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no PCI address such as 0000:3b:00.1")]
pub struct PciAddressError(String);

impl FromStr for PciAddress {
    type Err = PciAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_pci(text).ok_or_else(|| PciAddressError(text.to_owned()))
    }
}

fn parse_pci(text: &str) -> Option<PciAddress> {
    let (domain, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    // A domain has four digits, or more on machines with more than 65536 of them (VMD).
    if !(4..=8).contains(&domain.len())
        || bus.len() != 2
        || device.len() != 2
        || function.len() != 1
    {
        return None;
    }
    if !text.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
        return None;
    }
    let address = PciAddress {
        domain: u32::from_str_radix(domain, 16).ok()?,
        bus: u8::from_str_radix(bus, 16).ok()?,
        device: u8::from_str_radix(device, 16).ok()?,
        function: u8::from_str_radix(function, 16).ok()?,
    };
    (address.device < 32 && address.function < 8).then_some(address)
}

impl TryFrom<String> for PciAddress {
    type Error = PciAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_reads_back_as_written() {
        let mac: MacAddr = "02:00:5e:10:00:0F".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:0f");
        assert!(mac.is_assignable());
        for bad in ["", "02:00", "02:00:00:00:00:00:00", "2:0:0:0:0:0", "+2:00:00:00:00:00"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn group_and_zero_addresses_are_not_assignable() {
        assert!(!MacAddr([1, 0, 0x5e, 0, 0, 1]).is_assignable());
        assert!(!MacAddr([0; 6]).is_assignable());
    }

    #[test]
    fn a_pci_address_reads_back_as_written() {
        for text in ["0000:3b:00.1", "10000:e1:1f.7"] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), text);
        }
        for bad in ["", "virtio2", "0000:3b:20.0", "0000:3b:00.8", "3b:00.0", "0000:3b:00"] {
            assert!(bad.parse::<PciAddress>().is_err(), "{bad:?}");
        }
    }
}
