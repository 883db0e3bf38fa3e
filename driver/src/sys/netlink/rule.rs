//! Rules of policy routing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::route::address_family;
use super::{Netlink, NetlinkError};
use crate::model::{Family, Rule, TableId};

impl Netlink {
    /// All rules of both families that a [`Rule`] can say in full, in the kernel's order.
    pub fn rules(&self) -> Result<Vec<Rule>, NetlinkError> {
        let mut rules = Vec::new();
        for family in [Family::Ipv4, Family::Ipv6] {
            for message in self.list_rules(family)? {
                if let Some(rule) = read(&message) {
                    rules.push(rule);
                } else {
                    tracing::debug!(?message, "left out a rule of another kind");
                }
            }
        }
        Ok(rules)
    }

    /// Whether there is exactly this rule.
    pub fn has_rule(&self, rule: &Rule) -> Result<bool, NetlinkError> {
        let wished = Some(trimmed(rule));
        Ok(self.list_rules(rule.family)?.iter().any(|message| read(message) == wished))
    }

    pub fn add_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let request = format_args!("add rule {} to table {}", rule.priority, rule.table.0);
        let message = RouteNetlinkMessage::NewRule(write(rule));
        self.socket.ask(&request, message, NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Removes a static rule, if it is there.
    ///
    /// A request that names no source means any to the kernel (`fib4_rule_compare()` in
    /// `net/ipv4/fib_rules.c`, Linux 6.12), and it removes the first rule that fits. By the same
    /// comparison it refuses a rule without a source after one with a source, so where there is exactly
    /// this rule, it is the first that fits.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::is_absent`] where there is no such rule.
    pub fn remove_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let request = format!("remove rule {} to table {}", rule.priority, rule.table.0);
        let rule = trimmed(rule);
        let is_it =
            |message: &RuleMessage| is_static(message) && read(message).as_ref() == Some(&rule);
        if !self.list_rules(rule.family)?.iter().any(is_it) {
            let source = std::io::Error::from_raw_os_error(nix::libc::ENOENT);
            return Err(NetlinkError::Refused { request, explanation: None, source });
        }
        let message = RouteNetlinkMessage::DelRule(write(&rule));
        self.socket.ask(&request, message, 0).map(drop)
    }

    fn list_rules(&self, family: Family) -> Result<Vec<RuleMessage>, NetlinkError> {
        let mut message = RuleMessage::default();
        message.header.family = address_family(family);
        let request = RouteNetlinkMessage::GetRule(message);
        let answers = self.socket.list(&"list rules", &request)?;
        let rules = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRule(rule) => Some(rule),
            _ => None,
        });
        Ok(rules.collect())
    }
}

fn trimmed(rule: &Rule) -> Rule {
    let trunc = |net: Option<IpNet>| net.map(|net| net.trunc()).filter(|net| net.prefix_len() > 0);
    Rule { source: trunc(rule.source), destination: trunc(rule.destination), ..rule.clone() }
}

/// What a message says that has nothing but the parts of a [`Rule`]; `None` for one that has more.
pub(super) fn read(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    // Whether the rule is made for good says nothing about what it does.
    let flags = header.flags.difference(RuleFlags::Permanent);
    if header.action != RuleAction::ToTable || header.tos != 0 || !flags.is_empty() {
        return None;
    }
    let (family, any) = match header.family {
        AddressFamily::Inet => (Family::Ipv4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        AddressFamily::Inet6 => (Family::Ipv6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        _ => return None,
    };
    let (mut source, mut destination) = (any, any);
    let (mut priority, mut table) = (0, u32::from(header.table));
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(address) => source = *address,
            RuleAttribute::Destination(address) => destination = *address,
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            // The kernel tells of this one always; all ones is none.
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::Protocol(_) => {}
            _ => return None,
        }
    }
    let net = |address, length: u8| match length {
        0 => Some(None),
        _ => IpNet::new(address, length).ok().map(Some),
    };
    let (source, destination) = (net(source, header.src_len)?, net(destination, header.dst_len)?);
    Some(Rule { family, priority, source, destination, table: TableId(table) })
}

fn is_static(message: &RuleMessage) -> bool {
    message.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::Static))
}

fn write(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(rule.family);
    message.header.action = RuleAction::ToTable;
    let nets = [
        (rule.source, RuleAttribute::Source as fn(IpAddr) -> RuleAttribute),
        (rule.destination, RuleAttribute::Destination),
    ];
    let mut lengths = [0; 2];
    for ((net, attribute), length) in nets.into_iter().zip(&mut lengths) {
        if let Some(net) = net.map(|net| net.trunc()).filter(|net| net.prefix_len() > 0) {
            *length = net.prefix_len();
            message.attributes.push(attribute(net.addr()));
        }
    }
    [message.header.src_len, message.header.dst_len] = lengths;
    message.header.table = u8::try_from(rule.table.0).unwrap_or(0);
    message.attributes.push(RuleAttribute::Table(rule.table.0));
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Static));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(source: Option<&str>) -> Rule {
        Rule {
            family: Family::Ipv4,
            priority: 100,
            source: source.map(|text| text.parse().unwrap()),
            destination: None,
            table: TableId(1000),
        }
    }

    #[test]
    fn a_rule_reads_back_as_written() {
        let six = Rule {
            family: Family::Ipv6,
            destination: Some("fd00::/64".parse().unwrap()),
            priority: 0,
            ..rule(None)
        };
        for rule in [rule(None), rule(Some("10.0.0.0/8")), six] {
            assert_eq!(read(&write(&rule)), Some(rule));
        }
    }

    #[test]
    fn a_rule_with_more_to_it_is_none_of_ours() {
        let more = |attribute| {
            let mut message = write(&rule(None));
            message.attributes.push(attribute);
            read(&message)
        };
        assert!(more(RuleAttribute::SuppressPrefixLen(u32::MAX)).is_some());
        assert_eq!(more(RuleAttribute::SuppressPrefixLen(0)), None);
        assert_eq!(more(RuleAttribute::FwMark(1)), None);
        assert_eq!(more(RuleAttribute::Iifname("lo".to_owned())), None);
        let mut inverted = write(&rule(None));
        inverted.header.flags = RuleFlags::Invert;
        assert_eq!(read(&inverted), None);
    }
}
