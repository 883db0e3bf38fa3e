//! `weir devices --explain`: of each interface, whether claims can ask for it, and why not.
//!
//! What the driver of this node has said last counts, where nothing else is asked about; so this needs
//! neither its arguments nor its providers, and says the same where the filter did not answer it.

use std::collections::BTreeSet;

use nix::sys::utsname;
use serde::Serialize;

use super::args::{DevicesArgs, MannerArgs};
use super::output::{columns, or_dash, pretty, print};
use super::{CliError, Output};
use crate::config::{self, NodeFiles};
use crate::dra::{self, Filter, Manner, Offered, OfferedDevice, Standing, Undecided, Verdict};
use crate::inventory::{LeftOut, Scan};
use crate::model::{Device, DeviceName, PublishRules};

/// What there is to say of an interface, or of a device that has none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    interface: String,
    /// `None` for what is no device.
    device: Option<String>,
    published: bool,
    /// `None` where it is published without more.
    reason: Option<&'static str>,
    detail: Option<String>,
}

/// The filter says no.
const FILTERED: &str = "filter";
/// It cannot tell, which means no.
const UNDECIDED: &str = "filter failed";
/// Nobody knows what it would say, so a device is as it was.
const UNANSWERED: &str = "no answer of the filter";
/// The vocabulary has no names for devices of its form.
const UNNAMED: &str = "nothing that DraNet has";
/// Published as it was, whatever holds now.
const HELD: &str = "held by a claim";
/// It can be had by a sub-interface alone.
const ONLY_UPON: &str = "for sub-interfaces only";

/// What is offered, by the file that is given or as the driver has it.
pub(super) fn rules(args: &DevicesArgs) -> Result<PublishRules, CliError> {
    let Some(file) = &args.config else {
        return dra::in_force(&args.state_dir).map_err(CliError::InForce);
    };
    let files = NodeFiles { shared: Some(file.clone()), own: None };
    let settings = files.read().map_err(CliError::NodeConfig)?;
    Ok(settings.rules(args.profile.as_deref())?.publish)
}

/// What the driver of this node offers, as far as that tells what the arguments ask about.
fn offered(args: &DevicesArgs) -> Result<Offered, CliError> {
    let mut offered = dra::offered(&args.state_dir).map_err(CliError::InForce)?.unwrap_or_default();
    if is_given(&args.manner) {
        let manner = config::manner(&args.manner).map_err(CliError::Manner)?;
        if manner != offered.manner {
            offered.manner = manner;
            offered.devices.values_mut().for_each(forget);
        }
    }
    if args.config.is_some() {
        offered.devices.values_mut().for_each(forget);
    }
    Ok(offered)
}

fn is_given(args: &MannerArgs) -> bool {
    let MannerArgs { driver_name, attribute_domain, compat, shares } = args;
    let given = [driver_name, attribute_domain, compat];
    given.iter().any(|argument| argument.is_some()) || !shares.is_empty()
}

/// Leaves it to be judged anew; what a claim holds is not judged, and what providers said is kept.
fn forget(device: &mut OfferedDevice) {
    if device.standing != Standing::Held {
        device.standing = Standing::Unknown;
    }
}

pub(super) fn run(
    args: &DevicesArgs,
    rules: &PublishRules,
    mut scan: Scan,
) -> Result<(), CliError> {
    let offered = offered(args)?;
    for device in &mut scan.devices {
        if let Some(known) = offered.devices.get(&device.name) {
            device.provided.clone_from(&known.provided);
        }
    }
    let judged = judged(&scan.devices, rules, &offered)?;
    let said = said(&scan, &judged, &offered, rules.filter.as_deref());
    print(&match args.output {
        Output::Table => table(&said),
        Output::Json => pretty(&said)?,
    })
}

/// What becomes of each device: as the driver has it, or else as it would.
fn judged(
    devices: &[Device],
    rules: &PublishRules,
    offered: &Offered,
) -> Result<Vec<Standing>, CliError> {
    let known = |device: &Device| {
        let standing = offered.devices.get(&device.name).map(|it| it.standing.clone());
        let standing = standing.filter(|standing| *standing != Standing::Unknown);
        let names = offered.manner.vocabulary.names;
        standing.or_else(|| (!names.has(device)).then_some(Standing::Unnamed))
    };
    let mut all: Vec<_> = devices.iter().map(known).collect();
    let Some(filter) = &rules.filter else {
        return Ok(all.into_iter().map(|it| it.unwrap_or(Standing::Published)).collect());
    };
    let open: Vec<_> = devices
        .iter()
        .zip(&all)
        .filter(|(_, known)| known.is_none())
        .map(|(it, _)| it.clone())
        .collect();
    let filter = Filter::compile(filter).map_err(|error| CliError::Filter(error.to_string()))?;
    let verdicts = verdicts(&filter, &open, &offered.manner);
    let mut verdicts = verdicts.into_iter().map(standing);
    for place in all.iter_mut().filter(|known| known.is_none()) {
        *place = verdicts.next();
    }
    Ok(all.into_iter().flatten().collect())
}

