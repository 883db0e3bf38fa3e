//! Where the programs go: what the claim wishes against what the device can do.

use crate::model::{Device, EbpfWishes, EgressHook, HookReason, HookWish, IngressHook, Telemetry};

/// Largest MTU, in bytes, at which a packet still lies in one buffer on every driver we know of.
///
/// Drivers that keep a packet in one 4 KiB page refuse XDP without frags from about 3050 (ixgbe) to
/// 3506 (veth, virtio) upwards.
const SINGLE_BUFFER_MTU: u32 = 3000;

/// What was chosen for an interface, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hooks {
    pub ingress: IngressHook,
    pub egress: EgressHook,
    pub why: HookReason,
}

/// The hooks for both directions, or `None` where the claim leaves nothing to do for a program.
///
/// `mtu` is what the interface will have inside the pod: XDP refuses a later raise.
///
/// # Errors
///
/// A sentence that says what the device lacks.
pub fn choose_hooks(
    wishes: &EbpfWishes,
    device: &Device,
    mtu: u32,
) -> Result<Option<Hooks>, String> {
    let idle = wishes.telemetry == Telemetry::Off && wishes.filter.is_none();
    if wishes.hook == HookWish::None || idle {
        return Ok(None);
    }
    if device.encapsulation != "ether" {
        // The programs read Ethernet headers; on another link layer they would read nonsense.
        return Err(format!("ebpf.hook: {} is no Ethernet interface", device.called()));
    }
    let (tc, egress) = if device.ebpf.tcx {
        (IngressHook::Tcx, EgressHook::Tcx)
    } else {
        (IngressHook::Clsact, EgressHook::Clsact)
    };
    let (ingress, why) = match wishes.hook {
        HookWish::Tcx | HookWish::None => (tc, HookReason::Wished),
        HookWish::Xdp => match native(device, mtu) {
            Ok(xdp) => (xdp, HookReason::Wished),
            Err(why) => return Err(refusal(why, device, mtu)),
        },
        HookWish::Auto if device.is_virtual => (tc, HookReason::Virtual),
        HookWish::Auto => match native(device, mtu) {
            Ok(xdp) => (xdp, HookReason::NativeXdp),
            Err(why) => (tc, why),
        },
    };
    Ok(Some(Hooks { ingress, egress, why }))
}

/// The XDP that the device can run, or why it cannot.
fn native(device: &Device, mtu: u32) -> Result<IngressHook, HookReason> {
    let features = device.ebpf.xdp.ok_or(HookReason::XdpUnknown)?;
    if !features.is_native() {
        return Err(HookReason::XdpUnsupported);
    }
    if device.ebpf.xdp_in_use {
        return Err(HookReason::XdpBusy);
    }
    match (mtu <= SINGLE_BUFFER_MTU, features.has_frags()) {
        (true, _) => Ok(IngressHook::Xdp),
        (false, true) => Ok(IngressHook::XdpFrags),
        (false, false) => Err(HookReason::Mtu),
    }
}

