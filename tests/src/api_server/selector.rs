//! Field and label selectors: which objects a list, a watch or a collection delete is about.

use serde_json::Value;

use super::refusal::Refusal;

/// The fields that can be selected by; the real server has a list for each kind, and these are the
/// ones that drivers use.
const FIELDS: [&str; 6] = [
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.driver",
    "spec.pool.name",
    "involvedObject.uid",
];

/// What both selectors of a request ask for, all of which must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector(Vec<Term>);

#[derive(Clone, Debug)]
struct Term {
    pointer: Pointer,
    test: Test,
}

#[derive(Clone, Debug)]
enum Pointer {
    Field(String),
    Label(String),
}

#[derive(Clone, Debug)]
enum Test {
    Is(String),
    IsNot(String),
    Exists,
}

impl Selector {
    pub(super) fn parse(fields: Option<&str>, labels: Option<&str>) -> Result<Self, Refusal> {
        let mut terms = Vec::new();
        for text in split(fields) {
            let (name, test) = comparison(text);
            if !FIELDS.contains(&name) || matches!(test, Test::Exists) {
                return Err(Refusal::bad_request(format!("field label not supported: {text}")));
            }
            let pointer = Pointer::Field(format!("/{}", name.replace('.', "/")));
            terms.push(Term { pointer, test });
        }
        for text in split(labels) {
            if text.contains('(') {
                return Err(Refusal::bad_request(format!("set selectors are not served: {text}")));
            }
            let (name, test) = comparison(text);
            terms.push(Term { pointer: Pointer::Label(name.to_owned()), test });
        }
        Ok(Self(terms))
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|Term { pointer, test }| {
            let found = match pointer {
                Pointer::Field(pointer) => object.pointer(pointer),
                Pointer::Label(label) => {
                    object.pointer("/metadata/labels").and_then(|l| l.get(label))
                }
            };
            let found = found.and_then(Value::as_str);
            match (test, pointer) {
                (Test::Exists, _) => found.is_some(),
                (Test::IsNot(value), _) => found != Some(value),
                // A field that is not there counts as empty, a label does not.
                (Test::Is(value), Pointer::Field(_)) => found.unwrap_or_default() == value,
                (Test::Is(value), Pointer::Label(_)) => found == Some(value),
            }
        })
    }
}

fn split(selector: Option<&str>) -> impl Iterator<Item = &str> {
    selector.unwrap_or_default().split(',').map(str::trim).filter(|term| !term.is_empty())
}

fn comparison(term: &str) -> (&str, Test) {
    for (operator, test) in
        [("!=", Test::IsNot as fn(String) -> Test), ("==", Test::Is), ("=", Test::Is)]
    {
        if let Some((name, value)) = term.split_once(operator) {
            return (name.trim(), test(value.trim().to_owned()));
        }
    }
    (term, Test::Exists)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_term_must_hold() {
        let object = json!({
            "metadata": { "name": "a", "labels": { "app": "demo" } },
            "spec": { "driver": "weir.dev", "pool": { "name": "node-a" } },
        });
        let matches =
            |fields, labels| Selector::parse(Some(fields), Some(labels)).unwrap().matches(&object);
        assert!(matches("spec.driver=weir.dev,spec.pool.name==node-a", "app=demo"));
        assert!(matches("metadata.name!=b", "app"));
        assert!(matches("spec.nodeName=", "other!=x"));
        assert!(!matches("spec.driver=other", ""));
        assert!(!matches("", "app=other"));
    }

    #[test]
    fn a_field_that_no_kind_offers_is_refused() {
        assert_eq!(Selector::parse(Some("spec.secret=1"), None).unwrap_err().code, 400);
    }
}
