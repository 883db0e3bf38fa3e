//! Settings of drivers, by generic netlink: features, private flags, rings, channels, coalescing.
//!
//! Messages are `Documentation/networking/ethtool-netlink.rst` (Linux 6.1 and later) and our own
//! codec, because no crate has them. What an answer says is read by functions of bytes alone
//! (`decode_…`), which take anything and never panic.

mod bitset;
mod driver;
mod error;
mod group;
#[cfg(feature = "testing")]
mod older;

use std::collections::BTreeMap;
use std::fmt;

use self::bitset::Bitset;
pub use self::driver::{DriverFacts, driver};
pub use self::error::EthtoolError;
pub use self::group::Numbers;
use self::group::{Group, INTERRUPTS, QUEUES, RING_SIZES};
use crate::model::{EthtoolSetting, EthtoolState, IfIndex, Queues};
use crate::sys::generic::{self, Attribute, Generic, Writer, find};
use crate::sys::netlink::{AskSocket, NetlinkError};
use crate::sys::netns::Netns;

#[cfg(feature = "testing")]
pub use self::older::{Older, ask_older};

/// What the kernel calls the family.
const FAMILY: &str = "ethtool";

// `enum`s of `include/uapi/linux/ethtool_netlink.h`.
const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;
const LINK_MODES_GET: u8 = 4;
const PRIVATE_FLAGS_GET: u8 = 13;
const PRIVATE_FLAGS_SET: u8 = 14;
/// The first attribute of every message.
const HEADER: u16 = 1;
const HEADER_INDEX: u16 = 1;
const HEADER_FLAGS: u16 = 3;
/// `ETHTOOL_FLAG_COMPACT_BITSETS`.
const COMPACT_BITSETS: u32 = 1;
const LINK_MODES_SPEED: u16 = 5;
const FEATURES_HW: u16 = 2;
const FEATURES_WANTED: u16 = 3;
const FEATURES_ACTIVE: u16 = 4;
const FEATURES_NO_CHANGE: u16 = 5;
const PRIVATE_FLAGS: u16 = 2;

/// A socket of the namespace that it was opened in. It keeps that namespace alive.
pub struct Ethtool {
    socket: AskSocket<Generic>,
    family: u16,
}

/// One feature of an interface.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Feature {
    pub is_changeable: bool,
    /// What somebody asked for, or the driver by itself.
    pub is_wanted: bool,
    /// What is in effect: a feature may depend on another one.
    pub is_active: bool,
}

impl Ethtool {
    /// Opens a socket in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`EthtoolError::NoFamily`] where the kernel is built without it.
    pub fn open() -> Result<Self, EthtoolError> {
        let (socket, family) = generic::open(FAMILY)?.ok_or(EthtoolError::NoFamily)?;
        Ok(Self { socket, family: family.number })
    }

    /// Opens a socket in `netns`, by a short visit.
    pub fn open_in(netns: &Netns) -> Result<Self, EthtoolError> {
        netns.run(|_| Self::open()).map_err(|error| NetlinkError::OpenIn(netns.id(), error))?
    }

    /// Everything that the interface's driver tells. Groups that it does not know are empty. A feature
    /// that is wanted and waits for another one is off, as segmentation is where a device cannot
    /// scatter and gather (`netdev_fix_features()` in `net/core/dev.c`, Linux 6.12): nobody could put it
    /// back on.
    pub fn state(&self, index: IfIndex) -> Result<EthtoolState, EthtoolError> {
        let mut state = EthtoolState::default();
        for (name, feature) in self.features(index)? {
            if feature.is_changeable {
                state.features.insert(name, feature.is_active);
            } else {
                state.fixed_features.insert(name, feature.is_active);
            }
        }
        state.private_flags = self.private_flags(index)?;
        let rings = self.numbers(&RING_SIZES, index)?;
        (state.rings, state.rings_max) = (rings.values, rings.limits);
        let channels = self.numbers(&QUEUES, index)?;
        (state.channels, state.channels_max) = (channels.values, channels.limits);
        state.coalesce = self.numbers(&INTERRUPTS, index)?.values;
        Ok(state)
    }

    /// The queues of all interfaces whose drivers tell, by one listing.
    pub fn all_queues(&self) -> Result<BTreeMap<IfIndex, Queues>, EthtoolError> {
        let answers = self.list(QUEUES.get, &"list the channels of all interfaces")?;
        let queues = answers.iter().filter_map(|answer| decode_queues(&answer.attributes));
        Ok(queues.collect())
    }

