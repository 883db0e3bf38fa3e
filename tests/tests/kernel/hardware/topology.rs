//! Where devices are, and claims that want them there.

use super::machine::{on_the_machine, published};

#[test]
#[ignore = "needs hardware: vm ring"]
fn a_claim_gets_the_nic_of_its_numa_node_and_pcie_root() {
    on_the_machine(|node| {
        println!("ring: {:#?}", published(node));
        let out = |program: &str, words: &[&str]| {
            let output = std::process::Command::new(program).args(words).output().unwrap();
            println!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        };
        out("ip", &["-d", "link"]);
        out("find", &["/sys/kernel/iommu_groups", "-type", "l"]);
        out(
            "sh",
            &[
                "-c",
                "ls -l /sys/class/net/ /sys/class/infiniband /dev/infiniband /dev/vfio; cat /proc/uptime; dmesg | tail -5",
            ],
        );
    });
}
