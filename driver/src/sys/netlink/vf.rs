//! Virtual functions of SR-IOV, by the interface of their physical one.
//!
//! Structures and attributes are those of `include/uapi/linux/if_link.h` (Linux 6.12). The codec is
//! our own: what a driver tells of one function must not hide what it tells of another.

use std::fmt;

use netlink_sys::protocols::NETLINK_ROUTE;

use super::raw::Raw;
use super::socket::AskSocket;
use super::{Netlink, NetlinkError};
use crate::model::{IfIndex, MacAddr, VfLinkState, VfSettings, VfVlan, VlanProtocol};
use crate::sys::generic::{Attribute, Writer, attributes, find};

/// `RTM_GETLINK` and `RTM_SETLINK` (`include/uapi/linux/rtnetlink.h`).
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
/// `struct ifinfomsg`, in which only the index counts here.
const LINK_HEADER: usize = 16;

const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_EXT_MASK: u16 = 29;
/// `RTEXT_FILTER_VF` and `RTEXT_FILTER_SKIP_STATS`: the functions, without what they have counted.
const FUNCTIONS: u32 = 1 | 1 << 3;
const IFLA_VF_INFO: u16 = 1;
const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;
const IFLA_VF_SPOOFCHK: u16 = 4;
const IFLA_VF_LINK_STATE: u16 = 5;
const IFLA_VF_RATE: u16 = 6;
const IFLA_VF_TRUST: u16 = 9;
const IFLA_VF_VLAN_LIST: u16 = 12;
const IFLA_VF_VLAN_INFO: u16 = 1;
/// `MAX_ADDR_LEN`, as long as the field for an address is in `struct ifla_vf_mac`.
const MAX_ADDRESS: usize = 32;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
/// What the kernel says where a driver says nothing (`rtnl_fill_vfinfo()` in `net/core/rtnetlink.c`).
const UNTOLD: u32 = u32::MAX;

impl Netlink {
    /// What a physical function tells of one of its virtual ones; `None` where it has none of this
    /// number.
    pub fn function(&self, pf: IfIndex, number: u32) -> Result<Option<VfSettings>, NetlinkError> {
        let request = format!("look at virtual function {number} of interface {pf}");
        let mut body = Writer::default();
        body.put_u32(IFLA_EXT_MASK, FUNCTIONS);
        let answers = raw()?.ask(&request, message(GET_LINK, pf, body), 0)?;
        let functions = answers.iter().filter_map(|answer| answer.body.get(LINK_HEADER..));
        let mut functions = functions.flat_map(decode_functions);
        Ok(functions.find(|(found, _)| *found == number).map(|(_, settings)| settings))
    }

    /// Tells a physical function what one of its virtual ones shall have: each setting by a request
    /// of its own, so that whatever its driver refuses is told by its name. Both rates go together:
    /// the one that is not given has to be in `now`.
    pub fn set_function(
        &self,
        pf: IfIndex,
        number: u32,
        settings: &VfSettings,
        now: &VfSettings,
    ) -> Result<(), NetlinkError> {
        let socket = raw()?;
        for (noun, attribute) in encode(number, settings, now) {
            let request = format!("set {noun} of virtual function {number} of interface {pf}");
            let mut body = Writer::default();
            body.nest(IFLA_VFINFO_LIST, |list| {
                list.nest(IFLA_VF_INFO, |info| match &attribute {
                    Part::Plain(kind, value) => info.put(*kind, value),
                    Part::Vlan(value) => {
                        info.nest(IFLA_VF_VLAN_LIST, |all| all.put(IFLA_VF_VLAN_INFO, value));
                    }
                });
            });
            socket.ask(&request, message(SET_LINK, pf, body), 0)?;
        }
        Ok(())
    }
}

/// A socket of the calling thread's namespace, which is the host's: physical functions that have
/// left it are not asked.
fn raw() -> Result<AskSocket<Raw>, NetlinkError> {
    AskSocket::open(NETLINK_ROUTE).map_err(NetlinkError::Open)
}

fn message(kind: u16, pf: IfIndex, attributes: Writer) -> Raw {
    let mut body = vec![0; LINK_HEADER];
    body[4..8].copy_from_slice(&pf.0.to_ne_bytes());
    body.extend(attributes.finish());
    Raw { kind, body }
}