fn verdicts(filter: &Filter, devices: &[Device], manner: &Manner) -> Vec<Verdict> {
    let name = utsname::uname().ok();
    let release = name.as_ref().map(|name| name.release().to_string_lossy());
    dra::verdicts(filter, devices, manner, release.as_deref().unwrap_or_default())
}

fn standing(verdict: Verdict) -> Standing {
    match verdict {
        Ok(true) => Standing::Published,
        Ok(false) => Standing::Filtered,
        Err(Undecided::Failed(error)) => Standing::Failed(error),
        // Whatever it was is not known here.
        Err(Undecided::NoAnswer(why)) => {
            Standing::Unanswered { published: false, why: why.to_string() }
        }
    }
}

/// One for each interface, by its name, and for each device that is in a pod.
fn said(scan: &Scan, judged: &[Standing], offered: &Offered, filter: Option<&str>) -> Vec<Said> {
    let here = scan.devices.iter().zip(judged);
    let here = here.map(|(device, standing)| of_device(device, standing, filter));
    let is_here = |name: &DeviceName| scan.devices.iter().any(|device| device.name == *name);
    let away = offered.devices.iter().filter(|(name, _)| !is_here(name));
    let away = away.filter(|(_, it)| it.standing == Standing::Held).map(|(name, it)| Said {
        interface: it.called.clone(),
        device: Some(name.to_string()),
        published: true,
        reason: Some(HELD),
        detail: None,
    });
    let left_out = scan.left_out.iter().map(|it| Said {
        interface: it.called.clone(),
        device: None,
        published: false,
        reason: Some(it.reason),
        detail: it.detail.clone(),
    });
    let mut all: Vec<_> = here.chain(away).collect();
    // What is held is published, whatever it is here.
    let known: BTreeSet<_> = all.iter().map(|it| it.interface.clone()).collect();
    all.extend(left_out.filter(|it| !known.contains(&it.interface)));
    all.sort_by(|a, b| a.interface.cmp(&b.interface));
    all
}

fn of_device(device: &Device, standing: &Standing, filter: Option<&str>) -> Said {
    let (reason, detail) = match standing {
        Standing::Published => only_upon(device),
        Standing::Unknown => (None, None),
        Standing::Held => (Some(HELD), None),
        Standing::Unnamed => (Some(UNNAMED), None),
        Standing::Filtered => (Some(FILTERED), filter.map(str::to_owned)),
        Standing::Failed(error) => (Some(UNDECIDED), Some(error.clone())),
        Standing::Unanswered { why, .. } => (Some(UNANSWERED), Some(why.clone())),
    };
    Said {
        interface: device.called().to_owned(),
        device: Some(device.name.to_string()),
        published: standing.is_published(),
        reason,
        detail,
    }
}

