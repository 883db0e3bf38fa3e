//! How many virtual functions physical ones shall have: what the configuration says against what is
//! there, and nothing that anybody uses is touched.

use std::collections::BTreeSet;

use crate::model::{PciAddress, PfSelector, PfState, SriovRule, VFIO_DRIVER, VfUse};

/// What is to be done about one physical function.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Provision {
    /// It has as many already.
    Keep {
        pf: PciAddress,
        count: u32,
    },
    Set {
        pf: PciAddress,
        from: u32,
        to: u32,
    },
    /// It cannot be had, or somebody would lose something, and why.
    Refuse {
        pf: PciAddress,
        reason: String,
    },
    /// A rule that is for nothing that is here.
    Unmatched {
        rule: SriovRule,
    },
}

/// Decides for each rule and each function that it selects. The first rule for a function counts.
/// `held` are the functions that claims have; where `is_partial`, there may be others.
///
/// The kernel changes a number only by way of 0 (`sriov_numvfs_store()` in `drivers/pci/iov.c`, Linux
/// 6.12), so whatever is not 0 stays as long as one of the functions is in use.
pub fn provision(
    rules: &[SriovRule],
    pfs: &[PfState],
    held: &BTreeSet<PciAddress>,
    is_partial: bool,
) -> Vec<Provision> {
    let mut done = BTreeSet::new();
    let mut all = Vec::new();
    for rule in rules {
        let selected: Vec<_> = pfs.iter().filter(|pf| is_selected(&rule.pf, pf)).collect();
        if selected.is_empty() {
            all.push(Provision::Unmatched { rule: rule.clone() });
        }
        let new = selected.into_iter().filter(|pf| done.insert(pf.address));
        all.extend(new.map(|pf| decide(rule.num_vfs, pf, held, is_partial)));
    }
    all
}

fn is_selected(selector: &PfSelector, pf: &PfState) -> bool {
    match selector {
        PfSelector::Interface(name) => pf.interfaces.contains(name),
        PfSelector::PciAddress(address) => pf.address == *address,
        PfSelector::Id { vendor, device } => {
            let is = |wished: &str, is: &Option<String>| {
                is.as_deref().is_some_and(|is| is.eq_ignore_ascii_case(wished))
            };
            is(vendor, &pf.vendor) && device.as_deref().is_none_or(|it| is(it, &pf.device))
        }
    }
}

fn decide(wished: u32, pf: &PfState, held: &BTreeSet<PciAddress>, is_partial: bool) -> Provision {
    let address = pf.address;
    let refuse = |reason| Provision::Refuse { pf: address, reason };
    if pf.num_vfs == wished {
        return Provision::Keep { pf: address, count: wished };
    }
    if wished > pf.total_vfs {
        return refuse(format!("{wished} are more than the {} that it can have", pf.total_vfs));
    }
    if held.contains(&address) {
        return refuse("it is in use by a claim itself".to_owned());
    }
    if let Some(reason) = own_use(pf) {
        return refuse(reason);
    }
    if is_partial && pf.num_vfs != 0 {
        let is = pf.num_vfs;
        let lost = "the checkpoint was lost in this boot, so pods may have them unknown to us";
        return refuse(format!("it has {is}, which all would go first, and {lost}"));
    }
    if let Some(reason) = pf.vfs.iter().find_map(|vf| use_of(vf, held)) {
        let is = pf.num_vfs;
        return refuse(format!("it has {is}, which all would go first, and {reason}"));
    }
    Provision::Set { pf: address, from: pf.num_vfs, to: wished }
}

/// Why the physical function itself may be in use. Drivers may close its interface and open it again
/// when the number changes (`igb_sriov_reinit()` in `drivers/net/ethernet/intel/igb/igb_main.c`,
/// Linux 6.12), and whoever lives by it is cut off.
fn own_use(pf: &PfState) -> Option<String> {
    match pf.driver.as_deref() {
        None => Some("it has no driver".to_owned()),
        Some(VFIO_DRIVER) => Some(format!("it is bound to {VFIO_DRIVER}")),
        Some(_) if pf.interfaces.is_empty() => {
            Some("it has no interface here: it may be in another namespace".to_owned())
        }
        Some(_) => pf.needed.clone(),
    }
}

