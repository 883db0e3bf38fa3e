//! The arguments of each command.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Places;

pub(super) const STATE_DIR: &str = "/var/lib/weir";
pub(super) const BPFFS: &str = "/sys/fs/bpf";

/// How devices are described, of whoever publishes them or looks at them.
#[derive(Args, Clone, Debug, Default)]
pub struct MannerArgs {
    /// The driver's name in the API; left out, weir.dev, or dra.net where that is what it is
    /// compatible with.
    #[arg(long, value_name = "NAME")]
    pub driver_name: Option<String>,
    /// What attributes and capacities of devices are named after; left out, the driver's name.
    #[arg(long, value_name = "NAME")]
    pub attribute_domain: Option<String>,
    /// Whose attributes devices have. `dranet`: those of DraNet, under its name, so that claims written
    /// for it select our devices.
    #[arg(long, value_name = "DRIVER")]
    pub compat: Option<String>,
    /// An interface that several claims may share, and how many; can be given several times. Each gets
    /// an interface of its own upon it, as `subinterface` of its configuration says.
    #[arg(long = "share", value_name = "IFNAME=COUNT")]
    pub shares: Vec<String>,
}

/// Arguments of `weir node`, as they were written.
///
/// All are text: `Config` checks them, so that whatever is wrong with them is said at once and not
/// one thing for each start.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// The name of this node's Node object.
    #[arg(
        long,
        env = "NODE_NAME",
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub node_name: String,
    #[command(flatten)]
    pub manner: MannerArgs,
    /// A kubeconfig file; left out, the usual places and then the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<String>,
    /// Kubelet's directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub kubelet_root: String,
    /// The container runtime's NRI socket.
    #[arg(long, value_name = "SOCKET", default_value = "/var/run/nri/nri.sock")]
    pub nri_socket: String,
    /// Two digits: the order among the runtime's plugins.
    #[arg(long, value_name = "NN", default_value = "10")]
    pub nri_index: String,
    /// Where sysfs is mounted.
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub sysfs: String,
    /// Where bpffs is mounted, or shall be.
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    pub bpffs: String,
    /// Where the driver remembers what is prepared. Must outlive its pod.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: String,
    /// Where the container runtime looks for CDI specifications.
    #[arg(long, value_name = "DIR", default_value = "/var/run/cdi")]
    pub cdi_dir: String,
    /// Where a program is put that the runtime calls, on the host and here under the same path.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weir/bin")]
    pub gate_dir: String,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9177")]
    pub listen: String,
    /// How log lines look: text or json. `RUST_LOG` chooses what is logged.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: String,
    /// Log each packet that a filter drops, with its pod. Costs each of them some tens of
    /// nanoseconds; what there is no room for is left out.
    #[arg(long)]
    pub log_drops: bool,
    /// Taint devices that have no carrier, or are gone while a claim holds them, so that nothing is
    /// scheduled onto them.
    #[arg(long)]
    pub taint: bool,
    /// A configuration file of kind `NodeConfig`: what is offered to claims, virtual functions to make,
    /// and whom to ask about devices. `weir check` tells what is wrong with it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// A file of the same kind on this node, which replaces fields of the other. There need not be one.
    #[arg(long, value_name = "FILE")]
    pub node_config: Option<String>,
    /// How long attaching may hold up the runtime, in milliseconds.
    #[arg(long, value_name = "MS", default_value = "1500")]
    pub attach_budget_ms: String,
}

/// How an answer looks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

/// Arguments of `weir devices`.
#[derive(Args, Clone, Debug)]
pub struct DevicesArgs {
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
    /// Say of each interface whether it is offered, and why or by which rule it is not.
    #[arg(long)]
    pub explain: bool,
    /// A configuration file to see what would hold with it; left out, what holds for the driver that
    /// ran here last.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The name of the profile in it that counts on this node.
    #[arg(long, value_name = "NAME", requires = "config")]
    pub profile: Option<String>,
    #[command(flatten)]
    pub manner: MannerArgs,
    /// Where sysfs is mounted.
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub sysfs: PathBuf,
    /// The driver's directory with its checkpoint.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,
}

