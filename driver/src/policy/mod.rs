//! Filter rules to the compiled form that the programs read.
//!
//! A rule of the API names several networks at either end; an *entry* has at most one. Ports, ICMP
//! types and everything else need no such expansion. Each entry is a bit; for each field of a packet
//! there is a table of which entries each of its values leaves, and the programs take what is common
//! to all. Up to 64 entries a table holds words, up to 4096 numbers of rows of words. This room is
//! pure: it knows `model` and `common` only.

mod compile;
mod entries;
#[cfg(feature = "testing")]
mod general;
#[cfg(any(test, feature = "testing"))]
mod ground;
mod narrow;
mod overlay;
mod rows;
mod tables;
#[cfg(test)]
mod tests;

use common::{Limit, Page, Row, Ruleset, Used};

pub use self::compile::compile;
#[cfg(feature = "testing")]
pub use self::compile::compile_to;
#[cfg(feature = "testing")]
pub use self::general::generalise;
#[cfg(feature = "testing")]
pub(crate) use self::general::with_room;
#[cfg(any(test, feature = "testing"))]
pub use self::ground::MemoryGround;
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
