//! `weir devices --explain`: of each interface, whether claims can ask for it, and why not.

use nix::sys::utsname;
use serde::Serialize;

use super::args::DevicesArgs;
use super::output::{columns, or_dash, pretty, print};
use super::{CliError, Output};
use crate::config::NodeFiles;
use crate::dra::{self, Filter, Undecided, Verdict};
use crate::inventory::{LeftOut, Scan};
use crate::model::{Device, PublishRules};

/// What there is to say of an interface, or of a device that has none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    interface: String,
    /// `None` for what is no device.
    device: Option<String>,
    published: bool,
    /// `None` where it is published.
    reason: Option<&'static str>,
    detail: Option<String>,
}

/// The filter says no.
const FILTERED: &str = "filter";
/// It cannot tell, which means no.
const UNDECIDED: &str = "filter failed";
/// Nobody knows what it would say. A driver leaves a device as it was.
const UNANSWERED: &str = "no answer of the filter";

/// What is offered, by the file that is given or as the driver has it.
pub(super) fn rules(args: &DevicesArgs) -> Result<PublishRules, CliError> {
    let Some(file) = &args.config else {
        return dra::in_force(&args.state_dir).map_err(CliError::InForce);
    };
    let files = NodeFiles { shared: Some(file.clone()), own: None };
    let settings = files.read().map_err(CliError::NodeConfig)?;
    Ok(settings.rules(args.profile.as_deref())?.publish)
}

pub(super) fn run(args: &DevicesArgs, rules: &PublishRules, scan: &Scan) -> Result<(), CliError> {
    let verdicts = match &rules.filter {
        None => vec![Ok(true); scan.devices.len()],
        Some(filter) => {
            let filter = Filter::compile(filter).map_err(CliError::Filter)?;
            let name = utsname::uname().ok();
            let release = name.as_ref().map(|name| name.release().to_string_lossy());
            let release = release.as_deref().unwrap_or_default();
            dra::verdicts(&filter, &scan.devices, &args.driver_name, release)
        }
    };
    let said = said(scan, &verdicts, rules.filter.as_deref());
    print(&match args.output {
        Output::Table => table(&said),
        Output::Json => pretty(&said)?,
    })
}

/// One for each interface, by its name.
fn said(scan: &Scan, verdicts: &[Verdict], filter: Option<&str>) -> Vec<Said> {
    let devices = scan.devices.iter().zip(verdicts);
    let offered = devices.map(|(device, verdict)| of_device(device, verdict, filter));
    let left_out = scan.left_out.iter().map(|it| Said {
        interface: it.called.clone(),
        device: None,
        published: false,
        reason: Some(it.reason),
        detail: it.detail.clone(),
    });
    let mut all: Vec<_> = offered.chain(left_out).collect();
    all.sort_by(|a, b| a.interface.cmp(&b.interface));
    all
}

fn of_device(device: &Device, verdict: &Verdict, filter: Option<&str>) -> Said {
    let (reason, detail) = match verdict {
        Ok(true) => (None, None),
        Ok(false) => (Some(FILTERED), filter.map(str::to_owned)),
        Err(Undecided::Failed(error)) => (Some(UNDECIDED), Some(error.clone())),
        Err(Undecided::NoAnswer(why)) => (Some(UNANSWERED), Some(why.to_string())),
    };
    Said {
        interface: device.called().to_owned(),
        device: Some(device.name.to_string()),
        published: reason.is_none(),
        reason,
        detail,
    }
}

fn table(said: &[Said]) -> String {
    let row = |it: &Said| {
        let published = if it.published { "yes" } else { "no" };
        let why = it.reason.map(|reason| joined(reason, it.detail.as_deref()));
        vec![
            it.interface.clone(),
            or_dash(it.device.as_ref()),
            published.to_owned(),
            or_dash(why.as_ref()),
        ]
    };
    columns(&["INTERFACE", "DEVICE", "PUBLISHED", "WHY NOT"], said.iter().map(row))
}

/// Why an interface is left out, in words.
pub(super) fn why(left_out: &LeftOut) -> String {
    joined(left_out.reason, left_out.detail.as_deref())
}

fn joined(reason: &str, detail: Option<&str>) -> String {
    match detail {
        None => reason.to_owned(),
        // A filter may have lines.
        Some(detail) => {
            let words: Vec<_> = detail.split_whitespace().collect();
            format!("{reason}: {}", words.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::device;

    fn scan() -> Scan {
        let left_out = LeftOut {
            called: "cni0".to_owned(),
            reason: "interface of a container network",
            detail: Some("the bridge plugin".to_owned()),
        };
        let devices = ["eth1", "eth2", "eth3"].map(device).to_vec();
        Scan { devices, left_out: vec![left_out], ..Scan::default() }
    }

    #[test]
    fn each_interface_is_told_of_once() {
        let verdicts = [Ok(true), Ok(false), Err(Undecided::Failed("no such key".to_owned()))];
        let said = said(&scan(), &verdicts, Some("a ==\n  b"));
        assert_eq!(
            table(&said),
            "\
INTERFACE  DEVICE  PUBLISHED  WHY NOT
cni0       -       no         interface of a container network: the bridge plugin
eth1       eth1    yes        -
eth2       eth2    no         filter: a == b
eth3       eth3    no         filter failed: no such key
"
        );
        let json = serde_json::to_value(&said).unwrap();
        assert_eq!(json[0]["reason"], "interface of a container network");
        assert_eq!((&json[1]["published"], &json[1]["reason"]), (&true.into(), &().into()));
    }

    #[test]
    fn a_file_counts_instead_of_what_the_driver_has() {
        let directory = tempfile::tempdir().unwrap();
        let mut args = DevicesArgs {
            output: Output::Table,
            explain: true,
            config: None,
            profile: None,
            driver_name: "weir.dev".to_owned(),
            sysfs: "/sys".into(),
            state_dir: directory.path().to_owned(),
        };
        assert_eq!(rules(&args).unwrap(), PublishRules::default());
        let in_force = PublishRules { filter: Some("true".to_owned()), ..PublishRules::default() };
        let text = serde_json::to_vec(&in_force).unwrap();
        std::fs::write(directory.path().join("publish.json"), text).unwrap();
        assert_eq!(rules(&args).unwrap(), in_force);

        let file = directory.path().join("node.yaml");
        let head = "apiVersion: weir.dev/v1alpha1\nkind: NodeConfig\n";
        std::fs::write(&file, format!("{head}publish: {{exclude: [eth0]}}\n")).unwrap();
        args.config = Some(file);
        assert_eq!(rules(&args).unwrap().exclude, ["eth0".parse().unwrap()]);
        args.profile = Some("gpu".to_owned());
        assert_eq!(
            rules(&args).unwrap_err().to_string(),
            "there is no profile \"gpu\" in the configuration file"
        );
    }
}
