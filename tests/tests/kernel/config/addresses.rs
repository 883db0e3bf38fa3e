//! Addresses and their search for duplicates.

use driver::model::Dad;
use driver::plan::Step;

use super::stage::in_pod;

#[test]
fn an_address_comes_and_goes() {
    in_pod(|stage| {
        let at = stage.in_pod();
        for (text, local) in [("10.0.0.1/24", "10.0.0.1"), ("fd00::1/64", "fd00::1")] {
            let address = text.parse().unwrap();
            let step = Step::AddAddress { at: at.clone(), address, dad: Dad::Skip };
            stage.there_and_back(&at, &step, |seen| {
                let found = &seen.addresses[0];
                assert_eq!(found["local"], local, "{found:#}");
                assert_eq!(found["tentative"].as_bool(), None, "{found:#}");
                assert_eq!(found["nodad"].as_bool(), local.contains(':').then_some(true));
            });
        }
    });
}

#[test]
fn an_address_can_look_for_duplicates_first() {
    in_pod(|stage| {
        let at = stage.in_pod();
        let address = "fd00::1/64".parse().unwrap();
        let step = Step::AddAddress { at: at.clone(), address, dad: Dad::Run };
        stage.twice(&step);
        let found = stage.seen(&at).addresses[0].take();
        assert_eq!(found["tentative"], true, "{found:#}");
        assert_eq!(found["nodad"].as_bool(), None, "{found:#}");
        assert_eq!(stage.state(&at).addresses, [address], "a tentative address is one already");
    });
}

/// So what was there before a journey can be put back as it is written down.
#[test]
fn addresses_that_are_assigned_as_they_were_read_are_in_the_same_order() {
    in_pod(|stage| {
        let at = stage.in_pod();
        let add = |address| Step::AddAddress { at: at.clone(), address, dad: Dad::Skip };
        let remove = |address| Step::RemoveAddress { at: at.clone(), address };
        for text in ["fd00::2/64", "10.1.0.2/24", "fd00::9/64", "10.1.0.9/24", "fd01::3/64"] {
            stage.twice(&add(text.parse().unwrap()));
        }
        let before = stage.seen(&at).addresses;
        let addresses = stage.state(&at).addresses;
        for &address in addresses.iter().rev() {
            stage.twice(&remove(address));
        }
        for &address in &addresses {
            stage.twice(&add(address));
        }
        assert_eq!(stage.seen(&at).addresses, before);
    });
}
