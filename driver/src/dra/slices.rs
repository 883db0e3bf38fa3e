//! From devices to `ResourceSlice`s, and from what the API server has to what must be written.
//!
//! Everything here is pure; [`publisher`](super::publisher) carries it out.

use k8s_openapi::api::resource::v1::{self, ResourcePool, ResourceSlice, ResourceSliceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::Pool;
use super::attributes::{MOST, Vocabulary, attributes, kernel_version};
use super::sharing::{Shares, capacity};
use super::taints::Taints;
use crate::model::{Device, Record};

/// Devices in one slice at most (`ResourceSliceMaxDevices` in `api/resource/v1`, Kubernetes 1.36).
const MAX_DEVICES: usize = 128;

/// The same where any of them has a taint (`ResourceSliceMaxDevicesWithTaintsOrConsumesCounters`).
/// Which has one changes, and slices should not be cut otherwise each time, so this holds for all
/// slices of a driver that taints.
const MAX_DEVICES_TAINTED: usize = 64;

/// Longest name of an object: a DNS subdomain.
const MAX_NAME_LEN: usize = 253;

/// What to publish: what is on the host, and what claims hold, sorted by name.
///
/// A held device stays published as it was when it was prepared, wherever it is: an allocation must
/// not lose its device, and what the claim did to it is nobody's selection criterion. On the host, too, it
/// is known by the name that its record has: the inventory names nobody else so.
pub(super) fn published(on_host: &[Device], records: &[Record]) -> Vec<Device> {
    let mut devices: Vec<_> = records.iter().map(|record| &record.device).collect();
    let held = devices.len();
    for device in on_host {
        if !devices[..held].iter().any(|held| held.name == device.name) {
            devices.push(device);
        }
    }
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    devices.dedup_by(|a, b| a.name == b.name);
    devices.into_iter().cloned().collect()
}

/// What beside the devices decides what is published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    pub(super) pool: &'a Pool,
    pub(super) owner: Option<&'a OwnerReference>,
    pub(super) vocabulary: &'a Vocabulary,
    /// The kernel's release, such as `uname -r` prints.
    pub(super) kernel: &'a str,
    /// `None` where several claims may share nothing.
    pub(super) shares: Option<&'a Shares>,
    /// `None` where the driver does not taint.
    pub(super) taints: Option<&'a Taints>,
}

/// The slices of a pool with these devices, in the order of their names. No devices, no slices.
///
/// `generation` counts the pool's contents; the same number in all slices tells readers that they
/// belong together.
pub(super) fn render(devices: &[Device], terms: &Terms<'_>, generation: i64) -> Vec<ResourceSlice> {
    let Terms { pool, owner, .. } = *terms;
    let kernel = kernel_version(terms.kernel);
    let most = if terms.taints.is_some() { MAX_DEVICES_TAINTED } else { MAX_DEVICES };
    let chunks = devices.chunks(most);
    let count = i64::try_from(chunks.len()).unwrap_or(i64::MAX);
    chunks
        .enumerate()
        .map(|(number, devices)| ResourceSlice {
            metadata: ObjectMeta {
                name: Some(slice_name(pool, number)),
                owner_references: owner.map(|owner| vec![owner.clone()]),
                ..ObjectMeta::default()
            },
            spec: ResourceSliceSpec {
                driver: pool.driver.clone(),
                node_name: Some(pool.node.clone()),
                pool: ResourcePool {
                    name: pool.node.clone(),
                    generation,
                    resource_slice_count: count,
                },
                devices: Some(
                    devices.iter().map(|d| rendered(d, terms, kernel.as_deref())).collect(),
                ),
                ..ResourceSliceSpec::default()
            },
        })
        .collect()
}

fn rendered(device: &Device, terms: &Terms<'_>, kernel: Option<&str>) -> v1::Device {
    let count =
        terms.shares.zip(device.interface.as_ref()).and_then(|(shares, name)| shares.get(name));
    let taint = terms.taints.and_then(|taints| taints.get(&device.name));
    let capacity = capacity(device, &terms.vocabulary.domain, count.copied());
    let room = MOST - capacity.len();
    v1::Device {
        name: device.name.to_string(),
        attributes: Some(attributes(device, terms.vocabulary, kernel, room)),
        allow_multiple_allocations: count.map(|_| true),
        capacity: Some(capacity).filter(|capacity| !capacity.is_empty()),
        taints: taint.map(|taint| vec![taint.clone()]),
        ..v1::Device::default()
    }
}

