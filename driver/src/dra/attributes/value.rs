//! Values of attributes, within the API's limits.

use k8s_openapi::api::resource::v1::DeviceAttribute;

use crate::model::ProvidedValue;

/// Longest string or version of an attribute. The API counts characters, which are never more than
/// bytes (`DeviceAttributeMaxValueLength` in `api/resource/v1`, Kubernetes 1.36).
pub(super) const MAX_VALUE_LEN: usize = 64;

/// One of the kinds of values that an attribute can have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    String(String),
    Version(String),
}

impl Value {
    pub(super) fn text(text: &(impl ToString + ?Sized)) -> Self {
        Self::String(text.to_string())
    }

    pub(super) fn int(number: impl Into<i64>) -> Self {
        Self::Int(number.into())
    }

    /// As many whole items as fit, with commas between them; `None` where there are none.
    pub(super) fn list(items: impl IntoIterator<Item = String>) -> Option<Self> {
        let mut list = String::new();
        for item in items {
            let comma = usize::from(!list.is_empty());
            if list.len() + comma + item.len() > MAX_VALUE_LEN {
                break;
            }
            if comma > 0 {
                list.push(',');
            }
            list.push_str(&item);
        }
        (!list.is_empty()).then_some(Self::String(list))
    }

    /// A string that is too long is cut: one of them would have the API refuse the whole slice.
    pub(super) fn attribute(self) -> DeviceAttribute {
        let cut = |text: String| text[..text.floor_char_boundary(MAX_VALUE_LEN)].to_owned();
        match self {
            Self::Bool(flag) => DeviceAttribute { bool: Some(flag), ..EMPTY },
            Self::Int(number) => DeviceAttribute { int: Some(number), ..EMPTY },
            Self::String(text) => DeviceAttribute { string: Some(cut(text)), ..EMPTY },
            Self::Version(text) => DeviceAttribute { version: Some(text), ..EMPTY },
        }
    }
}

impl From<&ProvidedValue> for Value {
    fn from(value: &ProvidedValue) -> Self {
        match value {
            ProvidedValue::Bool(flag) => Self::Bool(*flag),
            ProvidedValue::Int(number) => Self::Int(*number),
            ProvidedValue::String(text) => Self::String(text.clone()),
            ProvidedValue::Version(text) => Self::Version(text.clone()),
        }
    }
}

const EMPTY: DeviceAttribute = DeviceAttribute {
    bool: None,
    bools: None,
    int: None,
    ints: None,
    string: None,
    strings: None,
    version: None,
    versions: None,
};
