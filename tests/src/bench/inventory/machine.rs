//! The machine whose files are read: two adapters, each with 127 virtual functions, all of them with an
//! RDMA device, as mlx5 shows them.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use driver::model::Device;

/// Of each adapter: its physical function and the virtual ones.
const FUNCTIONS: usize = 128;
pub(super) const DEVICES: usize = 2 * FUNCTIONS;

/// One of all functions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    nth: usize,
    adapter: usize,
    /// Among those of its adapter; the physical one is 0.
    number: usize,
}

impl Function {
    pub(super) fn nth(nth: usize) -> Self {
        Self { nth, adapter: nth / FUNCTIONS, number: nth % FUNCTIONS }
    }

    pub(super) fn interface(self) -> String {
        match self.number {
            0 => format!("ens{}np0", self.adapter),
            number => format!("ens{}v{}", self.adapter, number - 1),
        }
    }

    /// The virtual functions come after those that are physical, of which there could be two.
    fn address(self) -> String {
        let place = if self.number == 0 { 0 } else { self.number + 1 };
        format!("0000:{}1:{:02x}.{}", 4 + 4 * self.adapter, place / 8, place % 8)
    }

    fn text(self) -> String {
        let Self { nth, adapter, number } = self;
        let bus = 4 + 4 * adapter;
        let (interface, address) = (self.interface(), self.address());
        let mut text = format!(
            "devices/pci0000:{bus}0/0000:{bus}0:02.0/{address}:\n\
             \x20 vendor = 0x15b3\n  subsystem_vendor = 0x15b3\n  subsystem_device = 0x0016\n\
             \x20 class = 0x020000\n  numa_node = {adapter}\n  local_cpulist = {adapter}\n\
             \x20 iommu_group => kernel/iommu_groups/{nth}\n  driver => bus/pci/drivers/mlx5_core\n\
             \x20 net/{interface}/dev_port = 0\n  net/{interface}/speed = 100000\n\
             \x20 infiniband/mlx5_{nth}/node_type = 1: CA\n\
             \x20 infiniband/mlx5_{nth}/node_guid = b83f:d203:00a1:{nth:04x}\n\
             \x20 infiniband/mlx5_{nth}/ports/1/link_layer = Ethernet\n\
             \x20 infiniband/mlx5_{nth}/ports/1/state = 4: ACTIVE\n\
             \x20 infiniband/mlx5_{nth}/ports/1/rate = 100 Gb/sec (4X EDR)\n\
             \x20 infiniband/mlx5_{nth}/ports/1/gid_attrs/ndevs/0 = {interface}\n\
             \x20 infiniband_verbs/uverbs{nth}/ibdev = mlx5_{nth}\n"
        );
        // Writing to a string cannot fail.
        let _ = if number == 0 {
            let virtual_functions = FUNCTIONS - 1;
            write!(
                text,
                "  device = 0x101d\n  sriov_totalvfs = {virtual_functions}\n\
                 \x20 sriov_numvfs = {virtual_functions}\n"
            )
        } else {
            let physical = Self { nth: nth - number, adapter, number: 0 }.address();
            writeln!(text, "  device = 0x101e\n  physfn -> ../{physical}")
        };
        for number in (1..FUNCTIONS).filter(|_| number == 0) {
            let of = Self { nth: nth + number, adapter, number }.address();
            let _ = writeln!(text, "  virtfn{} -> ../{of}", number - 1);
        }
        text
    }
}

/// As [`plant_machine`](driver::sys::sysfs::tree::plant_machine) reads it.
pub(super) fn functions_as_text() -> String {
    (0..DEVICES).map(|nth| Function::nth(nth).text()).collect()
}

/// What is measured is a look at this machine, with all that its files tell.
pub(super) fn check(devices: &[Device]) -> Result<()> {
    ensure!(devices.len() == DEVICES, "{} devices instead of {DEVICES}", devices.len());
    let virtual_functions = devices.iter().filter(|it| it.vf.is_some()).count();
    ensure!(virtual_functions == DEVICES - 2, "{virtual_functions} are virtual functions");
    for device in devices {
        let tells = device.rdma.is_some() && device.numa_node.is_some() && device.pci.is_some();
        ensure!(tells, "{} lacks facts: {device:?}", device.called());
    }
    Ok(())
}
