//! CPUs near a NIC for the containers that name it, by a real runtime.

use std::fs;

use serde_json::json;

use super::machine::{IGB1, Wish, config, interface};
use super::rxe::on_containerd;
use crate::driver::world::nothing_is_left;

/// What the container may run on, as `proc_pid_status(5)` has it, and what it was told.
const ASK: [&str; 3] = ["sh", "-c", "grep Cpus_allowed_list /proc/self/status; env"];

#[test]
#[ignore = "needs hardware: vm ring"]
fn a_container_runs_on_the_cpus_of_its_nics_numa_node() {
    on_containerd(|ring| {
        let nic = interface(IGB1);
        let near = format!("/sys/class/net/{nic}/device/local_cpulist");
        let near = fs::read_to_string(near).unwrap().trim().to_owned();
        let all = fs::read_to_string("/sys/devices/system/cpu/online").unwrap().trim().to_owned();
        assert_ne!(near, all, "the machine has more than the NIC's node");
        let mut parameters = config("net0", "10.9.0.1/24", "auto");
        parameters["alignment"] = json!({ "cpus": "numa-local" });
        let pod = ring.run("web", &[Wish::of(&nic, parameters)]);

        let named = ring.container(&pod.pod, "named", &pod.ids);
        let said = ring.cri.exec(&named, &ASK).unwrap();
        let lines: Vec<_> = said.lines().collect();
        assert!(lines.contains(&format!("Cpus_allowed_list:\t{near}").as_str()), "{said}");
        assert!(lines.contains(&format!("WEIR_NIC_LOCAL_CPUS={near}").as_str()), "{said}");
        assert!(lines.contains(&"WEIR_NIC_NUMA_NODE=1"), "{said}");

        let other = ring.container(&pod.pod, "other", &[]);
        let said = ring.cri.exec(&other, &ASK).unwrap();
        assert!(said.contains(&format!("Cpus_allowed_list:\t{all}\n")), "{said}");
        assert!(!said.contains("WEIR_NIC"), "{said}");
        ring.end(&pod);
        nothing_is_left();
    });
}
