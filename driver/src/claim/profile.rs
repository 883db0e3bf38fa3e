//! The name of what a provider makes up for the claim.

use super::reader::Spot;
use crate::model::Problems;

/// Longest name, in bytes: what it means is for the provider, how long it is, for whoever reads logs.
pub(super) const LONGEST: usize = 253;

pub(super) fn read(spot: &Spot<'_>, problems: &mut Problems) -> Option<String> {
    let text = spot.text(problems)?;
    if text.is_empty() {
        return spot.refuse("is empty", problems);
    }
    if text.len() > LONGEST || text.chars().any(char::is_control) {
        return spot.refuse(
            format_args!("is no name of at most {LONGEST} bytes, without control characters"),
            problems,
        );
    }
    Some(text.to_owned())
}
