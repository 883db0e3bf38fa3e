//! What is made while a device is prepared, and taken away when it is unprepared: all that is slow.

use std::collections::BTreeSet;

use super::journey::on_host;
use super::{Step, ethtool};
use crate::model::{
    At, AttachmentId, EthtoolSetting, IfName, IfNameError, MacAddr, Place, Record,
    SUBINTERFACE_PREFIX, VfSettings,
};

/// Sets up a device of the host: its sub-interface, what its driver and its physical function are set
/// to, its datapath. What has no interface is as it shall be.
///
/// Nothing of the new record's name is wanted that is there already: it would be of no known build.
pub fn prepare(record: &Record, settings: &[EthtoolSetting], pin: VfPin) -> Vec<Step> {
    if !record.has_interface() {
        return Vec::new();
    }
    let mut steps = vec![Step::RemoveDatapath { id: record.id() }];
    steps.extend(make_subinterface(record));
    steps.extend(set_vf(record, pin));
    for setting in settings {
        steps.push(Step::SetEthtool { at: on_host(record), setting: setting.clone() });
    }
    steps.extend(install(record));
    if record.was_raised {
        steps.push(Step::SetUp { at: on_host(record) });
    }
    steps
}

/// Makes the sub-interface anew that vanished together with its sandbox's namespace. Its datapath, if
/// it had one, has no links any more.
pub fn remake(record: &Record) -> Vec<Step> {
    let mut steps = vec![Step::RemoveDatapath { id: record.id() }];
    steps.extend(make_subinterface(record));
    steps.extend(install(record));
    steps
}

fn make_subinterface(record: &Record) -> Vec<Step> {
    let Some(spec) = &record.subinterface else {
        return Vec::new();
    };
    let parent = At { place: Place::Host, interface: spec.parent.clone() };
    // No packet passes through a sub-interface whose parent is down, and a VLAN cannot go up.
    let mut steps = vec![Step::SetUp { at: parent }, Step::AddSubinterface { spec: spec.clone() }];
    if record.wishes.interface.dhcp {
        // It talks to a server from here.
        let at = At { place: Place::Host, interface: spec.name.clone() };
        steps.push(Step::SetUp { at });
    }
    steps
}

/// Whether a physical function holds a virtual one to an address that it told it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VfPin {
    /// The function may choose: nothing was told, or it was taken back by [`unpin_vf`].
    Loose,
    /// Its driver does not take an address back, but only another one in its place: all zeroes are no
    /// address to `bnx2x_set_vf_mac()`, `qede_set_vf_mac()` and `be_set_vf_mac()`
    /// (`is_valid_ether_addr()`, Linux 6.12), while `igb`, `ixgbe`, `i40e`, `ice` and `mlx5` take them.
    Fast,
}

/// Takes back the address that a physical function told; done already where it told none. To be tried
/// before [`prepare`] and [`restore_vf`], since only the driver knows whether it can.
pub fn unpin_vf(record: &Record) -> Option<Step> {
    let vf = record.vf.as_ref().filter(|vf| vf.set.mac.is_some())?;
    Some(Step::SetVf { vf: vf.place.clone(), settings: VfSettings::no_mac() })
}

/// What the physical function is told. An address that it is to have is set by the virtual function
/// itself first, while it may still choose: what the physical one was told, an untrusted function
/// cannot change, not even to the same address (`igb_set_vf_mac_addr()` in
/// `drivers/net/ethernet/intel/igb/igb_main.c`, Linux 6.12). Where it may not choose, it may take what
/// it was told (the comment at `bnx2x_set_vf_mac()` in `bnx2x_sriov.c`).
fn set_vf(record: &Record, pin: VfPin) -> Vec<Step> {
    let Some(vf) = &record.vf else {
        return Vec::new();
    };
    let tell = Step::SetVf { vf: vf.place.clone(), settings: vf.set.clone() };
    let mut steps = Vec::new();
    steps.extend(vf.set.mac.map(|mac| Step::SetMac { at: on_host(record), mac }));
    match pin {
        VfPin::Loose => steps.push(tell),
        VfPin::Fast => steps.insert(0, tell),
    }
    steps
}

/// The way back. The physical function is told wherever the virtual one is. Where an address cannot be
/// taken back and there was none before, the function's own comes in its place, so that it can be used.
pub fn restore_vf(record: &Record, is_home: bool, pin: VfPin) -> Vec<Step> {
    let Some(vf) = &record.vf else {
        return Vec::new();
    };
    let mut settings = vf.before.clone();
    if pin == VfPin::Fast && settings.mac.is_some_and(MacAddr::is_zero) {
        settings.mac = vf.own_mac;
    }
    let tell = Step::SetVf { vf: vf.place.clone(), settings };
    let mut steps = Vec::new();
    if let Some(mac) = vf.own_mac.filter(|_| is_home) {
        steps.push(Step::SetMac { at: on_host(record), mac });
    }
    match pin {
        VfPin::Loose => steps.push(tell),
        VfPin::Fast => steps.insert(0, tell),
    }
    steps
}

/// Gives the address back to the DHCP server, from the host.
pub fn release(record: &Record) -> Option<Step> {
    let lease = record.lease.clone()?;
    Some(Step::ReleaseLease { at: on_host(record), lease })
}

fn install(record: &Record) -> Option<Step> {
    let spec = record.datapath.clone()?;
    Some(Step::InstallDatapath { spec, interface: record.before.name.clone() })
}

/// Takes away what prepare made; what a physical function was told is put back by [`restore_vf`].
/// `is_home`: the interface is on the host; otherwise nobody knows
/// where its driver's settings could be put back.
pub fn unprepare(record: &Record, is_home: bool, parent_down: bool) -> Vec<Step> {
    if !record.has_interface() {
        return Vec::new();
    }
    let mut steps = vec![Step::RemoveDatapath { id: record.id() }];
    match &record.subinterface {
        Some(spec) => {
            steps.push(Step::RemoveSubinterface { name: spec.name.clone() });
            if parent_down {
                let at = At { place: Place::Host, interface: spec.parent.clone() };
                steps.push(Step::SetDown { at });
            }
        }
        None if is_home => {
            if record.was_raised {
                steps.push(Step::SetDown { at: on_host(record) });
            }
            for setting in ethtool::restoring(&record.ethtool) {
                steps.push(Step::SetEthtool { at: on_host(record), setting });
            }
        }
        None => {}
    }
    steps
}

/// The name of the sub-interface of `id` on the host: the same each time, unless another attachment
/// has it.
pub fn subinterface_name(
    id: &AttachmentId,
    taken: &BTreeSet<IfName>,
) -> Result<IfName, IfNameError> {
    let mut hash = 0x811c_9dc5_u32;
    let mut mix = |bytes: &[u8]| {
        // FNV-1a.
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
        hash
    };
    let mut number = mix(id.to_string().as_bytes());
    loop {
        let name: IfName = format!("{SUBINTERFACE_PREFIX}{number:08x}").parse()?;
        if !taken.contains(&name) {
            return Ok(name);
        }
        number = number.wrapping_add(1);
    }
}
