//! What schedulers should keep away from: devices that are no good now.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::resource::v1::{DeviceTaint, ResourceSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::health::{Defect, DeviceHealth};
use crate::model::DeviceName;

/// Taints of devices that have any.
pub(super) type Taints = BTreeMap<DeviceName, DeviceTaint>;

/// How long a defect has to last. A device that comes back from a pod is in no list for a second, and
/// a link that is set up takes time for its carrier.
const GRACE: Duration = Duration::from_secs(5);

/// Defects, and since when they have been seen.
#[derive(Debug, Default)]
pub(super) struct Defects(BTreeMap<DeviceName, (Defect, Instant)>);

impl Defects {
    /// Takes in how the devices are. Answers those that are defective for long enough, and when there
    /// will be more.
    pub(super) fn observe(
        &mut self,
        health: &[DeviceHealth],
        now: Instant,
    ) -> (BTreeMap<DeviceName, Defect>, Option<Instant>) {
        let defective = health.iter().filter_map(|it| Some((it.device.clone(), it.defect?)));
        let before = std::mem::take(&mut self.0);
        self.0 = defective
            .map(|(device, defect)| {
                let same = before.get(&device).filter(|(known, _)| *known == defect);
                (device, (defect, same.map_or(now, |(_, since)| *since)))
            })
            .collect();
        let (lasting, young): (Vec<_>, Vec<_>) =
            self.0.iter().partition(|(_, (_, since))| now - *since >= GRACE);
        let due = young.iter().map(|(_, (_, since))| *since + GRACE).min();
        (lasting.into_iter().map(|(device, (defect, _))| (device.clone(), *defect)).collect(), due)
    }
}

/// The taints for `defects`. One that is published keeps the time at which it was added, whoever
/// published it.
pub(super) fn taints(
    defects: BTreeMap<DeviceName, Defect>,
    driver: &str,
    published: &[&ResourceSlice],
    now: Timestamp,
) -> Taints {
    let devices = || published.iter().flat_map(|slice| slice.spec.devices.iter().flatten());
    let taint = |(device, defect): (DeviceName, Defect)| {
        let key = match defect {
            Defect::NoCarrier => format!("{driver}/no-carrier"),
            Defect::Unbound => format!("{driver}/driver-unbound"),
            Defect::Removed => format!("{driver}/removed"),
        };
        let known = devices()
            .filter(|known| known.name == device.as_str())
            .flat_map(|known| known.taints.iter().flatten())
            .find(|known| known.key == key);
        let added = known.and_then(|known| known.time_added.clone());
        // Times are whole seconds in the API.
        let now = Timestamp::from_second(now.as_second()).unwrap_or_default();
        let taint = DeviceTaint {
            key,
            effect: "NoSchedule".to_owned(),
            value: None,
            time_added: Some(added.unwrap_or(Time(now))),
        };
        (device, taint)
    };
    defects.into_iter().map(taint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::{device, pool};
    use crate::dra::health::Health;
    use crate::dra::slices::{Terms, render};

    fn health(name: &str, defect: Option<Defect>) -> DeviceHealth {
        DeviceHealth {
            device: name.parse().unwrap(),
            health: Health::Unhealthy,
            message: String::new(),
            defect,
        }
    }

    #[test]
    fn a_defect_has_to_last() {
        let (mut defects, now) = (Defects::default(), Instant::now());
        let dark = [health("eth1", Some(Defect::NoCarrier)), health("eth2", None)];
        assert_eq!(defects.observe(&dark, now), (BTreeMap::new(), Some(now + GRACE)));
        let (lasting, due) = defects.observe(&dark, now + GRACE);
        assert_eq!(lasting, [("eth1".parse().unwrap(), Defect::NoCarrier)].into());
        assert_eq!(due, None);

        let bright = [health("eth1", None)];
        assert_eq!(defects.observe(&bright, now + GRACE), (BTreeMap::new(), None));
        let (lasting, _) = defects.observe(&dark, now + GRACE);
        assert_eq!(lasting.len(), 0, "it begins anew");
    }

    #[test]
    fn a_taint_keeps_the_time_at_which_it_was_added() {
        let defect = |defect| BTreeMap::from([("eth1".parse().unwrap(), defect)]);
        let (early, late) =
            (Timestamp::from_second(60).unwrap(), Timestamp::from_second(120).unwrap());
        let first = taints(defect(Defect::NoCarrier), "weir.dev", &[], early);
        let taint = first.values().next().unwrap();
        assert_eq!(
            (taint.key.as_str(), taint.effect.as_str()),
            ("weir.dev/no-carrier", "NoSchedule")
        );
        let pool = pool();
        let terms = Terms { taints: Some(&first), ..Terms::of(&pool) };
        let published = render(&[device("eth1")], &terms, 1);
        let published: Vec<_> = published.iter().collect();

        let second = taints(defect(Defect::NoCarrier), "weir.dev", &published, late);
        assert_eq!(second, first);
        for (other, key) in [(Defect::Removed, "removed"), (Defect::Unbound, "driver-unbound")] {
            let other = taints(defect(other), "weir.dev", &published, late);
            let taint = other.values().next().unwrap();
            assert_eq!(taint.time_added, Some(Time(late)));
            assert_eq!(taint.key, format!("weir.dev/{key}"));
        }
    }
}
