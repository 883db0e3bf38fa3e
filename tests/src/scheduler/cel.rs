//! CEL over one device, as DRA defines it: `device.driver`, `device.attributes[domain].id`,
//! `device.capacity[domain].id`.

use std::collections::{BTreeMap, HashMap};
use std::{io, panic, thread};

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};
use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedExpr};
use kube_cel::cel::{Context, Program, Value};

/// Longest expression (`CELSelectorExpressionMaxLength` in `k8s.io/api/resource/v1/types.go`).
const EXPRESSION_LEN: usize = 10 * 1024;
/// Deepest nesting of brackets; the parser descends for each.
const NESTING: usize = 32;
/// The parser's recursion wants more than the 2 MiB that threads have. It costs address space only.
const STACK: usize = 64 << 20;

/// Runs `work`, which may compile and evaluate expressions, on a thread with room for it.
pub(super) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("cel".to_owned()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
    })
}

/// A compiled selector.
pub(super) struct Expression {
    program: Program,
    /// String literals of the source. An attribute domain that a device does not have reads as an
    /// empty map, so every text that could be a domain gets one.
    literals: Vec<String>,
}

impl Expression {
    pub(super) fn compile(source: &str) -> Result<Self, String> {
        if source.len() > EXPRESSION_LEN {
            return Err(format!("longer than {EXPRESSION_LEN} bytes"));
        }
        if nesting(source) > NESTING {
            return Err(format!("brackets nested deeper than {NESTING}"));
        }
        let program = Program::compile(source).map_err(|errors| errors.to_string())?;
        if let Some(unknown) = undeclared(program.expression(), &["device"]) {
            return Err(format!("undeclared reference to {unknown:?}"));
        }
        Ok(Self { program, literals: literals(source) })
    }

    /// Whether the device of `driver` fits.
    ///
    /// # Errors
    ///
    /// What the evaluation failed with, such as an attribute that the device does not have; the
    /// real scheduler gives up the whole allocation then, too.
    pub(super) fn matches(&self, driver: &str, device: &Device) -> Result<bool, String> {
        let mut context = Context::default();
        context.register_all();
        let device = self.variable(&context, driver, device)?;
        context.add_variable_from_value("device", device);
        match self.program.execute(&context).map_err(|error| error.to_string())? {
            Value::Bool(fits) => Ok(fits),
            other => Err(format!("the result is {other:?} and not a bool")),
        }
    }

    fn variable(
        &self,
        context: &Context<'_>,
        driver: &str,
        device: &Device,
    ) -> Result<Value, String> {
        let mut attributes = self.empty_domains(driver);
        for (name, attribute) in device.attributes.iter().flatten() {
            let (domain, id) = qualified(name, driver);
            let value = attribute_value(context, attribute)?;
            attributes.entry(domain.to_owned()).or_default().insert(id.to_owned(), value);
        }
        let mut capacity = self.empty_domains(driver);
        for (name, amount) in device.capacity.iter().flatten() {
            let (domain, id) = qualified(name, driver);
            let value = call(context, "quantity(text)", &amount.value.0)?;
            capacity.entry(domain.to_owned()).or_default().insert(id.to_owned(), value);
        }
        Ok(Value::from(HashMap::from([
            ("driver", Value::from(driver)),
            ("attributes", Value::from(attributes)),
            ("capacity", Value::from(capacity)),
            (
                "allowMultipleAllocations",
                Value::Bool(device.allow_multiple_allocations == Some(true)),
            ),
        ])))
    }

    fn empty_domains(&self, driver: &str) -> HashMap<String, HashMap<String, Value>> {
        let domains = self.literals.iter().map(String::as_str).chain([driver]);
        domains.map(|domain| (domain.to_owned(), HashMap::new())).collect()
    }
}

/// The domain and the identifier of an attribute; one without a domain is in the driver's.
pub(super) fn qualified<'a>(name: &'a str, driver: &'a str) -> (&'a str, &'a str) {
    name.split_once('/').unwrap_or((driver, name))
}

/// The attribute `domain/id` of a device.
pub(super) fn attribute<'a>(
    attributes: Option<&'a BTreeMap<String, DeviceAttribute>>,
    driver: &str,
    wanted: &str,
) -> Option<&'a DeviceAttribute> {
    let wanted = qualified(wanted, driver);
    attributes?.iter().find(|(name, _)| qualified(name, driver) == wanted).map(|(_, value)| value)
}

