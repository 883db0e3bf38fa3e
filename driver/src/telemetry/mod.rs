//! What Weir tells of itself: logs, metrics, and whether it is alive and ready.
//!
//! Others report to [`Metrics`] and [`Readiness`]; this room reads counters when it is scraped and
//! never between. What may change without anybody telling us, [`Watch`] looks for now and then. This
//! room decides nothing and changes nothing on the node.

mod attachments;
mod drops;
mod families;
mod logs;
mod metrics;
mod process;
mod readiness;
#[cfg(test)]
pub(crate) mod samples;
mod server;
mod timings;
mod watch;

use std::error::Error;

pub use self::drops::DropLog;
pub use self::logs::start_logs;
pub use self::metrics::{Metrics, Outcome};
pub use self::readiness::{Condition, Readiness};
pub use self::server::serve;
pub use self::timings::{Part, Timings};
pub use self::watch::{AllVitals, Looked, Shown, Sighting, Sightings, Watch};

/// An error and its causes on one line, `: ` between them. A cause that the text before it ends
/// with already is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Level {
        text: &'static str,
        source: Option<Box<Level>>,
    }

    fn levels(texts: &[&'static str]) -> Option<Box<Level>> {
        let (text, causes) = texts.split_first()?;
        Some(Box::new(Level { text, source: levels(causes) }))
    }

    #[test]
    fn a_chain_tells_every_cause_once() {
        let chain_of = |texts: &[_]| chain(levels(texts).unwrap().as_ref());
        assert_eq!(chain_of(&["a"]), "a");
        assert_eq!(chain_of(&["read x", "open", "no such file"]), "read x: open: no such file");
        assert_eq!(chain_of(&["read x: gone", "gone", "really"]), "read x: gone: really");
    }
}
