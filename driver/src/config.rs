//! The driver's configuration: validated once; nothing reads the environment or flags later.

mod node_files;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

pub use self::node_files::{NodeFiles, NodeSettings, UnknownProfile, node_config};
use crate::admin;
use crate::cli::{MannerArgs, NodeArgs};
use crate::dra::{Manner, Names, Shares, Vocabulary};
use crate::model::{DeviceName, Problems};
use crate::sys::socket::{self, MAX_PATH_LEN};

/// Everything that `weir node` is told from outside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// The Node object that this driver speaks for; also the name of its pool.
    pub node_name: String,
    /// The driver's name in the DRA API, `weir.dev` unless told otherwise.
    pub driver_name: String,
    /// By which names devices are described.
    pub vocabulary: Vocabulary,
    /// `None`: the usual places, then the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// Kubelet's directory, with `plugins` and `plugins_registry` below.
    pub kubelet_root: PathBuf,
    pub nri_socket: PathBuf,
    /// Two digits: the order among the runtime's plugins.
    pub nri_index: String,
    pub sysfs: PathBuf,
    /// Where bpffs is mounted, or shall be.
    pub bpffs: PathBuf,
    /// Where the checkpoint lies. Must outlive the driver's pod.
    pub state_dir: PathBuf,
    /// Where the container runtime looks for CDI specifications.
    pub cdi_dir: PathBuf,
    /// Where the gate is put. The runtime has to find it under the same path.
    pub gate_dir: PathBuf,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub listen: SocketAddr,
    pub log_format: LogFormat,
    /// Whether each packet that is dropped is logged.
    pub log_drops: bool,
    /// Interfaces that several claims may share, and how many claims.
    pub shares: Shares,
    /// Whether devices that are no good are tainted.
    pub taint: bool,
    /// How long an attach may hold up the runtime at most; less where the runtime announces less.
    pub attach_budget: Duration,
    /// They were valid when they were read first.
    pub files: NodeFiles,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Longest name of a DRA driver (`resource.k8s.io/v1`, `DriverNameMaxLength`).
const LONGEST_DRIVER_NAME: usize = 63;
/// Longest domain of an attribute (`DeviceMaxDomainLength` in `api/resource/v1`, Kubernetes 1.36).
const LONGEST_DOMAIN: usize = 63;
/// Longest name of a Node object: a DNS subdomain.
const LONGEST_NODE_NAME: usize = 253;
/// One is a device of its own; more than that is likely a mistake.
const SHARES: RangeInclusive<u32> = 2..=1024;
/// Less leaves no time to do anything, more than any runtime waits.
const ATTACH_BUDGET_MS: RangeInclusive<u64> = 100..=60_000;

impl TryFrom<&NodeArgs> for Config {
    type Error = Problems;