fn attribute_value(context: &Context<'_>, attribute: &DeviceAttribute) -> Result<Value, String> {
    let DeviceAttribute { bool, int, string, version, .. } = attribute;
    match (bool, int, string, version) {
        (Some(bool), None, None, None) => Ok(Value::Bool(*bool)),
        (None, Some(int), None, None) => Ok(Value::Int(*int)),
        (None, None, Some(string), None) => Ok(Value::from(string.as_str())),
        (None, None, None, Some(version)) => call(context, "semver(text)", version),
        _ => Err("an attribute without exactly one plain value".to_owned()),
    }
}

/// Makes a value of one of Kubernetes' own types, which only CEL functions can make.
fn call(context: &Context<'_>, function: &str, text: &str) -> Result<Value, String> {
    let mut context = context.new_inner_scope();
    context.add_variable_from_value("text", text);
    let program = Program::compile(function).map_err(|errors| errors.to_string())?;
    program.execute(&context).map_err(|error| format!("{text:?}: {error}"))
}

/// A name in an expression that means nothing there. A macro such as `exists` declares what it goes
/// through, for its own condition only; `Program::references` takes that for a variable, too.
fn undeclared<'a>(expression: &'a IdedExpr, declared: &[&str]) -> Option<&'a str> {
    let first = |parts: &[&'a IdedExpr], declared: &[&str]| {
        parts.iter().find_map(|part| undeclared(part, declared))
    };
    match &expression.expr {
        Expr::Ident(name) => (!declared.contains(&name.as_str())).then_some(name),
        Expr::Select(select) => undeclared(&select.operand, declared),
        Expr::Call(call) => {
            let parts: Vec<_> = call.target.as_deref().into_iter().chain(&call.args).collect();
            first(&parts, declared)
        }
        Expr::List(list) => first(&list.elements.iter().collect::<Vec<_>>(), declared),
        Expr::Map(map) => map.entries.iter().find_map(|it| undeclared_in(&it.expr, declared)),
        Expr::Struct(made) => made.entries.iter().find_map(|it| undeclared_in(&it.expr, declared)),
        Expr::Comprehension(it) => {
            first(&[&it.iter_range, &it.accu_init], declared).or_else(|| {
                let names = [Some(&it.iter_var), Some(&it.accu_var), it.iter_var2.as_ref()];
                let names = names.into_iter().flatten().map(String::as_str);
                let within: Vec<_> = declared.iter().copied().chain(names).collect();
                first(&[&it.loop_cond, &it.loop_step, &it.result], &within)
            })
        }
        Expr::Unspecified | Expr::Literal(_) => None,
    }
}

fn undeclared_in<'a>(entry: &'a EntryExpr, declared: &[&str]) -> Option<&'a str> {
    match entry {
        EntryExpr::StructField(field) => undeclared(&field.value, declared),
        EntryExpr::MapEntry(entry) => {
            undeclared(&entry.key, declared).or_else(|| undeclared(&entry.value, declared))
        }
    }
}

