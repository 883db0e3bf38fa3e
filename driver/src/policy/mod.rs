//! Filter rules to the compiled form that the programs read.
//!
//! A rule of the API names several networks and port ranges; a compiled entry has one of each. So a
//! rule becomes `cidrs` × `ports` entries, next to each other and in the order of the rules, and the
//! first that matches still decides. This room is pure: it knows `model` and `common` only.

mod compile;

use common::Ruleset;

pub use self::compile::compile;

/// A filter as the programs read it. `None`: nothing is filtered in that direction.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Compiled {
    pub ingress: Option<CompiledRules>,
    pub egress: Option<CompiledRules>,
}

/// The entries of one direction, and which rule each came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledRules {
    pub ruleset: Box<Ruleset>,
    /// For each entry the index of its rule in the filter.
    pub origins: Vec<usize>,
}
