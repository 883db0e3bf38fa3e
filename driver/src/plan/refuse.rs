//! What a device without a network interface cannot be asked for.

use crate::model::{
    EbpfWishes, EthtoolWishes, HookWish, InterfaceWishes, Problems, Telemetry, Wishes,
};

/// Everything that needs an interface, each with its field.
///
/// # Errors
///
/// One problem for each wish; what only has its default was not wished for.
pub fn without_interface(wishes: &Wishes) -> Result<(), Problems> {
    let mut problems = Problems::default();
    let fields = [
        interface(&wishes.interface),
        vec![
            ("routes", !wishes.routes.is_empty()),
            ("rules", !wishes.rules.is_empty()),
            ("neighbors", !wishes.neighbors.is_empty()),
        ],
        ethtool(&wishes.ethtool),
        vec![("sriov", !wishes.sriov.is_empty()), ("subinterface", wishes.subinterface.is_some())],
        ebpf(&wishes.ebpf),
    ];
    for (field, _) in fields.into_iter().flatten().filter(|(_, is_wished)| *is_wished) {
        problems.add(field, "the device has no network interface");
    }
    problems.or(())
}

type Fields = Vec<(&'static str, bool)>;

fn interface(wishes: &InterfaceWishes) -> Fields {
    let segments = &wishes.segments;
    let unsaid = InterfaceWishes::default();
    vec![
        ("interface.name", wishes.name.is_some()),
        ("interface.addresses", wishes.addresses.is_some()),
        ("interface.noDad", wishes.dad != unsaid.dad),
        ("interface.dhcp", wishes.dhcp),
        ("interface.mtu", wishes.mtu.is_some()),
        ("interface.hardwareAddr", wishes.mac.is_some()),
        ("interface.gsoMaxSize", segments.gso_max_size.is_some()),
        ("interface.groMaxSize", segments.gro_max_size.is_some()),
        ("interface.gsoIPv4MaxSize", segments.gso_ipv4_max_size.is_some()),
        ("interface.groIPv4MaxSize", segments.gro_ipv4_max_size.is_some()),
        ("interface.sysctls", !wishes.sysctls.is_empty()),
        ("interface.disableEbpfPrograms", wishes.disable_ebpf_programs.is_some()),
        ("interface.vrf", wishes.vrf.is_some()),
    ]
}

fn ethtool(wishes: &EthtoolWishes) -> Fields {
    vec![
        ("ethtool.features", !wishes.features.is_empty()),
        ("ethtool.privateFlags", !wishes.private_flags.is_empty()),
        ("ethtool.rings", !wishes.rings.is_empty()),
        ("ethtool.channels", !wishes.channels.is_empty()),
        ("ethtool.coalesce", !wishes.coalesce.is_empty()),
    ]
}

fn ebpf(wishes: &EbpfWishes) -> Fields {
    vec![
        ("ebpf.hook", !matches!(wishes.hook, HookWish::Auto | HookWish::None)),
        ("ebpf.telemetry", wishes.telemetry == Telemetry::Flows),
        ("ebpf.filter", wishes.filter.is_some()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Segments;

    #[test]
    fn what_nobody_wished_for_is_no_problem() {
        assert_eq!(without_interface(&Wishes::default()), Ok(()));
        let ebpf =
            EbpfWishes { hook: HookWish::None, telemetry: Telemetry::Off, ..EbpfWishes::default() };
        assert_eq!(without_interface(&Wishes { ebpf, ..Wishes::default() }), Ok(()));
    }

    #[test]
    fn each_wish_for_an_interface_is_named() {
        let mut wishes = Wishes::default();
        wishes.interface.mtu = Some(9000);
        wishes.interface.segments = Segments { gro_max_size: Some(65_536), ..Segments::default() };
        wishes.ethtool.rings.insert("rx".to_owned(), 512);
        wishes.sriov.trust = Some(true);
        wishes.ebpf.hook = HookWish::Xdp;
        let problems = without_interface(&wishes).unwrap_err();
        let fields: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        let named =
            ["interface.mtu", "interface.groMaxSize", "ethtool.rings", "sriov", "ebpf.hook"];
        assert_eq!(fields, named);
    }
}
