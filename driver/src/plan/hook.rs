//! Where the ingress program goes: what the claim wishes against what the device can do.

use crate::model::{Device, EbpfWishes, HookWish, IngressHook, Telemetry};

/// Largest MTU, in bytes, at which a packet still lies in one buffer on every driver we know of.
///
/// Drivers that keep a packet in one 4 KiB page refuse XDP without frags from about 3050 (ixgbe) to
/// 3506 (veth, virtio) upwards.
const SINGLE_BUFFER_MTU: u32 = 3000;

/// The hook for what comes in, or `None` where the claim leaves nothing to do for a program.
///
/// `mtu` is what the interface will have inside the pod: XDP refuses a later raise.
///
/// # Errors
///
/// A sentence that says what the device lacks.
pub fn choose_ingress(
    wishes: &EbpfWishes,
    device: &Device,
    mtu: u32,
) -> Result<Option<IngressHook>, String> {
    let idle = wishes.telemetry == Telemetry::Off && wishes.filter.is_none();
    if wishes.hook == HookWish::None || idle {
        return Ok(None);
    }
    if device.encapsulation != "ether" {
        // The programs read Ethernet headers; on another link layer they would read nonsense.
        return Err(format!("ebpf.hook: {} is no Ethernet interface", device.interface));
    }
    if !device.ebpf.tcx {
        // What goes out is always seen by TCX, whatever the wish for what comes in.
        return Err("ebpf.hook: this kernel has no TCX links (they came with Linux 6.6)".to_owned());
    }
    match wishes.hook {
        HookWish::Tcx | HookWish::None => Ok(Some(IngressHook::Tcx)),
        HookWish::Xdp => native(device, mtu).map(Some),
        HookWish::Auto if device.is_virtual => Ok(Some(IngressHook::Tcx)),
        HookWish::Auto => Ok(Some(native(device, mtu).unwrap_or(IngressHook::Tcx))),
    }
}

fn native(device: &Device, mtu: u32) -> Result<IngressHook, String> {
    let Some(features) = device.ebpf.xdp else {
        return Err("ebpf.hook: whether this device can run XDP natively is unknown".to_owned());
    };
    if !features.is_native() {
        return Err(format!("ebpf.hook: {} cannot run XDP natively", device.interface));
    }
    if device.ebpf.xdp_in_use {
        return Err(format!("ebpf.hook: {} runs somebody's XDP program already", device.interface));
    }
    match (mtu <= SINGLE_BUFFER_MTU, features.has_frags()) {
        (true, _) => Ok(IngressHook::Xdp),
        (false, true) => Ok(IngressHook::XdpFrags),
        (false, false) => Err(format!(
            "ebpf.hook: {} runs XDP up to an MTU of {SINGLE_BUFFER_MTU} only, not {mtu}",
            device.interface
        )),
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

    #[test]
    fn auto_takes_native_xdp_on_hardware_and_tcx_elsewhere() {
        let auto = wishing(HookWish::Auto);
        let chosen = |device: &Device, mtu| choose_ingress(&auto, device, mtu).unwrap();

        assert_eq!(chosen(&hardware(Some(0x23)), 1500), Some(IngressHook::Xdp));
        assert_eq!(chosen(&hardware(Some(0x23)), 9000), Some(IngressHook::XdpFrags));
        assert_eq!(chosen(&hardware(Some(0x03)), 9000), Some(IngressHook::Tcx));
        assert_eq!(chosen(&hardware(Some(0)), 1500), Some(IngressHook::Tcx));
        assert_eq!(chosen(&hardware(None), 1500), Some(IngressHook::Tcx));
        assert_eq!(chosen(&device("veth1"), 1500), Some(IngressHook::Tcx));
    }

    #[test]
    fn xdp_by_wish_is_native_or_an_error() {
        let xdp = wishing(HookWish::Xdp);

        assert_eq!(choose_ingress(&xdp, &hardware(Some(3)), 1500), Ok(Some(IngressHook::Xdp)));
        assert!(choose_ingress(&xdp, &hardware(Some(3)), 9000).unwrap_err().contains("9000"));
        assert!(choose_ingress(&xdp, &hardware(Some(0)), 1500).unwrap_err().contains("natively"));
        assert!(choose_ingress(&xdp, &hardware(None), 1500).unwrap_err().contains("unknown"));
        let mut busy = hardware(Some(3));
        busy.ebpf.xdp_in_use = true;
        assert!(choose_ingress(&xdp, &busy, 1500).unwrap_err().contains("already"));
    }

    #[test]
    fn no_program_where_there_is_nothing_to_do() {
        let device = hardware(Some(3));
        assert_eq!(choose_ingress(&wishing(HookWish::None), &device, 1500), Ok(None));
        let idle = EbpfWishes { telemetry: Telemetry::Off, ..wishing(HookWish::Xdp) };
        assert_eq!(choose_ingress(&idle, &device, 1500), Ok(None));
        let filtering = EbpfWishes { filter: Some(Filter::default()), ..idle };
        assert_eq!(choose_ingress(&filtering, &device, 1500), Ok(Some(IngressHook::Xdp)));
    }

    #[test]
    fn another_link_layer_than_ethernet_is_refused() {
        let mut device = hardware(Some(3));
        device.encapsulation = "infiniband".to_owned();
        assert!(choose_ingress(&wishing(HookWish::Auto), &device, 1500).is_err());
        assert_eq!(choose_ingress(&wishing(HookWish::None), &device, 1500), Ok(None));
    }

    #[test]
    fn a_kernel_without_tcx_is_refused() {
        let mut device = hardware(Some(3));
        device.ebpf.tcx = false;
        assert!(choose_ingress(&wishing(HookWish::Auto), &device, 1500).is_err());
    }
}