    /// Checks every argument. The paths of the problems are the names of the flags.
    fn try_from(args: &NodeArgs) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        check_name("--node-name", &args.node_name, LONGEST_NODE_NAME, &mut problems);
        let (driver_name, vocabulary) = names(&args.manner, &mut problems);
        check_name("--driver-name", &driver_name, LONGEST_DRIVER_NAME, &mut problems);
        if driver_name.starts_with(|c: char| c.is_ascii_digit()) {
            // `ValidateVendorName` in container-device-interface.
            let message = "starts with a digit, which no name of a CDI device may";
            problems.add("--driver-name", message);
        }
        let kubelet_root = absolute("--kubelet-root", &args.kubelet_root, &mut problems);
        let nri_socket = absolute("--nri-socket", &args.nri_socket, &mut problems);
        if args.nri_socket.len() > MAX_PATH_LEN {
            let message =
                format_args!("{} bytes are more than {MAX_PATH_LEN}", args.nri_socket.len());
            problems.add("--nri-socket", message);
        }
        if args.nri_index.len() != 2 || !args.nri_index.bytes().all(|b| b.is_ascii_digit()) {
            problems.add("--nri-index", format_args!("{:?} is not two digits", args.nri_index));
        }
        let sysfs = absolute("--sysfs", &args.sysfs, &mut problems);
        let bpffs = absolute("--bpffs", &args.bpffs, &mut problems);
        let state_dir = absolute("--state-dir", &args.state_dir, &mut problems);
        let cdi_dir = absolute("--cdi-dir", &args.cdi_dir, &mut problems);
        let gate_dir = absolute("--gate-dir", &args.gate_dir, &mut problems);
        let needed = socket::needed_path_len(&admin::socket_path(&state_dir));
        if needed > MAX_PATH_LEN {
            let message =
                format_args!("the socket in it needs {needed} bytes, more than {MAX_PATH_LEN}");
            problems.add("--state-dir", message);
        }
        let listen = args.listen.parse().ok();
        if listen.is_none() {
            let message = format_args!("{:?} is no address such as [::]:9177", args.listen);
            problems.add("--listen", message);
        }
        let log_format = match args.log_format.as_str() {
            "json" => LogFormat::Json,
            "text" => LogFormat::Text,
            other => {
                problems.add("--log-format", format_args!("{other:?} is not text or json"));
                LogFormat::default()
            }
        };
        let shares = shares(&args.manner.shares, &mut problems);
        let attach_budget = attach_budget(&args.attach_budget_ms, &mut problems);
        let files = files(args, &mut problems);
        let config = |listen| Self {
            node_name: args.node_name.clone(),
            driver_name,
            vocabulary,
            kubeconfig: args.kubeconfig.as_ref().filter(|it| !it.is_empty()).map(PathBuf::from),
            kubelet_root,
            nri_socket,
            nri_index: args.nri_index.clone(),
            sysfs,
            bpffs,
            state_dir,
            cdi_dir,
            gate_dir,
            listen,
            log_format,
            log_drops: args.log_drops,
            shares,
            taint: args.taint,
            attach_budget,
            files,
        };
        match listen {
            Some(listen) => problems.or(config(listen)),
            None => Err(problems),
        }
    }
}

/// In which manner a driver with these arguments offers its devices.
///
/// # Errors
///
/// Everything that is wrong with them.
pub fn manner(args: &MannerArgs) -> Result<Manner, Problems> {
    let mut problems = Problems::default();
    let (driver, vocabulary) = names(args, &mut problems);
    let shares = shares(&args.shares, &mut problems);
    problems.or(Manner { driver, vocabulary, shares })
}

/// The driver's name, and by which names its devices are described.
fn names(args: &MannerArgs, problems: &mut Problems) -> (String, Vocabulary) {
    let names = match args.compat.as_deref() {
        None => Names::Ours,
        Some("dranet") => Names::Dranet,
        Some(other) => {
            problems.add("--compat", format_args!("{other:?} is not dranet"));
            Names::Ours
        }
    };
    let usual = match names {
        Names::Ours => "weir.dev",
        Names::Dranet => "dra.net",
    };
    let driver = args.driver_name.clone().unwrap_or_else(|| usual.to_owned());
    let domain = args.attribute_domain.clone().unwrap_or_else(|| driver.clone());
    // Claims name both, so whoever is compatible has no choice.
    let flags =
        [("--driver-name", &args.driver_name), ("--attribute-domain", &args.attribute_domain)];
    for (flag, given) in flags {
        if names == Names::Dranet && given.as_ref().is_some_and(|given| given != usual) {
            problems.add(flag, format_args!("claims for DraNet say {usual}"));
        }
    }
    check_name("--attribute-domain", &domain, LONGEST_DOMAIN, problems);
    (driver, Vocabulary { names, domain })
}

/// A DNS subdomain: labels with dots between them.
fn check_name(flag: &str, name: &str, longest: usize, problems: &mut Problems) {
    if name.is_empty() {
        problems.add(flag, "is required");
    } else if name.len() > longest {
        problems.add(flag, format_args!("{} bytes are more than {longest}", name.len()));
    } else if !name.split('.').all(|label| DeviceName::from_str(label).is_ok()) {
        let rule = "labels of a-z, 0-9 and `-` with dots between them";
        problems.add(flag, format_args!("{name:?} is no DNS name: {rule}"));
    }
}

