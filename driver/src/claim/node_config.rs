//! What a node's driver is told in its configuration file: kind `NodeConfig`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::layer::envelope;
use super::reader::{Object, Spot};
use crate::model::{
    DeviceName, NamePattern, NodeConfig, NodeLayer, PfSelector, Problems, ProviderPlace,
    ProviderRule, SriovRule,
};

pub(super) const KIND: &str = "NodeConfig";

/// Longest expression, as of a selector (`CELSelectorExpressionMaxLength` in
/// `k8s.io/api/resource/v1/types.go`, Kubernetes 1.36).
pub(super) const LONGEST_FILTER: usize = 10 * 1024;
pub(super) const MOST_PATTERNS: usize = 256;
pub(super) const MOST_SRIOV_RULES: usize = 64;
pub(super) const MOST_PROVIDERS: usize = 8;
pub(super) const MOST_PROFILES: usize = 64;
/// `TotalVFs` of the SR-IOV capability has 16 bits.
pub(super) const VFS: RangeInclusive<u32> = 1..=65_535;
pub(super) const REFRESH_SECONDS: RangeInclusive<u64> = 5..=3600;
const DEFAULT_REFRESH: u64 = 60;
/// Kubelet waits 45 s for prepare, in which there is more to do.
pub(super) const TIMEOUT_SECONDS: RangeInclusive<u64> = 1..=20;
const DEFAULT_TIMEOUT: u64 = 5;
/// Longest value of a label (`LabelValueMaxLength` in `k8s.io/apimachinery`).
const LONGEST_LABEL: usize = 63;

const LAYER: [&str; 3] = ["publish", "sriov", "providers"];

/// Reads a configuration file. Whether its filters are CEL is for whoever has CEL.
///
/// # Errors
///
/// Everything that is wrong with it, each problem with its path.
pub fn parse_node_config(document: &Value) -> Result<NodeConfig, Problems> {
    let mut problems = Problems::default();
    let config = read(document, &mut problems).unwrap_or_default();
    problems.or(config)
}

/// The filters of a configuration, and where each is.
pub fn filters(config: &NodeConfig) -> Vec<(String, &str)> {
    let own = config.layer.filter.iter().map(|filter| ("publish.filter".to_owned(), &**filter));
    let of_profiles = config.profiles.iter().filter_map(|(name, layer)| {
        let path = super::reader::below("profiles", name);
        Some((format!("{path}.publish.filter"), layer.filter.as_deref()?))
    });
    own.chain(of_profiles).collect()
}

fn read(document: &Value, problems: &mut Problems) -> Option<NodeConfig> {
    let root = Spot { path: String::new(), value: document };
    let known = ["apiVersion", "kind", "publish", "sriov", "providers", "profiles"];
    let root = root.object(&known, problems)?;
    envelope(&root, KIND, problems);
    let layer = layer(&root, problems);
    let profiles = root.field("profiles").and_then(|spot| profiles(&spot, problems));
    Some(NodeConfig { layer, profiles: profiles.unwrap_or_default() })
}

fn profiles(spot: &Spot<'_>, problems: &mut Problems) -> Option<BTreeMap<String, NodeLayer>> {
    let fields = spot.any_object(problems)?;
    let count = fields.names().count();
    if count > MOST_PROFILES {
        return spot
            .refuse(format_args!("{count} profiles are more than {MOST_PROFILES}"), problems);
    }
    let mut found = BTreeMap::new();
    for (name, spot) in fields.entries() {
        if !is_label_value(name) {
            spot.refuse::<()>("is not named as the value of a label can be", problems);
        }
        if let Some(profile) = spot.object(&LAYER, problems) {
            found.insert(name.to_owned(), layer(&profile, problems));
        }
    }
    Some(found)
}

