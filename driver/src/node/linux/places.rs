//! The namespaces that steps work in, and what is kept open in them between two steps.

use super::absent;
use crate::model::{At, By, IfIndex, NetnsRef, Place};
use crate::node::StepError;
use crate::sys::ethtool::{Ethtool, EthtoolError};
use crate::sys::netlink::{LinkFacts, Netlink, NetlinkError};
use crate::sys::netns::Netns;
use crate::sys::sysctl::{SysctlError, Sysctls};

/// The host, and the pod that the last step was about.
#[derive(Debug)]
pub(super) struct Places {
    host: Open,
    /// Kept until a step is about another pod, or the command ends: opening it takes a thread, and
    /// one attach has dozens of steps.
    pod: Option<(NetnsRef, Open)>,
    /// Where the last interface was found. An interface keeps its index for as long as it stays in
    /// its namespace.
    last: Option<(At, IfIndex)>,
}

/// A namespace that is open.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) netns: Netns,
    pub(super) netlink: Netlink,
    sysctls: Option<Sysctls>,
    ethtool: Option<Ethtool>,
}

impl Open {
    fn new(netns: Netns) -> Result<Self, NetlinkError> {
        let netlink = Netlink::open_in(&netns)?;
        Ok(Self { netns, netlink, sysctls: None, ethtool: None })
    }

    pub(super) fn sysctls(&mut self) -> Result<&Sysctls, SysctlError> {
        let opened = match self.sysctls.take() {
            Some(opened) => opened,
            None => Sysctls::of(&self.netns)?,
        };
        Ok(self.sysctls.insert(opened))
    }

    pub(super) fn ethtool(&mut self) -> Result<&Ethtool, EthtoolError> {
        let opened = match self.ethtool.take() {
            Some(opened) => opened,
            None => Ethtool::open_in(&self.netns)?,
        };
        Ok(self.ethtool.insert(opened))
    }
}

impl Places {
    /// The host is where the calling thread is.
    pub(super) fn open() -> Result<Self, StepError> {
        let host = Open {
            netns: Netns::of_this_thread()?,
            netlink: Netlink::open()?,
            sysctls: Some(Sysctls::of_this_thread()?),
            ethtool: None,
        };
        Ok(Self { host, pod: None, last: None })
    }

    pub(super) fn at(&mut self, place: &Place) -> Result<&mut Open, StepError> {
        let wished = match place {
            Place::Host => return Ok(&mut self.host),
            Place::Pod(netns) => netns,
        };
        let kept = self.pod.take().filter(|(netns, _)| netns == wished);
        let kept = match kept {
            Some(kept) => kept,
            None => (wished.clone(), Open::new(Netns::open_ref(wished)?)?),
        };
        Ok(&mut self.pod.insert(kept).1)
    }

    pub(super) fn host(&self) -> &Open {
        &self.host
    }

    /// The host and a pod at once.
    pub(super) fn both(&mut self, place: &Place) -> Result<(&Open, &Open), StepError> {
        self.at(place)?;
        let pod = self.pod.as_ref().map_or(&self.host, |(_, pod)| pod);
        Ok((&self.host, pod))
    }

    pub(super) fn netlink(&mut self, place: &Place) -> Result<&Netlink, StepError> {
        Ok(&self.at(place)?.netlink)
    }

    /// What an interface is like now.
    pub(super) fn link(&mut self, at: &At) -> Result<(&Netlink, LinkFacts), StepError> {
        let netlink = self.netlink(&at.place)?;
        let link = netlink.link(&By::Name(at.interface.clone()))?.ok_or_else(|| absent(at))?;
        Ok((netlink, link))
    }

    /// Which index an interface has.
    pub(super) fn index(&mut self, at: &At) -> Result<(&Netlink, IfIndex), StepError> {
        if let Some((last, index)) = &self.last
            && last == at
        {
            let index = *index;
            return Ok((self.netlink(&at.place)?, index));
        }
        let index = self.link(at)?.1.index;
        self.last = Some((at.clone(), index));
        Ok((self.netlink(&at.place)?, index))
    }

    /// Names mean other interfaces from now on.
    pub(super) fn forget_names(&mut self) {
        self.last = None;
    }

    /// Keeps nothing open that a pod could miss.
    pub(super) fn rest(&mut self) {
        self.pod = None;
        self.last = None;
    }
}
