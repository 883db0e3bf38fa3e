//! Virtual functions and RDMA devices, where there are none.

use driver::model::{Place, RdmaPlace, VfPlace, VfSettings};
use driver::node::Node as _;
use driver::plan::{Observed, Step, Subject};
use driver::sys::rdma::Rdma;

use super::stage::{ON_HOST, Stage, on_host};

fn vf(stage: &mut Stage) -> VfPlace {
    VfPlace { pf: ON_HOST.parse().unwrap(), pf_index: stage.index(ON_HOST), number: 0 }
}

#[test]
fn what_has_no_virtual_functions_says_so() {
    on_host(|stage| {
        let place = vf(stage);
        let seen = stage.node.observe(&Subject::Vf(place.clone())).unwrap();
        assert_eq!(seen, Observed::Vf(None));
        let settings = VfSettings { trust: Some(true), ..VfSettings::default() };
        let error = stage.refused(&Step::SetVf { vf: place, settings });
        assert_eq!(error.message, "there is no virtual function 0 of v0");
    });
}

/// The codec against the kernel, which takes the request apart before it finds that there is no such
/// function.
#[test]
fn a_setting_of_a_function_that_is_not_there_is_refused_by_its_name() {
    on_host(|stage| {
        let place = vf(stage);
        let settings = VfSettings { spoof_check: Some(false), ..VfSettings::default() };
        let now = VfSettings::default();
        let error = stage.host.set_function(place.pf_index, 0, &settings, &now).unwrap_err();
        assert!(error.is_unsupported(), "{error}");
        let said = format!("set spoof check of virtual function 0 of interface {}", place.pf_index);
        assert!(error.to_string().starts_with(&said), "{error}");
    });
}

/// With RDMA in the kernel, the device is not there; without, nothing is. Neither is an error of ours.
#[test]
fn an_rdma_device_that_is_not_there_is_not_moved() {
    on_host(|stage| {
        let name = "none_0".to_owned();
        let query = Subject::Rdma { place: Place::Host, name, index: None };
        assert_eq!(stage.node.observe(&query).unwrap(), Observed::Rdma(None));
        let device = RdmaPlace { name: "none_0".to_owned(), index: 4_000_000 };
        let to = stage.place();
        let error = stage.refused(&Step::MoveRdma { device, from: Place::Host, to });
        assert!(error.message.starts_with("there is no RDMA device none_0 in host"), "{error}");
        if let Some(rdma) = Rdma::open().unwrap() {
            rdma.netns_mode().unwrap();
            assert!(rdma.devices().unwrap().iter().all(|device| device.name != "none_0"));
        }
    });
}

#[test]
fn a_namespace_is_there_until_it_is_gone() {
    on_host(|stage| {
        let there = Subject::Namespace(stage.netns());
        assert_eq!(stage.node.observe(&there).unwrap(), Observed::Namespace(true));
        let mut gone = stage.netns();
        gone.id.inode += 1;
        let gone = stage.node.observe(&Subject::Namespace(gone)).unwrap();
        assert_eq!(gone, Observed::Namespace(false));
    });
}
