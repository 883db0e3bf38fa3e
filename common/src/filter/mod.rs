//! What a filter decides about a packet.
//!
//! The first rule that matches decides, the default where none does. Beyond that, so that nothing
//! slips past a rule by being hard to read:
//!
//! - What is surely not IP (ARP, LLDP …) is no business of IP rules and passes, and so does IPv6
//!   neighbour discovery from the link itself: without them the interface would be dead.
//! - Of a packet that could not be read in full, an *allow* rule matches only what it surely
//!   covers, a *deny* rule all that it may cover. So an unknown packet is let through only where
//!   it would be whatever it is.
//! - A fragment other than the first has no ports and matches no rule that names some. Its packet
//!   is judged by the first fragment; without that one it is never put together.
//! - Without a filter everything passes, malformed packets too.

mod rule;

use crate::{Action, Address, MAX_RULES, Packet, Verdict};

use self::rule::Question;
pub use self::rule::{Criteria, Rule};

/// The filter of one direction of one attachment: a value of the map `weir_rules`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ruleset {
    /// Changes with every change of the rules.
    pub generation: u32,
    /// How many of `rules` are meant; the others are zero.
    pub length: u32,
    /// The [`Action`] where no rule matches.
    pub default_action: u32,
    /// Always zero, see [`Packet::blurred`]; the verifier does not know.
    pub zero: u32,
    pub reserved: [u32; 12],
    pub rules: [Rule; MAX_RULES],
}

const _: () = assert!(size_of::<Ruleset>() == 64 + MAX_RULES * size_of::<Rule>());
const _: () = assert!(size_of::<Ruleset>().is_multiple_of(64) && align_of::<Ruleset>() == 8);

#[cfg(feature = "user")]
// SAFETY: `repr(C)` and made of integers only; the assertion above leaves no room for padding.
unsafe impl aya::Pod for Ruleset {}

impl Ruleset {
    /// No rules, only a default.
    pub const fn with_default(action: Action) -> Self {
        Self {
            generation: 0,
            length: 0,
            default_action: action as u32,
            zero: 0,
            reserved: [0; 12],
            rules: [Rule::ZERO; MAX_RULES],
        }
    }

    /// Adds a rule behind the others; `false` when the set is full.
    pub fn push(&mut self, rule: Rule) -> bool {
        match self.rules.get_mut(self.length as usize) {
            Some(slot) => {
                *slot = rule;
                self.length += 1;
                true
            }
            None => false,
        }
    }
}

/// What happens to a packet, and as what it is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decision {
    pub action: Action,
    pub verdict: Verdict,
}

/// The decision where there is no filter.
#[inline(always)]
pub const fn pass(packet: &Packet) -> Decision {
    let verdict = if packet.is_malformed() { Verdict::Malformed } else { Verdict::Allowed };
    Decision { action: Action::Allow, verdict }
}

/// The decision of `rules` about a packet whose [`peer`](Packet::peer) is given; without it, hardly
/// anything is known of the packet.
#[inline(always)]
pub fn judge(packet: &Packet, peer: Option<Address>, rules: &Ruleset) -> Decision {
    if packet.is_foreign() || packet.is_neighbour_discovery() {
        return pass(packet);
    }
    let question = Question::about(packet, peer);
    let mut action = rules.default_action;
    let mut denied = Verdict::DeniedByDefault;
    for index in 0..MAX_RULES {
        if index as u32 >= rules.length {
            break;
        }
        let Some(rule) = rules.rules.get(index) else { break };
        if rule.answers(&question) {
            action = rule.action;
            denied = Verdict::DeniedByRule;
            break;
        }
    }
    if action == Action::Allow as u32 {
        return pass(packet);
    }
    let verdict = if packet.is_malformed() { Verdict::Malformed } else { denied };
    Decision { action: Action::Deny, verdict }
}

#[cfg(test)]
mod tests;