fn refusal(why: HookReason, device: &Device, mtu: u32) -> String {
    let name = device.called();
    match why {
        HookReason::XdpUnsupported => format!("ebpf.hook: {name} cannot run XDP natively"),
        HookReason::XdpBusy => format!("ebpf.hook: {name} runs somebody's XDP program already"),
        HookReason::Mtu => format!(
            "ebpf.hook: {name} runs XDP up to an MTU of {SINGLE_BUFFER_MTU} only, not {mtu}"
        ),
        _ => format!("ebpf.hook: whether {name} can run XDP natively is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Filter, XdpFeatures};
    use crate::testing::device;

    fn wishing(hook: HookWish) -> EbpfWishes {
        EbpfWishes { hook, ..EbpfWishes::default() }
    }

    fn hardware(xdp: Option<u64>) -> Device {
        let mut device = device("eth1");
        device.is_virtual = false;
        device.ebpf.xdp = xdp.map(XdpFeatures);
        device
    }

    fn without_tcx(mut device: Device) -> Device {
        device.ebpf.tcx = false;
        device
    }

    fn busy(mut device: Device) -> Device {
        device.ebpf.xdp_in_use = true;
        device
    }

    fn chosen(hook: HookWish, device: &Device, mtu: u32) -> (IngressHook, HookReason) {
        let hooks = choose_hooks(&wishing(hook), device, mtu).unwrap().unwrap();
        let egress = if device.ebpf.tcx { EgressHook::Tcx } else { EgressHook::Clsact };
        assert_eq!(hooks.egress, egress);
        (hooks.ingress, hooks.why)
    }

    #[test]
    fn auto_takes_native_xdp_on_hardware_and_tcx_elsewhere() {
        let chosen = |device: &Device, mtu| chosen(HookWish::Auto, device, mtu);
        let (xdp, frags, tcx) = (IngressHook::Xdp, IngressHook::XdpFrags, IngressHook::Tcx);

        assert_eq!(chosen(&hardware(Some(0x23)), 1500), (xdp, HookReason::NativeXdp));
        assert_eq!(chosen(&hardware(Some(0x23)), 9000), (frags, HookReason::NativeXdp));
        assert_eq!(chosen(&hardware(Some(0x03)), 9000), (tcx, HookReason::Mtu));
        assert_eq!(chosen(&hardware(Some(0)), 1500), (tcx, HookReason::XdpUnsupported));
        assert_eq!(chosen(&hardware(None), 1500), (tcx, HookReason::XdpUnknown));
        assert_eq!(chosen(&busy(hardware(Some(3))), 1500), (tcx, HookReason::XdpBusy));
        assert_eq!(chosen(&device("veth1"), 1500), (tcx, HookReason::Virtual));
    }

    #[test]
    fn xdp_by_wish_is_native_or_an_error() {
        let refused =
            |device: &Device, mtu| choose_hooks(&wishing(HookWish::Xdp), device, mtu).unwrap_err();

        let wished = chosen(HookWish::Xdp, &hardware(Some(3)), 1500);
        assert_eq!(wished, (IngressHook::Xdp, HookReason::Wished));
        assert!(refused(&hardware(Some(3)), 9000).contains("9000"));
        assert!(refused(&hardware(Some(0)), 1500).contains("natively"));
        assert!(refused(&hardware(None), 1500).contains("unknown"));
        assert!(refused(&busy(hardware(Some(3))), 1500).contains("already"));
    }

    #[test]
    fn xdp_is_left_to_the_pod_by_wish() {
        let wished = chosen(HookWish::Tcx, &hardware(Some(0x23)), 1500);
        assert_eq!(wished, (IngressHook::Tcx, HookReason::Wished));
        let none = choose_hooks(&wishing(HookWish::None), &hardware(Some(0x23)), 1500);
        assert_eq!(none, Ok(None));
    }

    #[test]
    fn no_program_where_there_is_nothing_to_do() {
        let device = hardware(Some(3));
        let idle = EbpfWishes { telemetry: Telemetry::Off, ..wishing(HookWish::Xdp) };
        assert_eq!(choose_hooks(&idle, &device, 1500), Ok(None));
        let filtering = EbpfWishes { filter: Some(Filter::default()), ..idle };
        assert!(choose_hooks(&filtering, &device, 1500).unwrap().is_some());
    }

    #[test]
    fn another_link_layer_than_ethernet_is_refused() {
        let mut device = hardware(Some(3));
        device.encapsulation = "infiniband".to_owned();
        assert!(choose_hooks(&wishing(HookWish::Auto), &device, 1500).is_err());
        assert_eq!(choose_hooks(&wishing(HookWish::None), &device, 1500), Ok(None));
    }

    #[test]
    fn without_tcx_clsact_takes_its_place() {
        let (xdp, clsact) = (IngressHook::Xdp, IngressHook::Clsact);
        let nic = without_tcx(hardware(Some(3)));
        let veth = without_tcx(device("veth1"));

        assert_eq!(chosen(HookWish::Auto, &nic, 1500), (xdp, HookReason::NativeXdp));
        assert_eq!(chosen(HookWish::Auto, &nic, 9000), (clsact, HookReason::Mtu));
        assert_eq!(chosen(HookWish::Auto, &veth, 1500), (clsact, HookReason::Virtual));
        assert_eq!(chosen(HookWish::Tcx, &nic, 1500), (clsact, HookReason::Wished));
    }
}