/// What nodes choose a profile by is a label (`IsValidLabelValue` in `k8s.io/apimachinery`); an
/// empty one chooses none.
fn is_label_value(text: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= LONGEST_LABEL
        && is_end(text.chars().next())
        && is_end(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn layer(object: &Object<'_>, problems: &mut Problems) -> NodeLayer {
    let mut layer = NodeLayer::default();
    let publish = object
        .field("publish")
        .and_then(|spot| spot.object(&["filter", "include", "exclude"], problems));
    if let Some(publish) = publish {
        layer.filter = publish.field("filter").and_then(|spot| filter(&spot, problems));
        layer.include = publish.field("include").and_then(|spot| patterns(&spot, problems));
        layer.exclude = publish.field("exclude").and_then(|spot| patterns(&spot, problems));
    }
    layer.sriov = object.field("sriov").and_then(|spot| sriov(&spot, problems));
    layer.providers = object.field("providers").and_then(|spot| providers(&spot, problems));
    layer
}

fn filter(spot: &Spot<'_>, problems: &mut Problems) -> Option<String> {
    let text = spot.text(problems)?;
    if text.trim().is_empty() {
        return spot.refuse("is empty", problems);
    }
    if text.len() > LONGEST_FILTER {
        let bytes = text.len();
        return spot.refuse(format_args!("{bytes} bytes are more than {LONGEST_FILTER}"), problems);
    }
    Some(text.to_owned())
}

fn patterns(spot: &Spot<'_>, problems: &mut Problems) -> Option<Vec<NamePattern>> {
    let items = spot.list_up_to(MOST_PATTERNS, "patterns", problems)?;
    Some(items.iter().filter_map(|item| item.parsed(problems)).collect())
}

fn sriov(spot: &Spot<'_>, problems: &mut Problems) -> Option<Vec<SriovRule>> {
    let items = spot.list_up_to(MOST_SRIOV_RULES, "rules", problems)?;
    let mut rules: Vec<SriovRule> = Vec::new();
    for item in items {
        let Some(fields) = item.object(&["pf", "numVfs"], problems) else { continue };
        let pf_spot = fields.required("pf", problems);
        let pf = pf_spot.as_ref().and_then(|spot| physical_function(spot, problems));
        let num_vfs =
            fields.required("numVfs", problems).and_then(|spot| spot.integer(VFS, problems));
        let (Some(spot), Some(pf), Some(num_vfs)) = (pf_spot, pf, num_vfs) else { continue };
        if rules.iter().any(|rule| rule.pf == pf) {
            spot.refuse::<()>("is said in an earlier rule, too", problems);
            continue;
        }
        rules.push(SriovRule { pf, num_vfs });
    }
    Some(rules)
}

fn physical_function(spot: &Spot<'_>, problems: &mut Problems) -> Option<PfSelector> {
    let fields = spot.object(&["interface", "pciAddress", "vendor", "device"], problems)?;
    let (interface, address) = (fields.field("interface"), fields.field("pciAddress"));
    let (vendor, device) = (fields.field("vendor"), fields.field("device"));
    match (interface, address, vendor) {
        (Some(name), None, None) => {
            refuse_device(device, problems)?;
            Some(PfSelector::Interface(name.parsed(problems)?))
        }
        (None, Some(address), None) => {
            refuse_device(device, problems)?;
            Some(PfSelector::PciAddress(address.parsed(problems)?))
        }
        (None, None, Some(vendor)) => {
            let vendor = pci_id(&vendor, problems);
            let device = device.map(|device| pci_id(&device, problems));
            // A device that is wrong must not become any device.
            let device = device.map_or(Some(None), |device| device.map(Some));
            Some(PfSelector::Id { vendor: vendor?, device: device? })
        }
        _ => spot.refuse("takes one of interface, pciAddress and vendor", problems),
    }
}

fn refuse_device(device: Option<Spot<'_>>, problems: &mut Problems) -> Option<()> {
    match device {
        Some(device) => device.refuse("goes with vendor only", problems),
        None => Some(()),
    }
}

fn pci_id(spot: &Spot<'_>, problems: &mut Problems) -> Option<String> {
    let text = spot.text(problems)?;
    let is_id = text.len() == 4 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_id {
        return spot.refuse("is not four hexadecimal digits, in quotation marks", problems);
    }
    Some(text.to_ascii_lowercase())
}

fn providers(spot: &Spot<'_>, problems: &mut Problems) -> Option<Vec<ProviderRule>> {
    let items = spot.list_up_to(MOST_PROVIDERS, "providers", problems)?;
    let mut rules: Vec<ProviderRule> = Vec::new();
    for item in items {
        let Some(rule) = provider(&item, problems) else { continue };
        if rules.iter().any(|earlier| earlier.name == rule.name) {
            item.refuse::<()>(format_args!("another one is named {:?}, too", rule.name), problems);
            continue;
        }
        rules.push(rule);
    }
    Some(rules)
}

fn provider(spot: &Spot<'_>, problems: &mut Problems) -> Option<ProviderRule> {
    let known = ["name", "file", "url", "caFile", "refreshSeconds", "timeoutSeconds"];
    let fields = spot.object(&known, problems)?;
    let name =
        fields.required("name", problems).and_then(|spot| spot.parsed::<DeviceName>(problems));
    let place = match (fields.field("file"), fields.field("url")) {
        (Some(file), None) => {
            for field in ["caFile", "timeoutSeconds"] {
                if let Some(spot) = fields.field(field) {
                    spot.refuse::<()>("goes with url only", problems);
                }
            }
            absolute(&file, problems).map(ProviderPlace::File)
        }
        (None, Some(url)) => url_of(&url, fields.field("caFile"), problems),
        _ => spot.refuse("takes one of file and url", problems),
    };
    let mut seconds = |field, range, default| match fields.field(field) {
        Some(spot) => spot.integer(range, problems).map(Duration::from_secs),
        None => Some(Duration::from_secs(default)),
    };
    let refresh = seconds("refreshSeconds", REFRESH_SECONDS, DEFAULT_REFRESH);
    let timeout = seconds("timeoutSeconds", TIMEOUT_SECONDS, DEFAULT_TIMEOUT);
    Some(ProviderRule {
        name: name?.to_string(),
        place: place?,
        refresh: refresh?,
        timeout: timeout?,
    })
}

fn absolute(spot: &Spot<'_>, problems: &mut Problems) -> Option<PathBuf> {
    let text = spot.text(problems)?;
    if !text.starts_with('/') {
        return spot.refuse("is not an absolute path", problems);
    }
    Some(PathBuf::from(text))
}

fn url_of(spot: &Spot<'_>, ca: Option<Spot<'_>>, problems: &mut Problems) -> Option<ProviderPlace> {
    let text = spot.text(problems)?;
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    if scheme != "https"
        && let Some(ca) = &ca
    {
        ca.refuse::<()>("goes with https only", problems);
    }
    match scheme {
        "unix" if rest.starts_with('/') => Some(ProviderPlace::Socket(PathBuf::from(rest))),
        "unix" => spot.refuse("is not unix:// and an absolute path", problems),
        "http" | "https" if is_authority(rest) => {
            let ca = match ca {
                Some(ca) => Some(absolute(&ca, problems)?),
                None => None,
            };
            Some(ProviderPlace::Url { url: text.trim_end_matches('/').to_owned(), ca })
        }
        _ => spot.refuse("is no URL with http, https or unix", problems),
    }
}

/// A host, perhaps a port and a path, and nothing that would mean more.
fn is_authority(rest: &str) -> bool {
    let host = rest.split('/').next().unwrap_or_default();
    !host.is_empty()
        && !host.starts_with(':')
        && !host.contains('@')
        && rest.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'"' | b'\\'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(fields: &Value) -> Result<NodeConfig, String> {
        let mut document = json!({ "apiVersion": "weir.dev/v1alpha1", "kind": "NodeConfig" });
        let (Value::Object(all), Value::Object(more)) = (&mut document, fields) else { panic!() };
        all.extend(more.clone());
        parse_node_config(&document).map_err(|problems| problems.to_string())
    }

    #[test]
    fn every_field_is_read() {
        let config = parse(&json!({
            "publish": { "filter": "true", "include": ["br-lan"], "exclude": ["enp1*"] },
            "sriov": [
                { "pf": { "interface": "ens1f0" }, "numVfs": 8 },
                { "pf": { "pciAddress": "0000:3b:00.0" }, "numVfs": 4 },
                { "pf": { "vendor": "15B3", "device": "101d" }, "numVfs": 2 },
            ],
            "providers": [
                { "name": "facts", "file": "/etc/weir/facts.yaml", "refreshSeconds": 5 },
                { "name": "ipam", "url": "unix:///run/ipam.sock", "timeoutSeconds": 2 },
                { "name": "cloud", "url": "https://cloud.example.com:8443/weir/", "caFile": "/ca.pem" },
            ],
            "profiles": { "gpu": { "publish": { "filter": "false" } } },
        }));
        let config = config.unwrap();
        assert_eq!(
            filters(&config),
            [
                ("publish.filter".to_owned(), "true"),
                ("profiles.gpu.publish.filter".to_owned(), "false"),
            ]
        );
        let rules = config.layer.settled();
        assert!(rules.publish.include[0].matches("br-lan"));
        assert!(rules.publish.exclude[0].matches("enp1s0"));
        let id = PfSelector::Id { vendor: "15b3".to_owned(), device: Some("101d".to_owned()) };
        assert_eq!(rules.sriov[2], SriovRule { pf: id, num_vfs: 2 });
        let [facts, ipam, cloud] = &rules.providers[..] else { panic!() };
        assert_eq!((facts.refresh.as_secs(), facts.timeout.as_secs()), (5, 5));
        assert_eq!(ipam.place, ProviderPlace::Socket("/run/ipam.sock".into()));
        assert_eq!(ipam.timeout.as_secs(), 2);
        let url = "https://cloud.example.com:8443/weir".to_owned();
        assert_eq!(cloud.place, ProviderPlace::Url { url, ca: Some("/ca.pem".into()) });
    }

    #[test]
    fn an_empty_document_changes_nothing() {
        assert_eq!(parse(&json!({})), Ok(NodeConfig::default()));
    }

    #[test]
    fn what_goes_with_something_else_is_refused_without_it() {
        let said = parse(&json!({
            "sriov": [
                { "pf": { "interface": "a", "vendor": "15b3" }, "numVfs": 1 },
                { "pf": { "interface": "a", "device": "101d" }, "numVfs": 0 },
                { "pf": { "interface": "b" }, "numVfs": 1 },
                { "pf": { "interface": "b" }, "numVfs": 2 },
            ],
            "providers": [
                { "name": "a", "file": "/a", "url": "http://a" },
                { "name": "b", "file": "/b", "timeoutSeconds": 3 },
                { "name": "c", "url": "http://c", "caFile": "/ca" },
                { "name": "c", "url": "ftp://c" },
                { "name": "c", "url": "http://c" },
                { "name": "d", "url": "http://user@d" },
            ],
        }));
        assert_eq!(
            said.unwrap_err(),
            "sriov[0].pf: takes one of interface, pciAddress and vendor; \
             sriov[1].pf.device: goes with vendor only; sriov[1].numVfs: 0 is below 1; \
             sriov[3].pf: is said in an earlier rule, too; \
             providers[0]: takes one of file and url; \
             providers[1].timeoutSeconds: goes with url only; \
             providers[2].caFile: goes with https only; \
             providers[3].url: is no URL with http, https or unix; \
             providers[4]: another one is named \"c\", too; \
             providers[5].url: is no URL with http, https or unix"
        );
    }

    #[test]
    fn a_profile_has_no_profiles_and_a_name_that_a_label_can_have() {
        let said = parse(&json!({ "profiles": { "a": { "profiles": {} }, "-b": {} } }));
        assert_eq!(
            said.unwrap_err(),
            "profiles.-b: is not named as the value of a label can be; \
             profiles.a.profiles: unknown field, known are publish, sriov, providers"
        );
    }
}