/// What a request is about, and what it says.
#[derive(Debug, Eq, PartialEq)]
enum Part {
    Plain(u16, Vec<u8>),
    /// In a list, which can have one entry so far.
    Vlan(Vec<u8>),
}

/// The settings, in the order in which they are made. Trust first: some drivers let only a trusted
/// function have some of the others.
fn encode(number: u32, settings: &VfSettings, now: &VfSettings) -> Vec<(&'static str, Part)> {
    let words = |words: &[u32]| -> Vec<u8> {
        [&[number], words].concat().iter().flat_map(|word| word.to_ne_bytes()).collect()
    };
    let plain = |kind, all: &[u32]| Part::Plain(kind, words(all));
    let mut parts = Vec::new();
    if let Some(trust) = settings.trust {
        parts.push(("trust", plain(IFLA_VF_TRUST, &[trust.into()])));
    }
    if let Some(MacAddr(mac)) = settings.mac {
        let mut value = words(&[]);
        value.extend(mac);
        value.resize(size_of::<u32>() + MAX_ADDRESS, 0);
        parts.push(("MAC address", Part::Plain(IFLA_VF_MAC, value)));
    }
    if let Some(vlan) = settings.vlan {
        let mut value = words(&[vlan.id.into(), vlan.qos.into()]);
        let protocol = match vlan.protocol {
            VlanProtocol::Dot1Q => ETH_P_8021Q,
            VlanProtocol::Dot1Ad => ETH_P_8021AD,
        };
        value.extend(protocol.to_be_bytes());
        value.resize(value.len().next_multiple_of(4), 0);
        parts.push(("VLAN", Part::Vlan(value)));
    }
    let rate = |wished: Option<u32>, is: Option<u32>| wished.or(is).unwrap_or_default();
    if settings.min_tx_rate_mbps.is_some() || settings.max_tx_rate_mbps.is_some() {
        let rates = [
            rate(settings.min_tx_rate_mbps, now.min_tx_rate_mbps),
            rate(settings.max_tx_rate_mbps, now.max_tx_rate_mbps),
        ];
        parts.push(("transmit rates", plain(IFLA_VF_RATE, &rates)));
    }
    if let Some(check) = settings.spoof_check {
        parts.push(("spoof check", plain(IFLA_VF_SPOOFCHK, &[check.into()])));
    }
    if let Some(state) = settings.link_state {
        let state = match state {
            VfLinkState::Auto => 0,
            VfLinkState::Enable => 1,
            VfLinkState::Disable => 2,
        };
        parts.push(("link state", plain(IFLA_VF_LINK_STATE, &[state])));
    }
    parts
}

/// The functions among a link's attributes, each with its number.
pub(super) fn decode_functions(attributes: &[u8]) -> Vec<(u32, VfSettings)> {
    let Some(list) = find(attributes, IFLA_VFINFO_LIST) else { return Vec::new() };
    let functions = list.nested().filter(|info| info.kind == IFLA_VF_INFO);
    functions.filter_map(|info| decode(info.value)).collect()
}

/// One function. The address that each structure begins with is its number.
fn decode(info: &[u8]) -> Option<(u32, VfSettings)> {
    let mut settings = VfSettings::default();
    let mut number = None;
    for attribute in attributes(info) {
        let word = |nth: usize| -> Option<u32> {
            let bytes = attribute.value.get(nth * 4..)?.first_chunk()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        let flag = || word(1).filter(|value| *value != UNTOLD).map(|value| value != 0);
        match attribute.kind {
            IFLA_VF_MAC => {
                number = word(0);
                settings.mac = attribute.value.get(4..10).and_then(mac);
            }
            IFLA_VF_VLAN => {
                let protocol = settings.vlan.map(|vlan| vlan.protocol).unwrap_or_default();
                settings.vlan = vlan(word(1), word(2), protocol);
            }
            IFLA_VF_VLAN_LIST => {
                if let Some(tagged) = attribute.nested().find_map(tagged) {
                    settings.vlan = Some(tagged);
                }
            }
            IFLA_VF_RATE => {
                settings.min_tx_rate_mbps = word(1);
                settings.max_tx_rate_mbps = word(2);
            }
            IFLA_VF_SPOOFCHK => settings.spoof_check = flag(),
            IFLA_VF_TRUST => settings.trust = flag(),
            IFLA_VF_LINK_STATE => {
                settings.link_state = match word(1) {
                    Some(0) => Some(VfLinkState::Auto),
                    Some(1) => Some(VfLinkState::Enable),
                    Some(2) => Some(VfLinkState::Disable),
                    _ => None,
                };
            }
            _ => {}
        }
    }
    Some((number?, settings))
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}

fn vlan(id: Option<u32>, qos: Option<u32>, protocol: VlanProtocol) -> Option<VfVlan> {
    Some(VfVlan { id: id?.try_into().ok()?, qos: qos?.try_into().ok()?, protocol })
}

/// `struct ifla_vf_vlan_info`: function, VLAN, priority, and the protocol in network byte order.
fn tagged(entry: Attribute<'_>) -> Option<VfVlan> {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(*entry.value.get(at..)?.first_chunk()?))
    };
    let protocol = u16::from_be_bytes(*entry.value.get(12..)?.first_chunk()?);
    let protocol =
        if protocol == ETH_P_8021AD { VlanProtocol::Dot1Ad } else { VlanProtocol::Dot1Q };
    vlan(word(4), word(8), protocol).filter(|_| entry.kind == IFLA_VF_VLAN_INFO)
}

