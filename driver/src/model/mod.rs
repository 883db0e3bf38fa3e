//! Our nouns as types: what the other rooms talk about.
//!
//! A value of one of these types has been checked at the only door, its constructor; nothing
//! behind that door checks again. This room does no input or output and knows no other room.

mod address;
mod cdi;
mod cpus;
mod device;
mod hook;
mod identity;
mod interface;
mod lease;
mod name;
mod network;
mod node_config;
mod problem;
mod record;
mod selection;
mod sriov;
mod traffic;
mod vitals;
mod wishes;

pub use self::address::{MacAddr, MacAddrError, PciAddress, PciAddressError};
pub use self::cdi::{CdiDevice, CdiSpec, cdi_kind};
pub use self::cpus::{Cpus, CpusError};
pub use self::device::{
    Controller, Device, EbpfAbilities, Form, IMMOVABLE_KINDS, PciFacts, PortFacts, ProvidedValue,
    Queues, RdmaFacts, RdmaLinkLayer, RxMetadata, Sriov, VFIO_DRIVER, VirtualFunction, XdpFeatures,
    XskFeatures,
};
pub use self::hook::{EgressHook, HookReason, IngressHook};
pub use self::identity::{
    AttachmentId, ClaimRef, ClaimUid, IdentityError, IfIndex, NetnsId, NetnsRef, PodRef, PodUid,
    Sandbox, ShareId,
};
pub use self::interface::{At, By, InterfaceState, Place};
pub use self::lease::{Lease, LeaseTimes};
pub use self::name::{DeviceName, DeviceNameError, IfName, IfNameError};
pub use self::network::{
    Belongings, CHANNELS, COALESCE, EthtoolSetting, EthtoolState, Family, Inherit, IpvlanMode,
    MacvlanMode, Neighbor, OtherPrograms, RINGS, Route, RouteProtocol, RouteScope, Rule,
    SUBINTERFACE_PREFIX, SYSCTLS, Segments, SubinterfaceKind, SubinterfaceSpec, SysctlName,
    TableId, Vrf,
};
pub use self::node_config::{
    NamePattern, NoPattern, NodeConfig, NodeLayer, NodeRules, PfSelector, ProviderPlace,
    ProviderRule, PublishRules, SriovRule, matches,
};
pub use self::problem::{Problem, Problems};
pub use self::record::{BuildId, DatapathSpec, KeptPolicy, Phase, Record};
pub use self::selection::Selection;
pub use self::sriov::{
    PfState, RdmaPlace, VfLinkState, VfPlace, VfRecord, VfSettings, VfUse, VfVlan, VlanProtocol,
};
pub use self::traffic::{Ahead, DirectionTraffic, Ends, Flow, PacketCount, RuleTraffic, Traffic};
pub use self::vitals::{LinkSight, Vitals};
pub use self::wishes::{
    Action, Alignment, CpuAlignment, Dad, DefaultAction, DirectionFilter, EbpfWishes,
    EthtoolWishes, Filter, FilterRule, FlowWishes, HookWish, InterfaceWishes, OperatorPolicy,
    Origin, Overlay, PortRange, Protocol, Rate, RateLimit, Telemetry, Wishes,
};
