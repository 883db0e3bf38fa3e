//! Real machines, from what their kernels tell to what is published. The machines are in
//! `inventory/machines`, each with what it is after; `WEIR_GOLDEN=write` writes their slices anew.

use serde_json::{Value, json};

use super::fixtures::pool;
use super::golden::is_golden;
use super::slices::{Terms, render};
use crate::inventory::machines::scan;

macro_rules! machines {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let text = include_str!(concat!("../inventory/machines/", stringify!($name), ".txt"));
            is_golden(concat!("machines/", stringify!($name), ".json"), &published(text));
        }
    )*};
}

machines! {
    mlx5_with_vfs
    mlx5_switchdev
    mlx4_two_ports
    virtio_guest
    gvnic_guest
    efa_guest
    infiniband_only
    mlx5_bond
    ice_vf_and_vfio
    software_rdma
}

/// The devices as they are published, and what is not.
fn published(machine: &str) -> Value {
    let scan = scan(machine);
    let pool = pool();
    let slices = render(&scan.devices, &Terms::of(&pool), 1);
    let devices: Vec<_> =
        slices.into_iter().flat_map(|slice| slice.spec.devices).flatten().collect();
    for device in &devices {
        let attributes = device.attributes.iter().flatten().count();
        assert!(attributes + device.capacity.iter().flatten().count() <= 32, "{}", device.name);
    }
    let idle = scan.idle.iter().map(|it| json!({"pci": it.address.to_string(), "why": it.reason}));
    let left_out =
        scan.left_out.iter().map(|it| json!({"interface": it.interface, "why": it.reason}));
    let left_out: Vec<_> = left_out.chain(idle).collect();
    json!({"devices": devices, "leftOut": left_out})
}