impl fmt::Debug for AskSocket<Raw> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AskSocket")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> VfSettings {
        VfSettings {
            mac: Some(MacAddr([2, 0, 0, 0, 0, 9])),
            vlan: Some(VfVlan { id: 100, qos: 3, protocol: VlanProtocol::Dot1Ad }),
            trust: Some(true),
            spoof_check: Some(false),
            min_tx_rate_mbps: Some(10),
            max_tx_rate_mbps: Some(200),
            link_state: Some(VfLinkState::Disable),
        }
    }

    /// As the kernel answers: all settings of a function in one nest, those of before 4.9 too.
    fn told(number: u32, settings: &VfSettings) -> Vec<u8> {
        let mut list = Writer::default();
        list.nest(IFLA_VFINFO_LIST, |list| {
            list.nest(IFLA_VF_INFO, |info| {
                let old = [number, 100, 3].into_iter().flat_map(u32::to_ne_bytes);
                info.put(IFLA_VF_VLAN, &old.collect::<Vec<_>>());
                for (_, part) in encode(number, settings, &VfSettings::default()) {
                    match part {
                        Part::Plain(kind, value) => info.put(kind, &value),
                        Part::Vlan(value) => {
                            info.nest(IFLA_VF_VLAN_LIST, |all| all.put(IFLA_VF_VLAN_INFO, &value));
                        }
                    }
                }
            });
        });
        list.finish()
    }

    #[test]
    fn settings_read_back_as_written() {
        assert_eq!(decode_functions(&told(3, &everything())), [(3, everything())]);
    }

    /// `IFLA_VFINFO_LIST` of one function without spoof check and trust, as Linux 6.12 writes it for
    /// a driver that tells only what it has to.
    #[test]
    fn what_a_driver_does_not_tell_is_unknown() {
        let mut bytes = vec![0x54, 0, 0x16, 0, 0x50, 0, 1, 0];
        bytes.extend([0x28, 0, 1, 0, 0, 0, 0, 0, 0x52, 0x54, 0, 0, 0, 0x11]);
        bytes.extend([0; 26]);
        bytes.extend([0x0c, 0, 4, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        bytes.extend([0x0c, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([0x0c, 0, 9, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        let found = VfSettings {
            mac: Some(MacAddr([0x52, 0x54, 0, 0, 0, 0x11])),
            link_state: Some(VfLinkState::Auto),
            ..VfSettings::default()
        };
        assert_eq!(decode_functions(&bytes), [(0, found)]);
    }

    #[test]
    fn a_rate_that_is_not_set_stays_as_it_is() {
        let now = VfSettings { min_tx_rate_mbps: Some(7), ..VfSettings::default() };
        let wished = VfSettings { max_tx_rate_mbps: Some(50), ..VfSettings::default() };
        let words: Vec<u8> = [1_u32, 7, 50].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let parts = encode(1, &wished, &now);
        assert_eq!(parts, [("transmit rates", Part::Plain(IFLA_VF_RATE, words))]);
    }

    #[test]
    fn nonsense_tells_of_no_function() {
        assert_eq!(decode_functions(&[]), []);
        assert_eq!(decode_functions(&[255; 64]), []);
        assert_eq!(decode_functions(&[8, 0, 22, 0, 4, 0, 1, 0]), []);
    }
}