    /// The queues of one interface; `None` where its driver does not tell, or it is gone.
    pub fn queues(&self, index: IfIndex) -> Result<Option<Queues>, EthtoolError> {
        let reply = self.look_if_there(QUEUES.get, index, &"look at channels")?;
        Ok(reply.and_then(|reply| decode_queues(&reply)).map(|(_, queues)| queues))
    }

    /// The speed in megabits per second, which drivers may know also of an interface that is set
    /// down. `None` where nobody does, or it is gone.
    pub fn speed_mbps(&self, index: IfIndex) -> Result<Option<u32>, EthtoolError> {
        let reply = self.look_if_there(LINK_MODES_GET, index, &"look at the link modes")?;
        Ok(reply.and_then(|reply| decode_speed(&reply)))
    }

    /// The speeds of all interfaces whose drivers tell, in megabits per second, by one listing.
    pub fn all_speeds(&self) -> Result<BTreeMap<IfIndex, u32>, EthtoolError> {
        let answers = self.list(LINK_MODES_GET, &"list the link modes of all interfaces")?;
        let speed =
            |attributes: &[u8]| Some((decode_index(attributes)?, decode_speed(attributes)?));
        Ok(answers.iter().filter_map(|answer| speed(&answer.attributes)).collect())
    }

    /// Whatever is a set of bits comes without the names of all of them.
    fn list(&self, command: u8, request: &dyn fmt::Display) -> Result<Vec<Generic>, EthtoolError> {
        let mut writer = Writer::default();
        writer.nest(HEADER, |header| header.put_u32(HEADER_FLAGS, COMPACT_BITSETS));
        let attributes = writer.finish();
        let message = Generic { family: self.family, command, attributes };
        Ok(self.socket.list(request, &message)?)
    }

    fn look_if_there(
        &self,
        command: u8,
        index: IfIndex,
        request: &dyn fmt::Display,
    ) -> Result<Option<Vec<u8>>, EthtoolError> {
        match self.look(command, index, request) {
            Err(EthtoolError::Netlink(error)) if error.is_absent() => Ok(None),
            other => other,
        }
    }

    /// Sets what is named and different, and tells what that was before; `None` where nothing is
    /// different.
    ///
    /// # Errors
    ///
    /// [`EthtoolError::Unknown`] and [`EthtoolError::Fixed`] before anything is changed;
    /// [`EthtoolError::NotTaken`] where the driver took a feature without a word and left it as it
    /// was, what else was changed is put back then.
    pub fn set(
        &self,
        index: IfIndex,
        setting: &EthtoolSetting,
    ) -> Result<Option<EthtoolSetting>, EthtoolError> {
        match setting {
            EthtoolSetting::Features(wished) => {
                Ok(self.set_features(index, wished)?.map(EthtoolSetting::Features))
            }
            EthtoolSetting::PrivateFlags(wished) => {
                let there = self.private_flags(index)?;
                let Some(was) = changed("private flag", &there, wished)? else { return Ok(None) };
                let wished = only(wished, &was);
                self.change(PRIVATE_FLAGS_SET, index, &"set private flags", |writer| {
                    bitset::encode(PRIVATE_FLAGS, &wished, writer);
                })?;
                Ok(Some(EthtoolSetting::PrivateFlags(was)))
            }
            EthtoolSetting::Rings(wished) => {
                Ok(self.set_numbers(&RING_SIZES, index, wished)?.map(EthtoolSetting::Rings))
            }
            EthtoolSetting::Channels(wished) => {
                Ok(self.set_numbers(&QUEUES, index, wished)?.map(EthtoolSetting::Channels))
            }
            EthtoolSetting::Coalesce(wished) => {
                Ok(self.set_numbers(&INTERRUPTS, index, wished)?.map(EthtoolSetting::Coalesce))
            }
        }
    }

    /// What is in effect counts, not what is wanted: a feature that waits for another one is off, and
    /// to want it again would look like a driver that refuses it.
    fn set_features(
        &self,
        index: IfIndex,
        wished: &BTreeMap<String, bool>,
    ) -> Result<Option<BTreeMap<String, bool>>, EthtoolError> {
        let features = self.features(index)?;
        let active = features.iter().map(|(name, f)| (name.clone(), f.is_active)).collect();
        let Some(was) = changed("feature", &active, wished)? else { return Ok(None) };
        let is_fixed = |name: &&String| features.get(*name).is_some_and(|f| !f.is_changeable);
        if let Some(name) = was.keys().find(is_fixed) {
            return Err(EthtoolError::Fixed { name: name.clone() });
        }
        let put = |values: &BTreeMap<String, bool>| {
            self.change(FEATURES_SET, index, &"set features", |writer| {
                bitset::encode(FEATURES_WANTED, values, writer);
            })
        };
        put(&only(wished, &was))?;
        let now = self.features(index)?;
        let is_taken = |name: &str| now.get(name).map(|f| f.is_active) == wished.get(name).copied();
        let names: Vec<_> = was.keys().filter(|name| !is_taken(name)).cloned().collect();
        if names.is_empty() {
            return Ok(Some(was));
        }
        let wanted = |name: &String| features.get(name).is_some_and(|f| f.is_wanted);
        put(&was.keys().map(|name| (name.clone(), wanted(name))).collect())?;
        Err(EthtoolError::NotTaken { names })
    }