fn nesting(source: &str) -> usize {
    let mut depth: usize = 0;
    let mut deepest = 0;
    for c in source.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn literals(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(start) = rest.find(['"', '\'']) {
        let quote = &rest[start..=start];
        let after = &rest[start + 1..];
        let Some(end) = after.find(quote) else { break };
        found.push(after[..end].to_owned());
        rest = &after[end + 1..];
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn eval(source: &str) -> Result<bool, String> {
        let device: Device = serde_json::from_value(json!({
            "name": "nic0",
            "attributes": {
                "ebpf": { "bool": true },
                "weir.dev/mtu": { "int": 1500 },
                "weir.dev/ifName": { "string": "nic0" },
                "weir.dev/kernelVersion": { "version": "6.18.44" },
                "resource.kubernetes.io/numaNode": { "int": 1 },
            },
            "capacity": { "bandwidth": { "value": "10G" } },
        }))
        .unwrap();
        on_large_stack(|| Expression::compile(source)?.matches("weir.dev", &device)).unwrap()
    }

    #[test]
    fn a_device_shows_its_attributes_below_their_domains() {
        for fits in [
            "device.driver == 'weir.dev'",
            "device.attributes['weir.dev'].ebpf && device.attributes['weir.dev'].mtu >= 1500",
            "device.attributes[\"weir.dev\"].ifName.startsWith('nic')",
            "device.attributes['weir.dev'].kernelVersion.isGreaterThan(semver('6.6.0'))",
            "device.attributes['resource.kubernetes.io'].numaNode == 1",
            "device.capacity['weir.dev'].bandwidth.compareTo(quantity('1G')) > 0",
            "!has(device.attributes['other.dev'].anything)",
            "!has(device.attributes['weir.dev'].rdma) || device.attributes['weir.dev'].rdma",
            "['nic0', 'nic1'].exists(it, device.attributes['weir.dev'].ifName == it)",
            "[1500, 9000].map(it, it + 1).all(mtu, mtu > device.attributes['weir.dev'].mtu)",
        ] {
            assert_eq!(eval(fits), Ok(true), "{fits}");
        }
        assert_eq!(eval("device.attributes['weir.dev'].mtu > 1500"), Ok(false));
    }

    /// What the driver's filter lets through is what a selector of the same words would take.
    #[test]
    fn the_drivers_filter_says_the_same() {
        let device = |name: &str, speed: i64, rdma: Option<bool>| -> Device {
            let mut device = json!({
                "name": name,
                "attributes": {
                    "weir.dev/ifName": { "string": name },
                    "linkSpeedMbps": { "int": speed },
                    "weir.dev/kernelVersion": { "version": "6.18.44" },
                },
                "capacity": { "bandwidth": { "value": format!("{speed}M") } },
                "allowMultipleAllocations": speed > 10_000,
            });
            if let Some(rdma) = rdma {
                device["attributes"]["weir.dev/rdma"] = json!({ "bool": rdma });
            }
            serde_json::from_value(device).unwrap()
        };
        let devices = [
            device("eth1", 1000, None),
            device("eth2", 25_000, Some(true)),
            device("enp3s0", 100_000, Some(false)),
        ];
        for source in [
            "true",
            "device.driver == 'weir.dev'",
            "device.attributes['weir.dev'].ifName.startsWith('eth')",
            "device.attributes['weir.dev'].linkSpeedMbps >= 25000",
            "device.attributes['weir.dev'].rdma",
            "has(device.attributes['weir.dev'].rdma) && device.attributes['weir.dev'].rdma",
            "!has(device.attributes['gce.dra.net'].block)",
            "device.attributes['gce.dra.net'].block == 'a'",
            "device.attributes['weir.dev'].kernelVersion.isGreaterThan(semver('6.6.0'))",
            "device.capacity['weir.dev'].bandwidth.isGreaterThan(quantity('10G'))",
            "device.allowMultipleAllocations",
            "['eth1', 'eth2'].exists(it, device.attributes['weir.dev'].ifName == it)",
            "device.attributes['weir.dev'].ifName",
            "1 / 0 == 1",
        ] {
            let ours = driver::dra::Filter::compile(source);
            let ours = ours.map(|filter| filter.judge("weir.dev", &devices)).unwrap();
            let ours: Vec<_> = ours.into_iter().map(Result::ok).collect();
            let judge = || {
                let expression = Expression::compile(source)?;
                Ok(devices.iter().map(|it| expression.matches("weir.dev", it)).collect::<Vec<_>>())
            };
            let theirs: Result<Vec<_>, String> = on_large_stack(judge).unwrap();
            let theirs: Vec<_> = theirs.unwrap().into_iter().map(Result::ok).collect();
            assert_eq!(ours, theirs, "{source}");
        }
    }

    #[test]
    fn an_attribute_that_is_not_there_is_an_error() {
        assert!(eval("device.attributes['weir.dev'].rdma").is_err());
        assert!(eval("device.driver").unwrap_err().contains("not a bool"));
        assert!(eval("node.name == 'x'").unwrap_err().contains("node"));
        let outside = "[1].exists(it, it == 1) && it == 1";
        assert!(eval(outside).unwrap_err().contains("\"it\""), "it is known to the macro only");
        assert!(eval("device.driver ==").is_err());
    }

    #[test]
    fn deep_nesting_is_refused_before_it_is_parsed() {
        let deep = format!("{}true{}", "(".repeat(5000), ")".repeat(5000));
        assert!(eval(&deep).unwrap_err().contains("nested"));
        let fits = format!("{}true{}", "(".repeat(30), ")".repeat(30));
        assert_eq!(eval(&fits), Ok(true));
    }
}
