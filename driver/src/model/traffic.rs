//! What the programs counted, summed over CPUs, and what they saw.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::Origin;

/// Packets and bytes. Bytes include the link-layer header.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct PacketCount {
    pub packets: u64,
    pub bytes: u64,
}

/// Traffic of one attachment since it was prepared, by direction as the pod sees it.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    pub ingress: DirectionTraffic,
    pub egress: DirectionTraffic,
}

impl Traffic {
    /// Both directions with their names.
    pub fn directions(&self) -> [(&'static str, &DirectionTraffic); 2] {
        [("ingress", &self.ingress), ("egress", &self.egress)]
    }
}

/// Traffic in one direction. Each packet is in `total`, in one verdict, in one protocol and in one
/// size.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectionTraffic {
    pub total: PacketCount,
    /// By verdict, in the order and with the names of `common::Verdict`.
    pub verdicts: Vec<(&'static str, PacketCount)>,
    /// By protocol, in the order and with the names of `common::Protocol`.
    pub protocols: Vec<(&'static str, PacketCount)>,
    /// Packets of at most so many bytes, and of more than the size before. The last has no limit.
    pub sizes: Vec<(Option<u32>, u64)>,
    /// TCP segments by what their flags say, with the names of `common::TcpEvent`.
    pub tcp_events: Vec<(&'static str, u64)>,
    /// Packets that are part of a fragmented one.
    pub fragments: u64,
    /// Packets with a VLAN tag.
    pub tagged: u64,
    /// Packets let through only because they answer others.
    pub replies: u64,
    /// Flows that had to leave the cache for others.
    pub flows_evicted: u64,
    /// Those of them that were handed to user space.
    pub flows_exported: u64,
    /// Those of them that should have been, but nobody made room.
    pub flows_lost: u64,
    /// The state of the filter that judged the last packet; zero where none did.
    pub generation: u64,
}

/// What one rule of a filter matched. Those that count and go on have what they counted.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleTraffic {
    /// `ingress` or `egress`.
    pub direction: &'static str,
    pub origin: Origin,
    pub rule: String,
    #[serde(flatten)]
    pub matched: PacketCount,
}

/// Who talks to whom: one direction of a conversation.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// `ingress` or `egress`.
    pub direction: &'static str,
    pub protocol: &'static str,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ends: Ends,
    /// Those that were seen, a letter for each as tcpdump has them.
    pub tcp_flags: String,
    /// Of the last packet. A dash where the map holds none, because somebody wrote into it.
    pub verdict: &'static str,
    #[serde(flatten)]
    pub seen: PacketCount,
    /// How long ago the first packet was seen, in seconds.
    #[serde(rename = "firstSeenSecondsAgo", serialize_with = "seconds")]
    pub first_seen: Duration,
    /// And the last one.
    #[serde(rename = "lastSeenSecondsAgo", serialize_with = "seconds")]
    pub last_seen: Duration,
}

/// What tells flows between two addresses apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", untagged)]
pub enum Ends {
    Ports {
        source_port: u16,
        destination_port: u16,
    },
    Icmp {
        icmp_identifier: u16,
        icmp_type: u16,
    },
    /// Neither, or it could not be read.
    None {},
}

/// Programs that run before ours where one attachment's packets pass, by name. What they drop or
/// take is not seen by ours. `None` where nobody can tell: filters of `clsact` are in no order.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ahead {
    pub ingress: Option<Vec<String>>,
    pub egress: Option<Vec<String>>,
}

impl Ahead {
    /// Both directions are watched, and nothing is ahead.
    #[cfg(any(test, feature = "testing"))]
    pub const NOTHING: Self = Self { ingress: Some(Vec::new()), egress: Some(Vec::new()) };

    /// Whether any program is known to be ahead.
    pub fn is_any(&self) -> bool {
        self.directions().iter().any(|(_, programs)| programs.is_some_and(|it| !it.is_empty()))
    }

    /// Whether both directions are watched, so that what is not known is not there.
    pub fn is_watched(&self) -> bool {
        self.ingress.is_some() && self.egress.is_some()
    }

    /// Both directions with their names.
    pub fn directions(&self) -> [(&'static str, Option<&[String]>); 2] {
        [("ingress", self.ingress.as_deref()), ("egress", self.egress.as_deref())]
    }
}

/// Tells of the programs that there are.
impl std::fmt::Display for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for (direction, programs) in self.directions() {
            if let Some(programs) = programs.filter(|programs| !programs.is_empty()) {
                write!(f, "{separator}{direction}: {}", programs.join(", "))?;
                separator = "; ";
            }
        }
        Ok(())
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