    fn set_numbers(
        &self,
        group: &Group,
        index: IfIndex,
        wished: &BTreeMap<String, u32>,
    ) -> Result<Option<BTreeMap<String, u32>>, EthtoolError> {
        let there = self.numbers(group, index)?.values;
        let Some(was) = changed(group.noun, &there, wished)? else { return Ok(None) };
        let request = format!("set {}s", group.noun);
        let wished = only(wished, &was);
        self.change(group.set, index, &request, |writer| group.encode(&wished, writer))?;
        Ok(Some(was))
    }

    fn features(&self, index: IfIndex) -> Result<BTreeMap<String, Feature>, EthtoolError> {
        let reply = self.look(FEATURES_GET, index, &"look at features")?;
        Ok(reply.map(|reply| decode_features(&reply)).unwrap_or_default())
    }

    fn private_flags(&self, index: IfIndex) -> Result<BTreeMap<String, bool>, EthtoolError> {
        let reply = self.look(PRIVATE_FLAGS_GET, index, &"look at private flags")?;
        Ok(reply.map(|reply| decode_private_flags(&reply)).unwrap_or_default())
    }

    fn numbers(&self, group: &Group, index: IfIndex) -> Result<Numbers, EthtoolError> {
        let reply = self.look(group.get, index, &format_args!("look at {}s", group.noun))?;
        Ok(reply.map(|reply| group.decode(&reply)).unwrap_or_default())
    }

    /// The attributes of the answer; `None` where the driver knows nothing of the kind.
    fn look(
        &self,
        command: u8,
        index: IfIndex,
        request: &dyn fmt::Display,
    ) -> Result<Option<Vec<u8>>, EthtoolError> {
        match self.change(command, index, request, |_| ()) {
            Ok(answers) => Ok(answers.into_iter().next().map(|answer| answer.attributes)),
            Err(EthtoolError::Netlink(error)) if error.is_unsupported() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn change(
        &self,
        command: u8,
        index: IfIndex,
        request: &dyn fmt::Display,
        write: impl FnOnce(&mut Writer),
    ) -> Result<Vec<Generic>, EthtoolError> {
        let mut writer = Writer::default();
        writer.nest(HEADER, |header| header.put_u32(HEADER_INDEX, index.0));
        write(&mut writer);
        let message = Generic { family: self.family, command, attributes: writer.finish() };
        let request = format_args!("{request} of interface {index}");
        Ok(self.socket.ask(&request, message, 0)?)
    }
}

impl fmt::Debug for Ethtool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ethtool")
    }
}

/// The wished entries that are different, as they are; `None` for none.
fn changed<T: Copy + PartialEq>(
    noun: &'static str,
    there: &BTreeMap<String, T>,
    wished: &BTreeMap<String, T>,
) -> Result<Option<BTreeMap<String, T>>, EthtoolError> {
    let mut was = BTreeMap::new();
    for (name, value) in wished {
        match there.get(name) {
            None => return Err(EthtoolError::Unknown { noun, name: name.clone() }),
            Some(now) if now != value => drop(was.insert(name.clone(), *now)),
            Some(_) => {}
        }
    }
    Ok((!was.is_empty()).then_some(was))
}

fn only<T: Copy>(wished: &BTreeMap<String, T>, was: &BTreeMap<String, T>) -> BTreeMap<String, T> {
    let is_changed = |(name, _): &(&String, &T)| was.contains_key(*name);
    wished.iter().filter(is_changed).map(|(name, value)| (name.clone(), *value)).collect()
}

/// The features that the attributes of a reply name.
pub fn decode_features(reply: &[u8]) -> BTreeMap<String, Feature> {
    let set = |kind| find(reply, kind).map(Bitset::decode).unwrap_or_default();
    let (hardware, wanted) = (set(FEATURES_HW), set(FEATURES_WANTED));
    let (active, fixed) = (set(FEATURES_ACTIVE), set(FEATURES_NO_CHANGE));
    let feature = |name: &String| Feature {
        is_changeable: hardware.has(name) && !fixed.has(name),
        is_wanted: wanted.has(name),
        is_active: active.has(name),
    };
    hardware.bits.keys().map(|name| (name.clone(), feature(name))).collect()
}

