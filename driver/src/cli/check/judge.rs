//! What is wrong with documents, as prepare and the driver would tell.

use serde_json::Value;

use super::document::Document;
use crate::claim::{self, Known, Located, Origin, Source};
use crate::config;
use crate::dra::is_meant;
use crate::model::{Problem, Problems};

/// Most bytes of one configuration, as the API server takes it (`OpaqueParametersMaxLength` in
/// `pkg/apis/resource/types.go`, Kubernetes 1.34).
const LONGEST: usize = 10 * 1024;

/// What became of a document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Judged {
    /// Nothing in it is for this driver.
    Skipped,
    /// Each problem with its path from the document's root. Where there is none, it is valid.
    Examined(Vec<Problem>),
}

/// What a document is to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Config,
    Policy,
    Node,
    Class,
    /// A claim, or a template of one, with the place of its devices.
    Claim(&'static str),
    /// Of our group, but of no kind that there is; or of none at all.
    Unknown,
    Foreign,
}

/// Judges all documents, in their order. Classes and claims that use them may be in any.
pub(super) fn judge(documents: &[Document], driver: &str) -> Vec<Judged> {
    let bench = Bench { documents, driver };
    let mut all: Vec<_> = documents.iter().map(|document| bench.alone(document)).collect();
    for (nth, document) in documents.iter().enumerate() {
        if let Kind::Claim(devices) = kind(document) {
            bench.claim(nth, devices, &mut all);
        }
    }
    all
}

struct Bench<'a> {
    documents: &'a [Document],
    driver: &'a str,
}

/// A configuration for our driver, with its place and what it is meant for.
struct Config<'a> {
    index: usize,
    parameters: &'a Value,
    requests: Vec<String>,
}

/// A request, or one of its alternatives, by its full name.
struct Request<'a> {
    name: String,
    class: Option<&'a str>,
}

impl Bench<'_> {
    /// Judges a document by itself; a claim only as far as it does not take its requests.
    fn alone(&self, document: &Document) -> Judged {
        let value = &document.value;
        let found = match kind(document) {
            Kind::Foreign => return Judged::Skipped,
            Kind::Unknown => return Judged::Examined(vec![unknown(document)]),
            Kind::Config => {
                claim::parse(&[Source { origin: Origin::Claim, index: 0, parameters: value }]).err()
            }
            Kind::Policy => claim::parse_policy(value).err(),
            Kind::Node => config::node_config(value).err(),
            Kind::Class => return self.configured(document, "spec"),
            Kind::Claim(devices) => return self.configured(document, devices),
        };
        Judged::Examined(
            found.map(|problems| problems.iter().cloned().collect()).unwrap_or_default(),
        )
    }

    /// Judges what holds for the configurations at `place` whoever asks for devices; and of a class,
    /// what is wrong for a claim that says nothing itself.
    fn configured(&self, document: &Document, place: &str) -> Judged {
        let mut problems = Problems::default();
        let configs = self.configs(document, place, &mut problems);
        if configs.is_empty() && problems.is_empty() {
            return Judged::Skipped;
        }
        for config in &configs {
            let bytes = config.parameters.to_string().len();
            if bytes > LONGEST {
                let message = format!("has {bytes} bytes, the API server takes {LONGEST}");
                problems.add(path_of(place, config.index, ""), message);
            }
        }
        let mut problems: Vec<_> = problems.iter().cloned().collect();
        if kind(document) == Kind::Class {
            let sources: Vec<_> = configs.iter().map(|it| it.source(Origin::Class)).collect();
            let found = claim::parse_located(&sources, Known::All).err().unwrap_or_default();
            problems.extend(found.into_iter().map(|it| placed(place, it)));
        }
        Judged::Examined(problems)
    }

    /// Judges what each request of a claim would get, with the configurations of its class where
    /// that is among the documents, and adds what is wrong to whichever of them it is in.
    fn claim(&self, nth: usize, devices: &str, all: &mut [Judged]) {
        let document = &self.documents[nth];
        // What is wrong with the list itself has been told.
        let configs = self.configs(document, devices, &mut Problems::default());
        let requests = requests(document, devices);
        for request in &requests {
            let own = configs.iter().filter(|it| is_meant(&it.requests, &request.name));
            let mut sources: Vec<_> = own.map(|it| it.source(Origin::Claim)).collect();
            let class = request.class.and_then(|name| self.class(name));
            let of_class = class.map(|class| {
                self.configs(&self.documents[class], "spec", &mut Problems::default())
            });
            let of_class = of_class.unwrap_or_default();
            sources.extend(of_class.iter().map(|it| it.source(Origin::Class)));
            // A class that is not among the documents may say what is missing here.
            let known = if request.class.is_some() && class.is_none() {
                Known::AllButClass
            } else {
                Known::All
            };
            for located in claim::parse_located(&sources, known).err().into_iter().flatten() {
                match (located.origin, class) {
                    (Origin::Class, Some(class)) => {
                        add_to_class(&mut all[class], placed("spec", located), document);
                    }
                    _ => add(&mut all[nth], placed(devices, located)),
                }
            }
        }
        for config in &configs {
            if requests.iter().any(|request| is_meant(&config.requests, &request.name)) {
                continue;
            }
            let alone = claim::parse_located(&[config.source(Origin::Claim)], Known::AllButClass);
            for located in alone.err().into_iter().flatten() {
                add(&mut all[nth], placed(devices, located));
            }
            let path = format!("{devices}.config[{}].requests", config.index);
            add(
                &mut all[nth],
                Problem { path, message: "name no request of this claim".to_owned() },
            );
        }
    }

    /// The configurations at `place` that are for our driver.
    fn configs<'d>(
        &self,
        document: &'d Document,
        place: &str,
        problems: &mut Problems,
    ) -> Vec<Config<'d>> {
        let list = format!("{place}.config");
        let found = match at(&document.value, &list) {
            Value::Null => return Vec::new(),
            Value::Array(found) => found,
            _ => {
                problems.add(list, "is not a list");
                return Vec::new();
            }
        };
        let mut ours = Vec::new();
        for (index, config) in found.iter().enumerate() {
            let opaque = &config["opaque"];
            match opaque["driver"].as_str() {
                Some(driver) if driver == self.driver => {}
                Some(_) => continue,
                None => {
                    problems.add(format!("{list}[{index}].opaque.driver"), "is required");
                    continue;
                }
            }
            let names = config["requests"].as_array().into_iter().flatten();
            let requests = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
            ours.push(Config { index, parameters: &opaque["parameters"], requests });
        }
        ours
    }

    /// Which document is the class of that name.
    fn class(&self, name: &str) -> Option<usize> {
        self.documents
            .iter()
            .position(|it| kind(it) == Kind::Class && it.value["metadata"]["name"] == name)
    }
}

