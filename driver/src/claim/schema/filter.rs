//! The schema of filters: a direction and its rules. All of it is told in docs/filters.md.

use serde_json::{Value, json};

use super::{described, flag, integer, list, object, text, words};
use crate::claim::{filter, rate, rule};

pub(super) fn definitions() -> Value {
    json!({ "ingress": direction(), "egress": direction(), "filterRule": filter_rule() })
}

fn direction() -> Value {
    let rule = json!({ "$ref": "#/definitions/filterRule" });
    object(
        "Rules for one direction: the first that decides, the default where none does.",
        &[],
        [
            ("defaultAction", described("Default: allow.", words(&filter::DEFAULTS))),
            ("stateful", described("Answers pass where no rule decides. Default: false.", flag())),
            ("rules", list("In their order.", filter::MOST_RULES, &rule)),
        ],
    )
}

fn filter_rule() -> Value {
    let some = |description: &str, item: &Value| {
        let mut some = list(description, rule::MOST_ITEMS, item);
        super::extend(&mut some, json!({ "minItems": 1 }));
        some
    };
    let port = json!({ "anyOf": [integer(1..=u16::MAX), text()] });
    object(
        "What it matches, and what it does. What is left out does not narrow.",
        &["name", "action"],
        [
            (
                "name",
                described(
                    "A DNS label, once in a direction.",
                    json!({ "type": "string", "minLength": 1, "maxLength": 63 }),
                ),
            ),
            ("action", words(&rule::ACTIONS)),
            ("rateLimit", rate_limit()),
            ("cidrs", some("Networks of the other end.", &text())),
            ("sources", some("Networks that packets are from.", &text())),
            ("destinations", some("Networks that packets go to.", &text())),
            ("protocol", words(&rule::PROTOCOLS)),
            ("ports", some("Destination ports: a number, or two such as 8000-8080.", &port)),
            ("sourcePorts", some("Source ports.", &port)),
            (
                "established",
                described("Only TCP segments with the ACK bit.", json!({ "const": true })),
            ),
            ("icmpTypes", some("Only with icmp and icmpv6.", &integer(0..=u8::MAX))),
            ("fragment", described("Whether the packet is part of a fragmented one.", flag())),
        ],
    )
}

fn rate_limit() -> Value {
    object(
        "With action rateLimit: one of the two rates.",
        &[],
        [
            ("packetsPerSecond", integer(1..=rate::MOST_PACKETS)),
            ("bitsPerSecond", integer(rate::LEAST_BITS..=rate::MOST_BITS)),
            (
                "burst",
                described(
                    "Packets or bits at once after a pause. Default: a tenth of a second's.",
                    integer(1..=rate::MOST_BITS * rate::LONGEST_SECONDS),
                ),
            ),
        ],
    )
}