/// What prepare would refuse to move.
fn only_upon(device: &Device) -> (Option<&'static str>, Option<String>) {
    if device.is_immovable() {
        return (Some(ONLY_UPON), Some(device.kind.clone()));
    }
    match &device.controller {
        Some(controller) => (Some(ONLY_UPON), Some(format!("member of {}", controller.interface))),
        None => (None, None),
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
    columns(&["INTERFACE", "DEVICE", "PUBLISHED", "WHY"], said.iter().map(row))
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
    use crate::model::{Controller, ProvidedValue};
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

    fn publishing(filter: &str) -> PublishRules {
        PublishRules { filter: Some(filter.to_owned()), ..PublishRules::default() }
    }

    fn entry(called: &str, standing: Standing) -> (DeviceName, OfferedDevice) {
        let provided = [("a.b/rail".to_owned(), ProvidedValue::Int(3))].into();
        let entry = OfferedDevice { called: called.to_owned(), standing, provided };
        (called.parse().unwrap(), entry)
    }

    #[test]
    fn each_interface_is_told_of_once() {
        let judged =
            [Standing::Published, Standing::Filtered, Standing::Failed("no such key".to_owned())];
        let held = entry("eth9", Standing::Held);
        let offered = Offered { devices: [held].into(), ..Offered::default() };
        let said = said(&scan(), &judged, &offered, Some("a ==\n  b"));
        assert_eq!(
            table(&said),
            "\
INTERFACE  DEVICE  PUBLISHED  WHY
cni0       -       no         interface of a container network: the bridge plugin
eth1       eth1    yes        -
eth2       eth2    no         filter: a == b
eth3       eth3    no         filter failed: no such key
eth9       eth9    yes        held by a claim
"
        );
        let json = serde_json::to_value(&said).unwrap();
        assert_eq!(json[0]["reason"], "interface of a container network");
        assert_eq!((&json[1]["published"], &json[1]["reason"]), (&true.into(), &().into()));
    }

    #[test]
    fn what_the_driver_has_said_counts_and_the_rest_is_judged() {
        let why = "takes longer than 5 s".to_owned();
        let unanswered = Standing::Unanswered { published: true, why };
        let devices = [entry("eth2", unanswered.clone()), entry("eth3", Standing::Held)].into();
        let offered = Offered { devices, ..Offered::default() };
        let filter = publishing("device.attributes['weir.dev'].ifName == 'eth1'");
        let judged = judged(&scan().devices, &filter, &offered).unwrap();
        assert_eq!(judged, [Standing::Published, unanswered, Standing::Held]);
        let said = said(&scan(), &judged, &offered, None);
        assert!(said[2].published && said[2].reason == Some(UNANSWERED));
    }

    #[test]
    fn a_filter_reads_the_names_the_shares_and_what_providers_said() {
        let directory = tempfile::tempdir().unwrap();
        let mut args = args(directory.path());
        args.manner.compat = Some("dranet".to_owned());
        args.manner.shares = vec!["eth1=8".to_owned()];
        let devices = [entry("eth1", Standing::Published)].into();
        let text = Offered { devices, ..Offered::default() };
        std::fs::write(directory.path().join("offered.json"), serde_json::to_vec(&text).unwrap())
            .unwrap();
        let offered = offered(&args).unwrap();
        let mut devices = scan().devices;
        let first = &mut devices[0];
        first.provided.clone_from(&offered.devices[&first.name].provided);
        let filter = "device.attributes['dra.net'].ifName == 'eth1' && device.driver == 'dra.net' \
                      && device.allowMultipleAllocations && device.attributes['a.b'].rail == 3";
        let found = judged(&devices, &publishing(filter), &offered).unwrap();
        assert_eq!(found[0], Standing::Published);
        assert!(found[1..].iter().all(|it| !it.is_published()), "{found:?}");
        let filter = publishing("device.attributes['weir.dev'].ifName == 'eth1'");
        assert!(!judged(&devices, &filter, &offered).unwrap()[0].is_published());

        args.manner.driver_name = Some("weir.dev".to_owned());
        assert!(matches!(super::offered(&args), Err(CliError::Manner(_))));
    }

    #[test]
    fn what_prepare_would_refuse_is_told_of_where_it_is_published() {
        let bond = Device { kind: "bond".to_owned(), ..device("bond0") };
        let controller =
            Controller { interface: "bond0".parse().unwrap(), kind: "bond".to_owned() };
        let slave = Device { controller: Some(controller), ..device("eth1") };
        let scan = Scan { devices: vec![bond, slave], ..Scan::default() };
        let judged = [Standing::Published, Standing::Published];
        let said = said(&scan, &judged, &Offered::default(), None);
        assert_eq!(
            table(&said),
            "\
INTERFACE  DEVICE  PUBLISHED  WHY
bond0      bond0   yes        for sub-interfaces only: bond
eth1       eth1    yes        for sub-interfaces only: member of bond0
"
        );
    }

    fn args(state_dir: &std::path::Path) -> DevicesArgs {
        DevicesArgs {
            output: Output::Table,
            explain: true,
            config: None,
            profile: None,
            manner: MannerArgs::default(),
            sysfs: "/sys".into(),
            state_dir: state_dir.to_owned(),
        }
    }

    #[test]
    fn a_file_counts_instead_of_what_the_driver_has() {
        let directory = tempfile::tempdir().unwrap();
        let mut args = args(directory.path());
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