impl<'a> Config<'a> {
    fn source(&self, origin: Origin) -> Source<'a> {
        Source { origin, index: self.index, parameters: self.parameters }
    }
}

fn kind(document: &Document) -> Kind {
    let group = document.api_version().map(|version| version.split_once('/').map_or("", |it| it.0));
    let is_of = |ours| group.is_none_or(|group| group == ours);
    match document.kind() {
        Some("NetworkConfig") if is_of("weir.dev") => Kind::Config,
        Some("NodePolicy") if is_of("weir.dev") => Kind::Policy,
        Some("NodeConfig") if is_of("weir.dev") => Kind::Node,
        Some("DeviceClass") if is_of("resource.k8s.io") => Kind::Class,
        Some("ResourceClaim") if is_of("resource.k8s.io") => Kind::Claim("spec.devices"),
        Some("ResourceClaimTemplate") if is_of("resource.k8s.io") => {
            Kind::Claim("spec.spec.devices")
        }
        Some(_) if group != Some("weir.dev") => Kind::Foreign,
        _ => Kind::Unknown,
    }
}

fn unknown(document: &Document) -> Problem {
    let message = match document.kind() {
        Some(kind) => format!("{kind:?} is not NetworkConfig, NodeConfig or NodePolicy"),
        None => "is required".to_owned(),
    };
    Problem { path: "kind".to_owned(), message }
}

fn requests<'d>(document: &'d Document, devices: &str) -> Vec<Request<'d>> {
    let mut found = Vec::new();
    let list = at(&document.value, &format!("{devices}.requests"));
    for request in list.as_array().into_iter().flatten() {
        let name = request["name"].as_str().unwrap_or_default();
        // Before v1beta2 what `exactly` has stood in the request itself.
        let exactly = request.get("exactly").unwrap_or(request);
        match request["firstAvailable"].as_array() {
            None => {
                let class = exactly["deviceClassName"].as_str();
                found.push(Request { name: name.to_owned(), class });
            }
            Some(alternatives) => found.extend(alternatives.iter().map(|it| {
                let sub = it["name"].as_str().unwrap_or_default();
                Request { name: format!("{name}/{sub}"), class: it["deviceClassName"].as_str() }
            })),
        }
    }
    found
}

/// What is at a path of plain names; null where nothing is.
fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(value, |value, name| &value[name])
}

fn path_of(place: &str, index: usize, below: &str) -> String {
    let dot = if below.is_empty() || below.starts_with('[') { "" } else { "." };
    format!("{place}.config[{index}].opaque.parameters{dot}{below}")
}

fn placed(place: &str, located: Located) -> Problem {
    let Problem { path, message } = located.problem;
    Problem { path: path_of(place, located.index, &path), message }
}

/// Several requests may get the same configuration, whose problems are told once.
fn add(judged: &mut Judged, problem: Problem) {
    match judged {
        Judged::Examined(problems) if problems.contains(&problem) => {}
        Judged::Examined(problems) => problems.push(problem),
        Judged::Skipped => *judged = Judged::Examined(vec![problem]),
    }
}

/// What is wrong with a class only together with a claim names that claim.
fn add_to_class(judged: &mut Judged, problem: Problem, claim: &Document) {
    let is_told = matches!(judged, Judged::Examined(problems) if problems.contains(&problem));
    if !is_told {
        let claim = claim.name().unwrap_or_default();
        add(
            judged,
            Problem { message: format!("{} (for claim {claim})", problem.message), ..problem },
        );
    }
}
