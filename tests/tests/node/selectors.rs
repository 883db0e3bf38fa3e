//! Selectors of `deploy/` and of the documents, tried on real machines. One that asks a device for an
//! attribute that it does not have ends the scheduling of its pod, whichever devices there are beside it.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::resource::v1::Device;
use serde_json::Value;
use tests::scheduler::select;

#[test]
fn every_selector_can_be_evaluated_for_every_device() {
    let devices = devices();
    let mut count = 0;
    for (place, expression) in selectors() {
        let fitting = select(&expression, "weir.dev", &devices);
        if let Err(error) = fitting {
            panic!("{}: {expression}\n{error}", place.display());
        }
        count += 1;
    }
    assert!(count >= 15, "only {count} selectors were found");
}

/// Which devices a class takes, by the names of the machines' golden files.
#[test]
fn each_class_takes_one_form() {
    let devices = devices();
    let text = fs::read_to_string(top().join("deploy/deviceclass.yaml")).unwrap();
    let classes = serde_saphyr::from_multiple::<Value>(&text).unwrap();
    let taken: Vec<_> = classes
        .iter()
        .map(|class| {
            let expression = class["spec"]["selectors"][0]["cel"]["expression"].as_str().unwrap();
            let fits = select(expression, "weir.dev", &devices).unwrap();
            let taken = devices.iter().zip(fits).filter(|(_, fits)| *fits);
            let mut forms: Vec<_> = taken.map(|(device, _)| form(device)).collect();
            forms.dedup();
            (class["metadata"]["name"].as_str().unwrap(), forms)
        })
        .collect();
    let expected = [
        ("weir.dev", vec!["interface"]),
        ("rdma.weir.dev", vec!["rdma"]),
        ("vfio.weir.dev", vec!["vfio"]),
    ];
    assert_eq!(taken, expected);
    let vfio = classes[2]["spec"]["selectors"][0]["cel"]["expression"].as_str().unwrap();
    let all = devices.iter().filter(|device| form(device) == "vfio").count();
    let fits = select(vfio, "weir.dev", &devices).unwrap().into_iter().filter(|fits| *fits).count();
    assert_eq!((all, fits), (1, 1), "the other one's group cannot be opened: not published");
}

fn form(device: &Device) -> &str {
    let attributes = device.attributes.as_ref().unwrap();
    attributes["weir.dev/form"].string.as_deref().unwrap()
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The devices of all machines as they are published.
fn devices() -> Vec<Device> {
    let mut devices = Vec::new();
    for entry in fs::read_dir(top().join("driver/src/dra/testdata/machines")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let golden: Value = serde_json::from_str(&text).unwrap();
        devices.extend(serde_json::from_value::<Vec<Device>>(golden["devices"].clone()).unwrap());
    }
    assert!(devices.len() >= 20, "only {} devices were found", devices.len());
    devices
}

/// All expressions that select devices, and where they are.
fn selectors() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut pending = vec![top().join("deploy"), top().join("docs"), top().join("README.md")];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let blocks = match path.extension().and_then(|it| it.to_str()) {
            Some("yaml") => vec![fs::read_to_string(&path).unwrap()],
            Some("md") => blocks(&fs::read_to_string(&path).unwrap()),
            _ => Vec::new(),
        };
        for block in blocks {
            let mut here = Vec::new();
            for document in serde_saphyr::from_multiple::<Value>(&block).unwrap() {
                collect(&document, &mut here);
            }
            found.extend(here.into_iter().map(|expression| (path.clone(), expression)));
        }
    }
    found
}

fn blocks(page: &str) -> Vec<String> {
    let blocks = page.split("```yaml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// `cel.expression` of claims and classes and `publish.filter` of the node's configuration, also within
/// a `ConfigMap`. Filters of packets are no texts, and admission policies have no `cel`.
fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("cel", Value::Object(cel)) => {
                        found.extend(cel["expression"].as_str().map(str::to_owned));
                    }
                    ("filter", Value::String(filter)) => found.push(filter.clone()),
                    ("data", Value::Object(files)) => {
                        for file in files.values().filter_map(Value::as_str) {
                            collect(&serde_saphyr::from_str(file).unwrap(), found);
                        }
                    }
                    _ => collect(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}
