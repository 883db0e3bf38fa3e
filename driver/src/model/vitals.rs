//! What can be seen of a prepared device without being told.

/// What a look at one attachment has shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Vitals {
    /// Of its interface in the pod; `None` where it is in none, or nobody could look.
    pub link: Option<LinkSight>,
    /// Whether all of its programs and maps are there and attached; `None` where it has none, or
    /// nobody could tell.
    pub is_whole: Option<bool>,
}

/// The link of an interface, as its pod has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LinkSight {
    Up,
    /// Set down by somebody, so that nobody can tell whether there is a carrier.
    SetDown,
    NoCarrier,
    /// It is not in its pod any more.
    Gone,
}

impl LinkSight {
    /// From the administrative state and the operational one of RFC 2863. `unknown` is what drivers
    /// say that cannot tell, and such an interface is to be used
    /// (`Documentation/networking/operstates.rst`, Linux 6.12).
    pub fn of(is_up: bool, state: &str) -> Self {
        match state {
            _ if !is_up => Self::SetDown,
            "up" | "unknown" => Self::Up,
            _ => Self::NoCarrier,
        }
    }
}