#[cfg(test)]
impl<'a> Terms<'a> {
    /// Nothing is shared, tainted or owned.
    pub(super) fn of(pool: &'a Pool) -> Self {
        let (kernel, vocabulary) = ("6.18.44-cloud-amd64", super::fixtures::vocabulary());
        Self { pool, owner: None, vocabulary, kernel, shares: None, taints: None }
    }
}

/// A name that tells a human whose slice it is, and differs for each node and driver even where
/// both contain dashes or a long node name had to be cut: that is what the checksum is for.
fn slice_name(pool: &Pool, number: usize) -> String {
    let Pool { driver, node } = pool;
    let sum = fnv1a(&[node.as_bytes(), &[0], driver.as_bytes()].concat());
    let rest = format!("-{driver}-{sum:08x}-{number:03}");
    let room = node.floor_char_boundary(MAX_NAME_LEN.saturating_sub(rest.len()));
    // No part of a DNS subdomain ends with one of these.
    let node = node[..room].trim_end_matches(['-', '.']);
    format!("{node}{rest}")
}

/// FNV-1a of 32 bits. Names must stay the same across builds, so no hasher of the standard library.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// One write to the API server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Create(ResourceSlice),
    /// Carries the resource version that it replaces.
    Replace(ResourceSlice),
    Delete(String),
}

/// The way from what is `there` to what is `wanted`, in the order in which to write.
///
/// Empty if nothing but the generation differs. If slices are merely missing they are made again
/// with the generation of the others. Anything else is a new content of the pool: a generation above
/// all that were seen (`last`, or in what is there), in all slices, and only then slices that are too
/// many go. Until the last one is written, readers see an incomplete pool and wait.
pub(super) fn changes(
    mut wanted: Vec<ResourceSlice>,
    there: &[&ResourceSlice],
    last: i64,
) -> Vec<Change> {
    let newest = there.iter().map(|slice| slice.spec.pool.generation).max();
    let find = |name: &Option<String>| there.iter().find(|slice| &slice.metadata.name == name);
    let is_right = |slice: &&ResourceSlice| {
        Some(slice.spec.pool.generation) == newest
            && wanted.iter().any(|wanted| is_same(slice, wanted))
    };
    let all_right = there.iter().all(is_right);
    let generation = match newest {
        Some(newest) if all_right => newest,
        newest => newest.unwrap_or(0).max(last) + 1,
    };

    let mut changes = Vec::new();
    for slice in &mut wanted {
        slice.spec.pool.generation = generation;
        match find(&slice.metadata.name) {
            None => changes.push(Change::Create(slice.clone())),
            Some(_) if all_right => {}
            Some(old) if is_replaceable(old, slice) => {
                changes.push(Change::Replace(successor(old, slice)));
            }
            Some(_) => {
                changes.extend(slice.metadata.name.clone().map(Change::Delete));
                changes.push(Change::Create(slice.clone()));
            }
        }
    }
    let superfluous = there
        .iter()
        .filter(|slice| !wanted.iter().any(|wanted| wanted.metadata.name == slice.metadata.name));
    changes.extend(superfluous.filter_map(|slice| slice.metadata.name.clone().map(Change::Delete)));
    changes
}

/// Whether the slice that is there says what is wanted, its generation aside.
fn is_same(there: &ResourceSlice, wanted: &ResourceSlice) -> bool {
    let owners = there.metadata.owner_references.as_deref().unwrap_or_default();
    let mut spec = there.spec.clone();
    spec.pool.generation = wanted.spec.pool.generation;
    there.metadata.name == wanted.metadata.name
        && spec == wanted.spec
        && wanted.metadata.owner_references.iter().flatten().all(|owner| owners.contains(owner))
}

/// The API server refuses changes of these three fields.
fn is_replaceable(old: &ResourceSlice, new: &ResourceSlice) -> bool {
    let fixed = |slice: &ResourceSlice| {
        let ResourceSliceSpec { driver, node_name, pool, .. } = &slice.spec;
        (driver.clone(), node_name.clone(), pool.name.clone())
    };
    fixed(old) == fixed(new)
}

