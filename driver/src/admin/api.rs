//! What goes through the door.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{
    ClaimRef, DeviceName, DirectionFilter, Filter, Origin, PodRef, Problems, Record, Selection,
};
use crate::policy;

/// What is asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRequest {
    pub selection: Selection,
    /// A document of kind `NodePolicy`, where one is to be applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Value>,
}

/// What became of a request.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAnswer {
    pub applied: Vec<Applied>,
    /// Why devices are as they were, each named.
    #[serde(default)]
    pub refused: Vec<String>,
}

/// What is in force on one attachment.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    pub device: DeviceName,
    pub pod: PodRef,
    pub claim: ClaimRef,
    pub generation: u32,
    pub claim_rules: usize,
    pub operator_rules: usize,
    pub form: Form,
    /// How long replacing its programs took.
    #[serde(default)]
    pub took_microseconds: u64,
}

/// How the programs find the rule for a packet.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// There is no filter.
    None,
    /// Up to 64 entries in each direction.
    Narrow,
    /// Up to 4096.
    Wide,
}

impl Form {
    pub fn of(filter: Option<&Filter>) -> Self {
        // Which form it is does not depend on the clock that limits are made for.
        let Some(Ok(compiled)) = filter.map(|filter| policy::compile(filter, 1)) else {
            return Self::None;
        };
        let is_wide = [&compiled.ingress, &compiled.egress]
            .iter()
            .any(|direction| direction.ruleset.is_none() && direction.entries > 0);
        if is_wide { Self::Wide } else { Self::Narrow }
    }

    /// One word of a closed set.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Narrow => "narrow",
            Self::Wide => "wide",
        }
    }
}

impl Applied {
    /// `None` where there are no programs.
    pub fn of(record: &Record, took: Duration) -> Option<Self> {
        let spec = record.datapath.as_ref()?;
        let filter = spec.filter.as_ref();
        let directions = filter.into_iter().flat_map(directions);
        let rules: Vec<_> = directions.flat_map(|direction| &direction.rules).collect();
        let operator_rules = rules.iter().filter(|rule| rule.origin == Origin::Operator).count();
        Some(Self {
            device: record.device.name.clone(),
            pod: record.pod.clone(),
            claim: record.claim.clone(),
            generation: spec.generation,
            claim_rules: rules.len() - operator_rules,
            operator_rules,
            form: Form::of(filter),
            took_microseconds: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        })
    }
}

fn directions(filter: &Filter) -> impl Iterator<Item = &DirectionFilter> {
    [&filter.ingress, &filter.egress].into_iter().flatten()
}

/// Why nothing was changed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The whole chain of causes.
    pub error: String,
    /// What is wrong with the policy, and where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ProblemText>,
}

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProblemText {
    pub path: String,
    pub message: String,
}

impl From<&Problems> for Refusal {
    fn from(problems: &Problems) -> Self {
        let texts = problems.iter().map(|problem| ProblemText {
            path: problem.path.clone(),
            message: problem.message.clone(),
        });
        Self { error: "the policy is not valid".to_owned(), problems: texts.collect() }
    }
}
