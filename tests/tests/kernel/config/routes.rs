//! Routes, rules and neighbours.

use driver::model::{Dad, Family, Neighbor, Route, RouteProtocol, RouteScope, Rule, TableId};
use driver::node::Node as _;
use driver::plan::{Step, Was};
use ipnet::IpNet;
use serde_json::Value;

use super::stage::{Stage, in_pod, ip};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn route(destination: &str, gateway: &str) -> Route {
    Route { gateway: Some(gateway.parse().unwrap()), ..Route::to(net(destination)) }
}

fn addressed(stage: &mut Stage) {
    let at = stage.in_pod();
    for address in ["10.0.0.1/24", "fd00::1/64"] {
        let address = net(address);
        let step = Step::AddAddress { at: at.clone(), address, dad: Dad::Skip };
        stage.node.apply(&step).unwrap();
    }
}

fn find<'a>(routes: &'a Value, destination: &str) -> &'a Value {
    let is_it = |route: &&Value| route["dst"] == destination;
    routes.as_array().unwrap().iter().find(is_it).unwrap_or_else(|| panic!("{routes:#}"))
}

#[test]
fn every_part_of_a_route_reaches_the_kernel_and_goes_again() {
    in_pod(|stage| {
        addressed(stage);
        let at = stage.in_pod();
        let mut check = |route: Route, destination: &str, parts: &[(&str, &str)]| {
            let step = Step::AddRoute { at: at.clone(), route };
            stage.there_and_back(&at, &step, |seen| {
                let route = find(&seen.routes, destination);
                for (key, value) in parts {
                    let shown = &route[*key];
                    let text = shown.as_str().map_or(shown.to_string(), str::to_owned);
                    assert_eq!(text, *value, "{key} of {route:#}");
                }
            });
        };
        check(
            route("0.0.0.0/0", "10.0.0.254"),
            "default",
            &[("gateway", "10.0.0.254"), ("protocol", "4"), ("scope", "0")],
        );
        let link = Route { scope: RouteScope::LINK, ..Route::to(net("10.9.0.0/16")) };
        check(link, "10.9.0.0/16", &[("scope", "253")]);
        check(Route::to(net("10.9.0.0/16")), "10.9.0.0/16", &[("scope", "0")]);
        let source = Some("10.0.0.1".parse().unwrap());
        check(
            Route { source, ..Route::to(net("10.8.0.0/16")) },
            "10.8.0.0/16",
            &[("prefsrc", "10.0.0.1")],
        );
        let far =
            Route { table: TableId(70_000), metric: Some(7), ..route("10.7.0.0/16", "10.0.0.9") };
        check(far, "10.7.0.0/16", &[("table", "70000"), ("metric", "7")]);
        let onlink = Route { onlink: true, ..route("10.6.0.0/16", "192.0.2.1") };
        check(onlink, "10.6.0.0/16", &[("gateway", "192.0.2.1"), ("flags", r#"["onlink"]"#)]);
        let bgp = Route { protocol: RouteProtocol(186), ..route("10.5.0.0/16", "10.0.0.9") };
        check(bgp, "10.5.0.0/16", &[("protocol", "186")]);
        check(
            route("10.4.0.0/16", "fd00::9"),
            "10.4.0.0/16",
            &[("via", r#"{"family":"inet6","host":"fd00::9"}"#)],
        );
        check(route("fd09::/64", "fd00::9"), "fd09::/64", &[("metric", "1024")]);
        let six = Route { table: TableId(1000), metric: Some(3), ..route("::/0", "fd00::9") };
        check(six, "default", &[("table", "1000"), ("metric", "3")]);
        let onlink = Route { onlink: true, ..route("fd08::/64", "fd77::1") };
        check(onlink, "fd08::/64", &[("flags", r#"["onlink"]"#)]);
    });
}

#[test]
fn routes_that_differ_in_their_metric_or_table_are_two() {
    in_pod(|stage| {
        addressed(stage);
        let at = stage.in_pod();
        let add = |route: &Route| Step::AddRoute { at: at.clone(), route: route.clone() };
        let remove = |route: &Route| Step::RemoveRoute { at: at.clone(), route: route.clone() };
        for gateway in ["10.0.0.9", "fd00::9"] {
            let all = if gateway.contains(':') { "fd09::/64" } else { "10.9.0.0/16" };
            let plain = route(all, gateway);
            let dear = Route { metric: Some(5000), ..plain.clone() };
            let other = Route { table: TableId(5), ..plain.clone() };
            for route in [&dear, &plain, &other] {
                stage.twice(&add(route));
            }
            stage.twice(&remove(&other));
            stage.twice(&remove(&plain));
            // The kernel would take a request without a metric for the one that is left.
            let seen = stage.seen(&at);
            assert_eq!(find(&seen.routes, all)["metric"], 5000);
            stage.twice(&remove(&dear));
        }
    });
}

#[test]
fn a_route_that_leads_elsewhere_is_in_the_way() {
    in_pod(|stage| {
        addressed(stage);
        let at = stage.in_pod();
        let add = |route: Route| Step::AddRoute { at: at.clone(), route };
        stage.twice(&add(route("10.9.0.0/16", "10.0.0.9")));
        let error = stage.refused(&add(route("10.9.0.0/16", "10.0.0.8")));
        assert!(error.message.contains("File exists"), "{error}");
        // What the kernel made for an address is as good as ours.
        let own = Route { scope: RouteScope::LINK, ..Route::to(net("10.0.0.0/24")) };
        assert_eq!(stage.node.apply(&add(own)).unwrap(), Was::Same);
    });
}

#[test]
fn every_part_of_a_rule_reaches_the_kernel_and_goes_again() {
    in_pod(|stage| {
        let at = stage.in_pod();
        let rule = |family, source: Option<&str>, destination: Option<&str>| Rule {
            family,
            priority: 500,
            source: source.map(net),
            destination: destination.map(net),
            table: TableId(70_000),
        };
        for (rule, source, destination) in [
            (rule(Family::Ipv4, Some("10.0.0.0/8"), None), "10.0.0.0", None),
            (rule(Family::Ipv4, None, Some("10.0.0.9/32")), "all", Some("10.0.0.9")),
            (rule(Family::Ipv6, Some("fd00::/64"), Some("fd01::/64")), "fd00::", Some("fd01::")),
            (rule(Family::Ipv6, None, None), "all", None),
        ] {
            let step = Step::AddRule { place: stage.place(), rule };
            stage.there_and_back(&at, &step, |seen| {
                let rules = seen.rules.as_array().unwrap();
                let found = rules.iter().find(|rule| rule["priority"] == 500).unwrap();
                assert_eq!(found["src"], source, "{found:#}");
                assert_eq!(found["dst"].as_str(), destination, "{found:#}");
                assert_eq!((&found["table"], &found["protocol"]), (&"70000".into(), &"4".into()));
            });
        }
    });
}

#[test]
fn another_rule_of_the_same_priority_and_table_is_not_removed_for_ours() {
    in_pod(|stage| {
        let narrow = Rule {
            family: Family::Ipv4,
            priority: 500,
            source: Some(net("10.0.0.0/8")),
            destination: None,
            table: TableId(5),
        };
        let wide = Rule { source: None, ..narrow.clone() };
        let (place, at) = (stage.place(), stage.in_pod());
        let add = |rule: &Rule| Step::AddRule { place: place.clone(), rule: rule.clone() };
        let remove = |rule: &Rule| Step::RemoveRule { place: place.clone(), rule: rule.clone() };
        stage.twice(&add(&narrow));
        assert_eq!(stage.node.apply(&remove(&wide)).unwrap(), Was::Same);
        // To the kernel the one is as good as the other, to us it is not.
        let error = stage.refused(&add(&wide));
        assert!(error.message.contains("File exists"), "{error}");
        assert_eq!(
            stage.seen(&at).rules.as_array().unwrap().len(),
            5 + 1,
            "of the kernel and ours"
        );
        stage.twice(&remove(&narrow));
        stage.twice(&add(&wide));
        stage.twice(&add(&narrow));
        stage.twice(&remove(&wide));
        stage.twice(&remove(&narrow));
    });
}

#[test]
fn a_neighbour_is_permanent_and_goes_again() {
    in_pod(|stage| {
        addressed(stage);
        let at = stage.in_pod();
        for address in ["10.0.0.9", "fd00::9"] {
            let neighbor = Neighbor {
                destination: address.parse().unwrap(),
                mac: "02:00:00:00:00:99".parse().unwrap(),
            };
            let step = Step::AddNeighbor { at: at.clone(), neighbor };
            stage.there_and_back(&at, &step, |seen| {
                let found = &seen.neighbors[0];
                assert_eq!(
                    (&found["dst"], &found["lladdr"]),
                    (&address.into(), &"02:00:00:00:00:99".into())
                );
                assert_eq!(found["state"][0], "PERMANENT", "{found:#}");
            });
        }
    });
}

#[test]
fn what_the_kernel_found_out_about_a_neighbour_is_replaced_and_what_somebody_said_is_not() {
    in_pod(|stage| {
        addressed(stage);
        let at = stage.in_pod();
        let add = |mac: &str| Step::AddNeighbor {
            at: at.clone(),
            neighbor: Neighbor {
                destination: "10.0.0.9".parse().unwrap(),
                mac: mac.parse().unwrap(),
            },
        };
        let place = stage.place();
        stage.inside(&place, || {
            ip(&[
                "neigh",
                "add",
                "10.0.0.9",
                "lladdr",
                "02:00:00:00:00:01",
                "dev",
                "net1",
                "nud",
                "stale",
            ])
        });
        stage.twice(&add("02:00:00:00:00:99"));
        let error = stage.refused(&add("02:00:00:00:00:98"));
        assert!(error.message.contains("File exists"), "{error}");
    });
}