/// A relative path would mean something else wherever the driver is started.
fn absolute(flag: &str, path: &str, problems: &mut Problems) -> PathBuf {
    if !path.starts_with('/') {
        problems.add(flag, format_args!("{path:?} is not an absolute path"));
    }
    PathBuf::from(path)
}

fn files(args: &NodeArgs, problems: &mut Problems) -> NodeFiles {
    let path = |file: &Option<String>| file.as_ref().filter(|it| !it.is_empty()).map(PathBuf::from);
    let files = NodeFiles { shared: path(&args.config), own: path(&args.node_config) };
    if let Err(found) = files.read() {
        for problem in &found {
            problems.add(&*problem.path, &problem.message);
        }
    }
    files
}

fn shares(texts: &[String], problems: &mut Problems) -> Shares {
    let mut shares = Shares::new();
    for text in texts {
        let (name, count) = text.split_once('=').unwrap_or((text, ""));
        match (name.parse(), count.parse()) {
            (Ok(name), Ok(count)) if SHARES.contains(&count) => {
                if shares.insert(name, count).is_some() {
                    problems.add("--share", format_args!("{text:?} is about the same as another"));
                }
            }
            _ => {
                let (least, most) = (SHARES.start(), SHARES.end());
                let rule = format_args!(
                    "{text:?} is no interface with a number from {least} to {most}, such as eth1=8"
                );
                problems.add("--share", rule);
            }
        }
    }
    shares
}