/// `new` with the metadata of `old`, so that others' labels stay and the version is checked.
fn successor(old: &ResourceSlice, new: &ResourceSlice) -> ResourceSlice {
    let mut metadata = old.metadata.clone();
    metadata.managed_fields = None;
    if new.metadata.owner_references.is_some() {
        metadata.owner_references.clone_from(&new.metadata.owner_references);
    }
    ResourceSlice { metadata, spec: new.spec.clone() }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::dra::fixtures::{device, everything, pool, record};
    use crate::dra::golden::is_golden;
    use crate::model::DeviceName;

    fn many(count: usize) -> Vec<Device> {
        (0..count).map(|n| device(&format!("eth{n:03}"))).collect()
    }

    fn made(devices: &[Device], generation: i64) -> Vec<ResourceSlice> {
        render(devices, &Terms::of(&pool()), generation)
    }

    fn wanted(devices: &[Device]) -> Vec<ResourceSlice> {
        made(devices, 0)
    }

    /// Carries `changes` out on a copy of `there`.
    fn after(there: &[ResourceSlice], changes: &[Change]) -> Vec<ResourceSlice> {
        let mut slices = there.to_vec();
        for change in changes {
            let (name, slice) = match change {
                Change::Create(slice) | Change::Replace(slice) => {
                    (slice.metadata.name.clone(), Some(slice.clone()))
                }
                Change::Delete(name) => (Some(name.clone()), None),
            };
            slices.retain(|slice| slice.metadata.name != name);
            slices.extend(slice);
        }
        slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        slices
    }

    fn plan(devices: &[Device], there: &[ResourceSlice]) -> Vec<Change> {
        changes(wanted(devices), &there.iter().collect::<Vec<_>>(), 0)
    }

    #[test]
    fn slices_look_as_agreed() {
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: "node-a".to_owned(),
            uid: "0b1c".to_owned(),
            ..OwnerReference::default()
        };
        let pool = pool();
        let terms = Terms { owner: Some(&owner), ..Terms::of(&pool) };
        let slices = render(&[device("eth1"), everything("eth2")], &terms, 3);

        is_golden("slices.json", &serde_json::to_value(slices).unwrap());
    }

    #[test]
    fn many_devices_become_several_slices_of_one_generation() {
        let slices = made(&many(300), 4);
        let sizes: Vec<_> = slices.iter().flat_map(|s| &s.spec.devices).map(Vec::len).collect();
        assert_eq!(sizes, [128, 128, 44]);
        for slice in slices {
            assert_eq!((slice.spec.pool.generation, slice.spec.pool.resource_slice_count), (4, 3));
        }
    }

    #[test]
    fn a_driver_that_taints_has_smaller_slices() {
        let (pool, taints) = (pool(), Taints::new());
        let slices = render(&many(130), &Terms { taints: Some(&taints), ..Terms::of(&pool) }, 4);
        let sizes: Vec<_> = slices.iter().flat_map(|s| &s.spec.devices).map(Vec::len).collect();
        assert_eq!(sizes, [64, 64, 2]);
    }

    /// Attributes and capacities together may be 32.
    #[test]
    fn a_shared_device_that_has_everything_stays_within_the_apis_limits() {
        let shares = Shares::from([("eth1".parse().unwrap(), 8)]);
        let pool = pool();
        let terms = Terms { shares: Some(&shares), ..Terms::of(&pool) };
        let slices = render(&[everything("eth1"), device("eth2")], &terms, 1);
        let [sharable, whole] = &slices[0].spec.devices.as_ref().unwrap()[..] else { panic!() };
        let count = |device: &v1::Device| {
            device.attributes.iter().flatten().count() + device.capacity.iter().flatten().count()
        };
        assert_eq!(sharable.allow_multiple_allocations, Some(true));
        assert_eq!(count(sharable), 32);
        assert_eq!(count(whole), 19);
        assert_eq!(whole.allow_multiple_allocations, None);
        let capacity: Vec<_> = whole.capacity.iter().flatten().collect();
        let [(name, bandwidth)] = &capacity[..] else { panic!("{capacity:?}") };
        assert_eq!((name.as_str(), bandwidth.value.0.as_str()), ("weir.dev/bandwidth", "10G"));
        assert_eq!(bandwidth.request_policy, None, "only what is shared may have one");
    }

    #[test]
    fn names_differ_for_each_node_and_driver_and_fit() {
        let name = |node: &str, driver: &str| {
            slice_name(&Pool { driver: driver.to_owned(), node: node.to_owned() }, 0)
        };
        assert_eq!(name("node-a", "weir.dev"), "node-a-weir.dev-1067f073-000");
        assert_ne!(name("a-b", "c"), name("a", "b-c"));
        let (long, longer) = (format!("{}.x", "n".repeat(250)), "n".repeat(252));
        assert_ne!(name(&long, "weir.dev"), name(&longer, "weir.dev"));
        assert_eq!(name(&longer, "weir.dev").len(), MAX_NAME_LEN);
    }

    #[test]
    fn a_held_device_stays_published_as_it_was() {
        let mut in_use = device("eth1");
        in_use.ebpf.xdp_in_use = true;
        let held = [record(device("eth1")), record(device("eth0"))];

        let devices = published(&[in_use, device("eth2")], &held);

        assert_eq!(devices, [device("eth0"), device("eth1"), device("eth2")]);
    }

    /// A function that was bound to another driver while a claim has it is not there twice, and is
    /// nobody else's.
    #[test]
    fn a_held_devices_name_is_no_other_devices() {
        let name: DeviceName = "pci-0000-3b-00-1".parse().unwrap();
        let held = record(Device { name: name.clone(), ..everything("eth1") });
        let on_vfio = Device {
            name: name.clone(),
            interface: None,
            driver: Some("vfio-pci".to_owned()),
            ..everything("eth1")
        };
        let devices = published(&[on_vfio], std::slice::from_ref(&held));
        assert_eq!(devices, [held.device]);
    }

    #[test]
    fn what_is_right_already_is_not_written() {
        let there = made(&many(200), 7);
        assert_eq!(plan(&many(200), &there), []);
    }

    #[test]
    fn any_other_content_is_a_new_generation_in_all_slices() {
        let there = made(&many(300), 7);
        let changes = plan(&many(200), &there);

        assert!(matches!(changes[..], [Change::Replace(_), Change::Replace(_), Change::Delete(_)]));
        assert_eq!(after(&there, &changes), made(&many(200), 8));
    }

    #[test]
    fn a_missing_slice_is_made_again_and_no_other_is_touched() {
        let there = made(&many(300), 7);
        let changes = plan(&many(300), &[there[0].clone(), there[2].clone()]);
        assert_eq!(changes, [Change::Create(there[1].clone())]);
    }

    #[test]
    fn when_all_are_gone_the_generation_still_grows() {
        let changes = changes(wanted(&many(1)), &[], 7);
        assert_eq!(after(&[], &changes), made(&many(1), 8));
    }

    #[test]
    fn a_slice_that_somebody_edited_is_written_anew() {
        let mut there = made(&many(200), 7);
        there[0].spec.devices = None;
        let changes = plan(&many(200), &there);
        assert_eq!(after(&there, &changes), made(&many(200), 8));
    }

    #[test]
    fn what_cannot_be_changed_is_deleted_first() {
        let mut there = made(&many(1), 7);
        there[0].spec.pool.name = "other".to_owned();
        let changes = plan(&many(1), &there);
        assert!(matches!(changes[..], [Change::Delete(_), Change::Create(_)]));
        assert_eq!(after(&there, &changes), made(&many(1), 8));
    }

    #[test]
    fn a_replacement_keeps_what_others_added_and_names_the_version() {
        let mut there = made(&many(1), 7);
        there[0].metadata.resource_version = Some("11".to_owned());
        there[0].metadata.labels = Some([("team".to_owned(), "net".to_owned())].into());
        let changes = plan(&many(2), &there);
        let [Change::Replace(slice)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(slice.metadata.resource_version.as_deref(), Some("11"));
        assert_eq!(slice.metadata.labels, there[0].metadata.labels);
    }
}