/// Why a virtual function may be in use.
fn use_of(vf: &VfUse, held: &BTreeSet<PciAddress>) -> Option<String> {
    let address = vf.address;
    if held.contains(&address) {
        return Some(format!("{address} is in use by a claim"));
    }
    match vf.driver.as_deref() {
        // Somebody has taken its driver away, or means to give it another one.
        None => return Some(format!("{address} has no driver")),
        Some(VFIO_DRIVER) => return Some(format!("{address} is bound to {VFIO_DRIVER}")),
        Some(_) if vf.interfaces.is_empty() => {
            return Some(format!(
                "{address} has no interface here: it may be in another namespace"
            ));
        }
        Some(_) => {}
    }
    if vf.has_rdma {
        // Where RDMA devices are shared among namespaces, they are used from anywhere.
        return Some(format!("{address} has an RDMA device, which somebody may have open"));
    }
    let (name, _) = vf.interfaces.iter().find(|(_, is_up)| *is_up)?;
    Some(format!("{name} is up"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(function: u8) -> PciAddress {
        format!("0000:3b:00.{function}").parse().unwrap()
    }

    fn vf(function: u8) -> VfUse {
        let interface = format!("eth1v{function}").parse().unwrap();
        VfUse {
            address: address(function),
            driver: Some("igbvf".to_owned()),
            has_rdma: false,
            interfaces: vec![(interface, false)],
        }
    }

    fn pf(vfs: Vec<VfUse>) -> PfState {
        PfState {
            address: address(0),
            driver: Some("igb".to_owned()),
            interfaces: vec!["eth1".parse().unwrap()],
            needed: None,
            vendor: Some("8086".to_owned()),
            device: Some("10c9".to_owned()),
            total_vfs: 7,
            num_vfs: u32::try_from(vfs.len()).unwrap(),
            vfs,
        }
    }

    fn rule(pf: PfSelector, num_vfs: u32) -> SriovRule {
        SriovRule { pf, num_vfs }
    }

    fn decided(wished: u32, pf: &PfState) -> Provision {
        decide(wished, pf, &BTreeSet::new(), false)
    }

    fn refusal(wished: u32, pf: &PfState) -> String {
        let Provision::Refuse { reason, .. } = decided(wished, pf) else { panic!() };
        reason
    }

    #[test]
    fn a_function_without_virtual_ones_gets_them_once() {
        let set = Provision::Set { pf: address(0), from: 0, to: 2 };
        assert_eq!(decided(2, &pf(Vec::new())), set);
        let keep = Provision::Keep { pf: address(0), count: 2 };
        assert_eq!(decided(2, &pf(vec![vf(1), vf(2)])), keep);
        assert!(refusal(8, &pf(Vec::new())).contains("more than the 7"));
    }

    #[test]
    fn virtual_functions_that_nobody_uses_can_be_made_more_or_fewer() {
        let two = pf(vec![vf(1), vf(2)]);
        for to in [1, 4] {
            assert_eq!(decided(to, &two), Provision::Set { pf: address(0), from: 2, to });
        }
    }

    #[test]
    fn after_a_lost_checkpoint_there_are_only_first_ones() {
        let decided = |pf: &PfState| decide(4, pf, &BTreeSet::new(), true);
        let Provision::Refuse { reason, .. } = decided(&pf(vec![vf(1)])) else { panic!() };
        assert!(reason.contains("the checkpoint was lost"), "{reason}");
        assert_eq!(decided(&pf(Vec::new())), Provision::Set { pf: address(0), from: 0, to: 4 });
    }

    #[test]
    fn a_virtual_function_in_use_keeps_all_of_them() {
        let with = |change: fn(&mut VfUse)| {
            let mut second = vf(2);
            change(&mut second);
            pf(vec![vf(1), second])
        };
        let none: fn(&mut VfUse) = |vf| vf.driver = None;
        assert!(refusal(4, &with(none)).contains("0000:3b:00.2 has no driver"));
        let vfio: fn(&mut VfUse) = |vf| vf.driver = Some(VFIO_DRIVER.to_owned());
        assert!(refusal(4, &with(vfio)).contains("bound to vfio-pci"));
        let away: fn(&mut VfUse) = |vf| vf.interfaces.clear();
        assert!(refusal(4, &with(away)).contains("may be in another namespace"));
        let up: fn(&mut VfUse) = |vf| vf.interfaces[0].1 = true;
        assert!(refusal(1, &with(up)).contains("eth1v2 is up"));
        let rdma: fn(&mut VfUse) = |vf| vf.has_rdma = true;
        assert!(refusal(1, &with(rdma)).contains("0000:3b:00.2 has an RDMA device"));
        for held in [address(0), address(2)] {
            let decided = decide(4, &pf(vec![vf(1), vf(2)]), &BTreeSet::from([held]), false);
            assert!(matches!(decided, Provision::Refuse { .. }), "{decided:?}");
        }
    }

    #[test]
    fn a_physical_function_that_somebody_lives_by_is_left_alone() {
        let with = |change: fn(&mut PfState)| {
            let mut pf = pf(Vec::new());
            change(&mut pf);
            refusal(2, &pf)
        };
        assert!(with(|pf| pf.driver = None).contains("no driver"));
        assert!(with(|pf| pf.driver = Some(VFIO_DRIVER.to_owned())).contains("bound to vfio-pci"));
        assert!(with(|pf| pf.interfaces.clear()).contains("may be in another namespace"));
        let needed = |pf: &mut PfState| pf.needed = Some("eth1: default route".to_owned());
        assert_eq!(with(needed), "eth1: default route");
        // What is right already is nobody's harm.
        let mut right = pf(vec![vf(1), vf(2)]);
        needed(&mut right);
        let keep = Provision::Keep { pf: address(0), count: 2 };
        assert_eq!(decided(2, &right), keep);
    }

    #[test]
    fn rules_select_by_name_place_and_kind_and_the_first_counts() {
        let pfs = [pf(Vec::new())];
        let id = |device: &str| PfSelector::Id {
            vendor: "8086".to_owned(),
            device: Some(device.to_owned()),
        };
        let of = |rules: &[SriovRule]| provision(rules, &pfs, &BTreeSet::new(), false);
        for selector in [
            PfSelector::Interface("eth1".parse().unwrap()),
            PfSelector::PciAddress(address(0)),
            id("10C9"),
        ] {
            assert!(matches!(of(&[rule(selector, 2)])[..], [Provision::Set { to: 2, .. }]));
        }
        let other = rule(id("1520"), 2);
        let unmatched = Provision::Unmatched { rule: other.clone() };
        assert_eq!(of(&[other]), [unmatched]);
        let both = [rule(id("10c9"), 2), rule(PfSelector::PciAddress(address(0)), 3)];
        assert!(matches!(of(&both)[..], [Provision::Set { to: 2, .. }]));
    }
}
