//! Functions that user space drives.

use super::*;

/// The device as it was published, whose function is now as `seen`.
fn refused(seen: FunctionSeen) -> String {
    let bench = with_functions(false);
    bench.node.world().functions.insert(pci(VFIO[0]), seen);
    let vfio = one("a", "eth1", |device| make_vfio(device, 0), Wishes::default());
    let error = bench.run(None, |engine| engine.prepare(&vfio).unwrap_err()).unwrap();
    assert!(matches!(error, AttachError::Impossible { .. }), "{error}");
    error.to_string()
}

#[test]
fn an_iommu_group_goes_to_one_claim_at_a_time() {
    let bench = with_functions(false);
    for seen in bench.node.world().functions.values_mut() {
        seen.iommu_group = Some(42);
    }
    bench.run(None, |engine| {
        let vfio =
            |name, device, number| one(name, device, |it| make_vfio(it, number), Wishes::default());
        engine.prepare(&vfio("a", "eth1", 0)).unwrap();
        let error = engine.prepare(&vfio("b", "eth2", 1)).unwrap_err().to_string();
        assert!(error.contains("IOMMU group 42 is in use by claim default/claim-a"), "{error}");
    });
}

#[test]
fn what_the_kernel_drives_by_now_or_uses_another_function_of_is_refused() {
    let now = |driver: Option<&str>, iommu_group, held_up_by: &[u8]| {
        let held_up_by = held_up_by.iter().copied().map(pci).collect();
        refused(FunctionSeen { driver: driver.map(str::to_owned), iommu_group, held_up_by })
    };
    let vfio = Some(VFIO_DRIVER);
    assert!(now(Some("igb"), Some(42), &[]).contains("igb drives it, and vfio-pci no more"));
    assert!(now(None, None, &[]).contains("vfio-pci does not drive it any more"));
    assert!(now(vfio, None, &[]).contains("in no IOMMU group"));
    let said = now(vfio, Some(42), &[1, 7]);
    assert!(said.contains("group 42 cannot be used"), "{said}");
    assert!(said.contains("use 0000:3b:00.1, 0000:3b:00.7 of it"), "{said}");
}

/// Its driver may have been loaded anew since the last scan.
#[test]
fn the_group_that_is_handed_over_is_the_one_that_the_function_is_in_now() {
    let bench = with_functions(false);
    bench.node.world().functions.get_mut(&pci(VFIO[0])).unwrap().iommu_group = Some(7);
    bench.run(None, |engine| {
        let vfio = one("a", "eth1", |device| make_vfio(device, 0), Wishes::default());
        engine.prepare(&vfio).unwrap();
        attach(engine).unwrap();
    });
    let nodes = &bench.node.world().cdi[&claim("claim-a").uid].devices[0].nodes;
    assert_eq!(nodes[0].to_str(), Some("/dev/vfio/7"));
}