/// Arguments of `weir top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Show what was counted so far, once, instead of rates again and again.
    #[arg(long)]
    pub once: bool,
    /// The time between two readings, such as 500ms, 2s or 1m.
    #[arg(long, default_value = "2s", value_parser = interval)]
    pub interval: Duration,
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
    #[command(flatten)]
    pub places: Places,
}

/// Arguments of `weir inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// A pod or claim, by NAMESPACE/NAME, by name or by UID, or the name of a device.
    pub what: String,
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
    #[command(flatten)]
    pub places: Places,
}

/// Arguments of `weir check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// YAML or JSON with any number of documents: a `NetworkConfig`, `NodeConfig` or `NodePolicy`, or a
    /// `ResourceClaim`, `ResourceClaimTemplate` or `DeviceClass` that has some. `-` is standard input.
    /// A claim is checked with its class where a file has that, too.
    #[arg(required_unless_present = "schema", value_name = "FILE")]
    pub files: Vec<String>,
    /// Print a JSON schema, of `NetworkConfig` unless told otherwise, and check nothing.
    #[arg(
        long,
        value_name = "KIND",
        value_enum,
        num_args = 0..=1,
        default_missing_value = "NetworkConfig",
        conflicts_with_all = ["files", "output"]
    )]
    pub schema: Option<SchemaKind>,
    /// The driver's name in the API: what is for others is skipped.
    #[arg(long, value_name = "NAME", default_value = "weir.dev")]
    pub driver_name: String,
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// What there is a schema of.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum SchemaKind {
    NetworkConfig,
    NodeConfig,
}

/// Arguments of `weir flows`.
#[derive(Args, Clone, Debug)]
pub struct FlowsArgs {
    /// A pod or claim, by NAMESPACE/NAME, by name or by UID, or the name of a device; left out, all.
    pub what: Option<String>,
    /// How many to show.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub top: usize,
    /// Which come first: those with most bytes or packets, or those seen last.
    #[arg(long, value_enum, default_value_t)]
    pub sort: FlowOrder,
    /// Only what comes in, or goes out, as the pod sees it.
    #[arg(long, value_enum)]
    pub direction: Option<Way>,
    /// Show flows as they leave the cache, until interrupted, instead of those in it. Somebody else
    /// who does the same for the same device is refused.
    #[arg(long, conflicts_with_all = ["top", "sort"])]
    pub follow: bool,
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
    #[command(flatten)]
    pub places: Places,
}

/// What flows are sorted by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum FlowOrder {
    #[default]
    Bytes,
    Packets,
    Last,
}

/// A direction, as the pod sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Way {
    Ingress,
    Egress,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A number with a unit, seconds where there is none, from 100 ms to an hour.
fn interval(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "not an interval from 100ms to 1h, such as 500ms, 2s or 1m";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(WRONG),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(milliseconds))
        .filter(|milliseconds| (100..=3_600_000).contains(milliseconds))
        .map(Duration::from_millis)
        .ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_a_unit_or_means_seconds() {
        let milliseconds = |text| interval(text).map(|interval| interval.as_millis());
        assert_eq!(milliseconds("500ms"), Ok(500));
        assert_eq!(milliseconds("2s"), Ok(2000));
        assert_eq!(milliseconds("3"), Ok(3000));
        assert_eq!(milliseconds("1m"), Ok(60_000));
        assert_eq!(milliseconds("1h"), Ok(3_600_000));
        for wrong in ["", "s", "0", "99ms", "2h", "1.5s", "-1s", "18446744073709551615s", "2 s"] {
            assert!(interval(wrong).is_err(), "{wrong:?}");
        }
    }
}
