//! Filter rules to the compiled form that the programs read.
//!
//! A rule of the API names several networks and port ranges; a compiled entry has one of each. So a
//! rule becomes `cidrs` × `ports` entries, next to each other and in the order of the rules, and the
//! first that matches still decides. This room is pure: it knows `model` and `common` only.

mod compile;
mod overlay;

use common::{Limit, Page, Row, Ruleset, Used};

pub use self::compile::compile;
pub use self::overlay::overlay;
use crate::model::Origin;

/// A filter as the programs read it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Compiled {
    pub ingress: CompiledDirection,
    pub egress: CompiledDirection,
    /// Pages and rows of both directions, where one of them is wide; otherwise empty.
    pub pages: Vec<Page>,
    pub rows: Vec<Row>,
}

/// One direction.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CompiledDirection {
    /// [`Used::NONE`] where there is no filter.
    pub used: Used,
    /// Where the filter is narrow.
    pub ruleset: Option<Box<Ruleset>>,
    /// In the order of their counts and limits.
    pub rules: Vec<CompiledRule>,
    /// How many entries the rules became.
    pub entries: usize,
}

/// What is known of one rule beside its entries.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledRule {
    pub origin: Origin,
    pub name: String,
    /// All zero where it has none. In units of [`common::JIFFY`], so made for one `hz`.
    pub limit: Limit,
}
