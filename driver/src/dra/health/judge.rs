//! From what is seen of the devices to how they are. Pure.

use crate::dra::slices::published;
use crate::inventory::IdleFunction;
use crate::model::{Device, DeviceName, Form, LinkSight, Phase, Record, Vitals};
use crate::telemetry::{AllVitals, Sightings};

/// Bytes of a message (`pkg/kubelet/cm/dra`, Kubernetes 1.37).
const LONGEST_MESSAGE: usize = 1024;

/// How a device is. The later outweighs the earlier.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Health {
    Healthy,
    /// Nobody can tell, or not now.
    Unknown,
    Unhealthy,
}

/// What is wrong with a device, as far as schedulers should know.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Defect {
    NoCarrier,
    /// A claim holds it, and its PCI function has no driver any more.
    Unbound,
    /// A claim holds it, and it is nowhere.
    Removed,
}

/// How one device of the pool is, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct DeviceHealth {
    pub(crate) device: DeviceName,
    pub(crate) health: Health,
    /// Empty where there is nothing to say.
    pub(crate) message: String,
    pub(crate) defect: Option<Defect>,
}

/// One thing that was found.
struct Finding {
    health: Health,
    message: String,
    defect: Option<Defect>,
}

impl Finding {
    fn healthy() -> Self {
        Self { health: Health::Healthy, message: String::new(), defect: None }
    }

    fn unknown(message: String) -> Self {
        Self { health: Health::Unknown, message, defect: None }
    }

    fn unhealthy(message: String) -> Self {
        Self { health: Health::Unhealthy, message, defect: None }
    }
}

/// How every device of the pool is, in the order in which they are published. `on_host` is what the
/// inventory sees, and `idle` are the PCI functions from which nothing can be had.
pub(crate) fn judge(
    on_host: &[Device],
    idle: &[IdleFunction],
    records: &[Record],
    vitals: &AllVitals,
    sightings: &Sightings,
) -> Vec<DeviceHealth> {
    let devices = published(on_host, records);
    let judged = devices.iter().map(|device| {
        let seen = on_host.iter().find(|seen| seen.name == device.name);
        let holders: Vec<_> =
            records.iter().filter(|record| record.device.name == device.name).collect();
        let mut findings = Vec::new();
        match seen {
            Some(seen) => findings.push(on_the_host(seen)),
            None if holders.iter().any(|holder| is_away(holder)) => {}
            None => findings.push(gone(device, idle)),
        }
        for record in holders {
            let vitals = vitals.get(&record.id()).copied().unwrap_or_default();
            findings.extend(in_use(record, vitals));
            let ahead = sightings.get(&record.id()).map(|sighting| &sighting.ahead);
            if let Some(ahead) = ahead.filter(|ahead| ahead.is_any()) {
                let text = format!("programs of others run before ours: {ahead}");
                findings.push(Finding::unhealthy(text));
            }
        }
        summary(&device.name, findings)
    });
    judged.collect()
}

/// The worst that was found, and all that is as bad.
fn summary(device: &DeviceName, findings: Vec<Finding>) -> DeviceHealth {
    let health = findings.iter().map(|finding| finding.health).max().unwrap_or(Health::Unknown);
    let defect = findings.iter().filter_map(|finding| finding.defect).max();
    let worst = findings.into_iter().filter(|finding| finding.health == health);
    let mut messages: Vec<_> = worst.map(|finding| finding.message).collect();
    messages.retain(|message| !message.is_empty());
    messages.dedup();
    let mut message = messages.join("; ");
    message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
    DeviceHealth { device: device.clone(), health, message, defect }
}

/// Whether it is with its pod, or on its way there or back, so that the host has nothing of it. A
/// share leaves its device on the host.
fn is_away(record: &Record) -> bool {
    let is_under_way = matches!(
        record.phase,
        Phase::Attached { .. } | Phase::Attaching { .. } | Phase::Detaching { .. }
    );
    is_under_way && record.share.is_none() && record.subinterface.is_none()
}

fn on_the_host(device: &Device) -> Finding {
    let name = device.called();
    match LinkSight::of(device.is_up, &device.state) {
        LinkSight::SetDown => Finding::unknown(format!(
            "{name} is set down, nobody can tell whether it has a carrier"
        )),
        LinkSight::NoCarrier => Finding {
            defect: Some(Defect::NoCarrier),
            ..Finding::unhealthy(format!("{name} has no carrier ({})", device.state))
        },
        LinkSight::Up | LinkSight::Gone => Finding::healthy(),
    }
}