fn attach_budget(text: &str, problems: &mut Problems) -> Duration {
    match text.parse() {
        Ok(milliseconds) if ATTACH_BUDGET_MS.contains(&milliseconds) => {
            Duration::from_millis(milliseconds)
        }
        _ => {
            let (least, most) = (ATTACH_BUDGET_MS.start(), ATTACH_BUDGET_MS.end());
            let message = format_args!("{text:?} is not a number from {least} to {most}");
            problems.add("--attach-budget-ms", message);
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults of the command line.
    fn args() -> NodeArgs {
        use clap::{Args as _, FromArgMatches as _};
        let command = NodeArgs::augment_args(clap::Command::new("node"));
        let matches = command.get_matches_from(["node", "--node-name", "node-a"]);
        NodeArgs::from_arg_matches(&matches).unwrap()
    }

    fn with(manner: MannerArgs) -> NodeArgs {
        NodeArgs { manner, ..args() }
    }

    fn named(name: String) -> NodeArgs {
        with(MannerArgs { driver_name: Some(name), ..MannerArgs::default() })
    }

    fn problems_of(args: &NodeArgs) -> Vec<String> {
        let problems = Config::try_from(args).unwrap_err();
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_need_only_a_node_name() {
        let config = Config::try_from(&args()).unwrap();
        assert_eq!(
            (config.node_name.as_str(), config.driver_name.as_str()),
            ("node-a", "weir.dev")
        );
        assert_eq!(config.listen, "127.0.0.1:9177".parse().unwrap());
        assert_eq!(config.attach_budget, Duration::from_millis(1500));
        assert_eq!(config.log_format, LogFormat::Text);
        assert!(!config.log_drops && !config.taint);
        assert_eq!(config.shares.len(), 0);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let wrong = NodeArgs {
            node_name: String::new(),
            manner: MannerArgs {
                driver_name: Some("Weir_dev".to_owned()),
                attribute_domain: Some("a..b".to_owned()),
                compat: Some("cni".to_owned()),
                shares: ["eth1", "eth1=1", "=8", "eth2=8", "eth2=9"].map(str::to_owned).to_vec(),
            },
            kubeconfig: Some(String::new()),
            kubelet_root: "var/lib/kubelet".to_owned(),
            nri_socket: format!("/{}", "n".repeat(107)),
            nri_index: "7".to_owned(),
            sysfs: "sys".to_owned(),
            bpffs: String::new(),
            state_dir: ".".to_owned(),
            cdi_dir: "cdi".to_owned(),
            gate_dir: "bin".to_owned(),
            listen: "9177".to_owned(),
            log_format: "xml".to_owned(),
            log_drops: false,
            taint: false,
            config: Some("/nowhere.yaml".to_owned()),
            node_config: Some("/nowhere.yaml".to_owned()),
            attach_budget_ms: "99".to_owned(),
        };
        assert_eq!(
            problems_of(&wrong),
            [
                "--node-name: is required",
                "--compat: \"cni\" is not dranet",
                "--attribute-domain: \"a..b\" is no DNS name: labels of a-z, 0-9 and `-` with dots between them",
                "--driver-name: \"Weir_dev\" is no DNS name: labels of a-z, 0-9 and `-` with dots between them",
                "--kubelet-root: \"var/lib/kubelet\" is not an absolute path",
                "--nri-socket: 108 bytes are more than 107",
                "--nri-index: \"7\" is not two digits",
                "--sysfs: \"sys\" is not an absolute path",
                "--bpffs: \"\" is not an absolute path",
                "--state-dir: \".\" is not an absolute path",
                "--cdi-dir: \"cdi\" is not an absolute path",
                "--gate-dir: \"bin\" is not an absolute path",
                "--listen: \"9177\" is no address such as [::]:9177",
                "--log-format: \"xml\" is not text or json",
                "--share: \"eth1\" is no interface with a number from 2 to 1024, such as eth1=8",
                "--share: \"eth1=1\" is no interface with a number from 2 to 1024, such as eth1=8",
                "--share: \"=8\" is no interface with a number from 2 to 1024, such as eth1=8",
                "--share: \"eth2=9\" is about the same as another",
                "--attach-budget-ms: \"99\" is not a number from 100 to 60000",
                "/nowhere.yaml: cannot be read: No such file or directory (os error 2)",
            ]
        );
    }

    #[test]
    fn a_driver_name_is_as_long_as_the_api_takes() {
        let name = |length: usize| "x".repeat(length - 4) + ".dev";
        assert!(Config::try_from(&named(name(63))).is_ok());
        let problems = problems_of(&named(name(64)));
        let too_long = ["--attribute-domain", "--driver-name"];
        assert_eq!(problems, too_long.map(|it| format!("{it}: 64 bytes are more than 63")));
        let problems = problems_of(&named("3.dev".to_owned()));
        let rule = "starts with a digit, which no name of a CDI device may";
        assert_eq!(problems, [format!("--driver-name: {rule}")]);
    }

    #[test]
    fn compatible_with_dranet_means_its_name_and_its_attributes() {
        let compat = || MannerArgs { compat: Some("dranet".to_owned()), ..MannerArgs::default() };
        let config = Config::try_from(&with(compat())).unwrap();
        assert_eq!(config.driver_name, "dra.net");
        let vocabulary = Vocabulary { names: Names::Dranet, domain: "dra.net".to_owned() };
        assert_eq!(config.vocabulary, vocabulary);
        let named = MannerArgs { driver_name: Some("weir.dev".to_owned()), ..compat() };
        assert_eq!(problems_of(&with(named)), ["--driver-name: claims for DraNet say dra.net"]);
    }

    #[test]
    fn attributes_are_in_the_drivers_domain_unless_told_otherwise() {
        let domain = |attribute_domain: Option<&str>| {
            let driver_name = Some("nics.example.org".to_owned());
            let attribute_domain = attribute_domain.map(str::to_owned);
            let args = MannerArgs { driver_name, attribute_domain, ..MannerArgs::default() };
            Config::try_from(&with(args)).unwrap().vocabulary.domain
        };
        assert_eq!(domain(None), "nics.example.org");
        assert_eq!(domain(Some("example.org")), "example.org");
    }

    #[test]
    fn shares_are_counted_for_each_interface() {
        let shares = ["eth1=8", "ens3f0np0=1024"].map(str::to_owned).to_vec();
        let config =
            Config::try_from(&with(MannerArgs { shares, ..MannerArgs::default() })).unwrap();
        let shares: Vec<_> = config.shares.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(shares, [("ens3f0np0", 1024), ("eth1", 8)]);
    }

    #[test]
    fn an_empty_kubeconfig_is_none() {
        let config = Config::try_from(&NodeArgs { kubeconfig: Some(String::new()), ..args() });
        assert_eq!(config.unwrap().kubeconfig, None);
    }
}