/// The private flags that the attributes of a reply name.
pub fn decode_private_flags(reply: &[u8]) -> BTreeMap<String, bool> {
    find(reply, PRIVATE_FLAGS).map(|flags| Bitset::decode(flags).bits).unwrap_or_default()
}

/// Ring sizes and their limits.
pub fn decode_rings(reply: &[u8]) -> Numbers {
    RING_SIZES.decode(reply)
}

/// Numbers of channels and their limits.
pub fn decode_channels(reply: &[u8]) -> Numbers {
    QUEUES.decode(reply)
}

fn decode_index(reply: &[u8]) -> Option<IfIndex> {
    let header = find(reply, HEADER)?;
    find(header.value, HEADER_INDEX)?.u32().map(IfIndex)
}

/// Whose channels they are, and how many queues that is for either way.
pub fn decode_queues(reply: &[u8]) -> Option<(IfIndex, Queues)> {
    let index = decode_index(reply)?;
    let numbers = decode_channels(reply).values;
    let of = |name: &str| numbers.get(name).copied().unwrap_or_default();
    let queues = |way: &str| of(way).saturating_add(of("combined"));
    Some((index, Queues { rx: queues("rx"), tx: queues("tx") }))
}

/// `SPEED_UNKNOWN` (-1 in `include/uapi/linux/ethtool.h`) and 0 are no speed.
pub fn decode_speed(reply: &[u8]) -> Option<u32> {
    let speed = find(reply, LINK_MODES_SPEED).and_then(Attribute::u32);
    speed.filter(|speed| !matches!(*speed, 0 | u32::MAX))
}

/// Parameters of interrupt coalescing.
pub fn decode_coalesce(reply: &[u8]) -> Numbers {
    INTERRUPTS.decode(reply)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map<T: Copy>(entries: &[(&str, T)]) -> BTreeMap<String, T> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn only_what_differs_is_changed_and_what_is_unknown_is_named() {
        let there = map(&[("a", 1), ("b", 2)]);
        assert_eq!(changed("ring", &there, &map(&[("a", 1)])).unwrap(), None);
        let wished = map(&[("a", 1), ("b", 3)]);
        let was = changed("ring", &there, &wished).unwrap().unwrap();
        assert_eq!(was, map(&[("b", 2)]));
        assert_eq!(only(&wished, &was), map(&[("b", 3)]));
        let error = changed("ring", &there, &map(&[("c", 1)])).unwrap_err();
        assert_eq!(error.to_string(), "there is no ring c");
    }

    #[test]
    fn a_feature_is_changeable_if_the_driver_says_so_and_the_kernel_does_not_object() {
        let mut writer = Writer::default();
        let all = map(&[("rx-gro", true), ("tx-lockless", true), ("rx-fcs", false)]);
        bitset::encode(FEATURES_HW, &all, &mut writer);
        bitset::encode(FEATURES_ACTIVE, &map(&[("tx-lockless", true)]), &mut writer);
        bitset::encode(FEATURES_WANTED, &map(&[("rx-gro", true)]), &mut writer);
        bitset::encode(FEATURES_NO_CHANGE, &map(&[("tx-lockless", true)]), &mut writer);
        let features = decode_features(&writer.finish());
        let feature =
            |is_changeable, is_wanted, is_active| Feature { is_changeable, is_wanted, is_active };
        assert_eq!(features["rx-gro"], feature(true, true, false));
        assert_eq!(features["tx-lockless"], feature(false, false, true));
        assert_eq!(features["rx-fcs"], feature(false, false, false));
    }

    #[test]
    fn a_combined_channel_is_a_queue_for_either_way() {
        let mut writer = Writer::default();
        writer.nest(HEADER, |header| header.put_u32(HEADER_INDEX, 7));
        writer.put_u32(6, 2);
        writer.put_u32(9, 8);
        let queues = decode_queues(&writer.finish());
        assert_eq!(queues, Some((IfIndex(7), Queues { rx: 10, tx: 8 })));
    }

    #[test]
    fn a_speed_that_nobody_knows_is_none() {
        let speed = |value| {
            let mut writer = Writer::default();
            writer.put_u32(LINK_MODES_SPEED, value);
            decode_speed(&writer.finish())
        };
        assert_eq!([speed(0), speed(u32::MAX), speed(25_000)], [None, None, Some(25_000)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode_features(&bytes);
            decode_private_flags(&bytes);
            decode_rings(&bytes);
            decode_channels(&bytes);
            decode_coalesce(&bytes);
            decode_queues(&bytes);
            decode_speed(&bytes);
        }
    }
}