fn gone(device: &Device, idle: &[IdleFunction]) -> Finding {
    let address = device.pci.as_ref().map(|pci| pci.address);
    let is_unbound = address.is_some_and(|it| idle.iter().any(|idle| idle.address == it));
    let (defect, what) = if is_unbound {
        (Defect::Unbound, "is there no more: its driver is unbound")
    } else {
        (Defect::Removed, "is nowhere: it was removed")
    };
    Finding { defect: Some(defect), ..Finding::unhealthy(format!("{} {what}", device.called())) }
}

/// What a claim that holds it adds.
fn in_use(record: &Record, vitals: Vitals) -> Vec<Finding> {
    let (name, pod) = (record.called(), &record.pod);
    let mut findings = Vec::new();
    match (&record.phase, vitals.link) {
        // It has no link that anybody could look at.
        (Phase::Attached { .. }, _) if !record.has_interface() => {
            findings.push(Finding::healthy());
        }
        (Phase::Attached { .. }, Some(LinkSight::Up)) => findings.push(Finding::healthy()),
        (Phase::Attached { .. }, Some(LinkSight::SetDown)) => {
            findings.push(Finding::unhealthy(format!("{name} is set down in pod {pod}")));
        }
        (Phase::Attached { .. }, Some(LinkSight::NoCarrier)) => findings.push(Finding {
            defect: Some(Defect::NoCarrier),
            ..Finding::unhealthy(format!("{name} in pod {pod} has no carrier"))
        }),
        // There is no interface to look at.
        (Phase::Attached { .. }, None) if record.device.form() != Form::Interface => {
            findings.push(Finding::healthy());
        }
        (Phase::Attached { .. }, Some(LinkSight::Gone)) => {
            let text = format!("{name} is not in pod {pod} any more");
            // A share's device is where it was.
            let defect = is_away(record).then_some(Defect::Removed);
            findings.push(Finding { defect, ..Finding::unhealthy(text) });
        }
        (Phase::Attached { .. }, None) => {
            findings
                .push(Finding::unknown(format!("nobody has looked at {name} in pod {pod} yet")));
        }
        (Phase::Attaching { .. } | Phase::Detaching { .. }, _) => {
            let text = format!("{name} is on its way into or out of pod {pod}");
            findings.push(Finding::unknown(text));
        }
        (Phase::Preparing | Phase::Prepared | Phase::Unpreparing, _) => {}
    }
    if vitals.is_whole == Some(false) {
        let text = "its datapath is not whole: programs or counters are not there".to_owned();
        findings.push(Finding::unhealthy(text));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::dra::fixtures::{device, everything, record};
    use crate::model::{Ahead, AttachmentId};
    use crate::telemetry::Sighting;

    fn with_state(is_up: bool, state: &str) -> Device {
        Device { is_up, state: state.to_owned(), ..device("eth1") }
    }

    fn seen(record: &Record, vitals: Vitals) -> AllVitals {
        Arc::new([(record.id(), vitals)].into())
    }

    /// The health of the one device there is, and its message.
    fn one(on_host: &[Device], records: &[Record], vitals: &AllVitals) -> (Health, String) {
        let all = judge(on_host, &[], records, vitals, &Sightings::default());
        let [DeviceHealth { health, message, .. }] = &all[..] else { panic!("one of {all:?}") };
        (*health, message.clone())
    }

    fn free(device: Device) -> (Health, String) {
        one(&[device], &[], &AllVitals::default())
    }

    #[test]
    fn on_the_host_a_device_is_as_its_link_is() {
        assert_eq!(free(with_state(true, "up")), (Health::Healthy, String::new()));
        assert_eq!(free(with_state(true, "unknown")).0, Health::Healthy, "a dummy says so");
        let dark = (Health::Unhealthy, "eth1 has no carrier (lowerlayerdown)".to_owned());
        assert_eq!(free(with_state(true, "lowerlayerdown")), dark);
        assert_eq!(free(with_state(false, "down")).0, Health::Unknown);
    }

    #[test]
    fn in_a_pod_a_device_is_as_the_look_into_the_pod_has_shown() {
        let record = record(device("eth1"));
        for (link, health, message) in [
            (Some(LinkSight::Up), Health::Healthy, ""),
            (Some(LinkSight::SetDown), Health::Unhealthy, "eth1 is set down in pod default/pod-a"),
            (
                Some(LinkSight::NoCarrier),
                Health::Unhealthy,
                "eth1 in pod default/pod-a has no carrier",
            ),
            (Some(LinkSight::Gone), Health::Unhealthy, "eth1 is not in pod default/pod-a any more"),
            (None, Health::Unknown, "nobody has looked at eth1 in pod default/pod-a yet"),
        ] {
            let vitals = seen(&record, Vitals { link, is_whole: Some(true) });
            let found = one(&[], std::slice::from_ref(&record), &vitals);
            assert_eq!(found, (health, message.to_owned()));
        }
    }

    #[test]
    fn a_claims_device_that_is_nowhere_is_gone() {
        let prepared = Record { phase: Phase::Prepared, ..record(device("eth1")) };
        let all = judge(&[], &[], &[prepared], &AllVitals::default(), &Sightings::default());
        assert_eq!((all[0].health, all[0].defect), (Health::Unhealthy, Some(Defect::Removed)));
        assert!(all[0].message.contains("nowhere"), "{}", all[0].message);
    }

    #[test]
    fn a_claims_device_whose_driver_was_unbound_is_told_from_one_that_is_gone() {
        let prepared = Record { phase: Phase::Prepared, ..record(everything("eth1")) };
        let defect = |address: &str| {
            let idle = [IdleFunction { address: address.parse().unwrap(), reason: "no driver" }];
            let records = std::slice::from_ref(&prepared);
            judge(&[], &idle, records, &AllVitals::default(), &Sightings::default())[0].defect
        };
        assert_eq!(defect("0000:3b:00.1"), Some(Defect::Unbound));
        assert_eq!(defect("0000:3b:00.0"), Some(Defect::Removed), "it is another's driver");
    }

    #[test]
    fn what_has_no_interface_is_not_looked_at_in_a_pod() {
        let hca = Device { interface: None, index: None, ..device("mlx5") };
        let attached = record(hca.clone());
        assert_eq!(one(&[hca], &[attached], &AllVitals::default()).0, Health::Healthy);
    }

    #[test]
    fn a_datapath_that_somebody_touched_is_told_with_everything_else_that_is_as_bad() {
        let record = record(device("eth1"));
        let broken = Vitals { link: Some(LinkSight::NoCarrier), is_whole: Some(false) };
        let ahead = Ahead { ingress: Some(vec!["spy".to_owned()]), ..Ahead::NOTHING };
        let sighting = Sighting { ahead, since: SystemTime::UNIX_EPOCH };
        let sightings: Sightings = Arc::new([(record.id(), sighting)].into());

        let all =
            judge(&[], &[], std::slice::from_ref(&record), &seen(&record, broken), &sightings);

        assert_eq!(all[0].health, Health::Unhealthy);
        assert_eq!(
            all[0].message,
            "eth1 in pod default/pod-a has no carrier; \
             its datapath is not whole: programs or counters are not there; \
             programs of others run before ours: ingress: spy"
        );
    }

    #[test]
    fn a_shared_device_is_as_well_as_the_worst_of_its_shares() {
        let share = |name: &str| {
            let mut share = record(device("eth1"));
            share.share = Some(name.parse().unwrap());
            share
        };
        let (one, other) = (share("s1"), share("s2"));
        let link = |link| Vitals { link: Some(link), is_whole: None };
        let up: [(AttachmentId, Vitals); 2] =
            [(one.id(), link(LinkSight::Up)), (other.id(), link(LinkSight::Gone))];
        let records = [one, other];
        let all =
            judge(&[device("eth1")], &[], &records, &Arc::new(up.into()), &Sightings::default());
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].health, all[0].defect), (Health::Unhealthy, None));
    }

    #[test]
    fn a_message_fits() {
        let finding = || Finding::unhealthy("é".repeat(700));
        let DeviceHealth { message, .. } = summary(&device("eth1").name, vec![finding()]);
        assert_eq!(message.len(), 1024);
    }
}
