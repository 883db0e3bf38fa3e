//! When something has to be done about a lease, and what. Pure: time is an argument.

use crate::model::Lease;

/// What is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Duty {
    /// There is no lease: ask any server for one.
    Acquire,
    /// Ask the server that gave it for more time.
    Renew,
    /// Ask any server for more time.
    Rebind,
    /// The time is over.
    GiveUp,
}

/// Seconds between two attempts at least (RFC 2131, 4.4.5).
const SHORTEST_WAIT: u64 = 60;

/// What is to be done next, and when; seconds since the node started. `tried`: when it was tried last,
/// or when the lack of a lease was first seen. Never anything for a lease that never ends.
pub(super) fn next(lease: Option<&Lease>, tried: Option<u64>, now: u64) -> Option<(u64, Duty)> {
    let Some(lease) = lease else {
        // Whoever prepares it may be about to get one.
        return Some((tried.unwrap_or(now) + SHORTEST_WAIT, Duty::Acquire));
    };
    let times = lease.times?;
    let (duty, from, until, then) = if now < times.rebind {
        (Duty::Renew, times.renew, times.rebind, Duty::Rebind)
    } else if now < times.end {
        (Duty::Rebind, times.rebind, times.end, Duty::GiveUp)
    } else {
        return Some((times.end, Duty::GiveUp));
    };
    let at = match tried.filter(|tried| *tried >= from) {
        None => from,
        // Half of what is left of the time for it, each time.
        Some(tried) => tried + (until.saturating_sub(tried) / 2).max(SHORTEST_WAIT),
    };
    Some(if at < until { (at, duty) } else { (until, then) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::tests::lease;
    use crate::model::LeaseTimes;

    fn of(times: Option<LeaseTimes>) -> Lease {
        Lease { times, ..lease("192.0.2.9/24") }
    }

    /// Lets time run, while nobody answers.
    fn life(lease: &Lease, mut now: u64) -> Vec<(u64, Duty)> {
        let (mut done, mut tried) = (Vec::new(), None);
        loop {
            let (at, duty) = next(Some(lease), tried, now).unwrap();
            now = at.max(now);
            tried = Some(now);
            done.push((now, duty));
            if duty == Duty::GiveUp {
                return done;
            }
        }
    }

    #[test]
    fn a_lease_that_nobody_prolongs_is_asked_for_ever_more_often_and_then_given_up() {
        let hour = of(Some(LeaseTimes { renew: 1800, rebind: 3150, end: 3600 }));
        let asked = life(&hour, 0);
        let expected = [
            (1800, Duty::Renew),
            (2475, Duty::Renew),
            (2812, Duty::Renew),
            (2981, Duty::Renew),
            (3065, Duty::Renew),
            (3125, Duty::Renew),
            (3150, Duty::Rebind),
            (3375, Duty::Rebind),
            (3487, Duty::Rebind),
            (3547, Duty::Rebind),
            (3600, Duty::GiveUp),
        ];
        assert_eq!(asked, expected);
    }

    #[test]
    fn a_driver_that_comes_back_late_does_what_is_due_by_then() {
        let lease = of(Some(LeaseTimes { renew: 1800, rebind: 3150, end: 3600 }));
        assert_eq!(next(Some(&lease), None, 2000), Some((1800, Duty::Renew)));
        assert_eq!(next(Some(&lease), None, 3200), Some((3150, Duty::Rebind)));
        assert_eq!(next(Some(&lease), Some(3500), 4000), Some((3600, Duty::GiveUp)));
    }

    #[test]
    fn a_short_lease_is_asked_for_once_in_each_half() {
        let short = of(Some(LeaseTimes { renew: 5, rebind: 8, end: 10 }));
        assert_eq!(life(&short, 0), [(5, Duty::Renew), (8, Duty::Rebind), (10, Duty::GiveUp)]);
    }

    #[test]
    fn an_endless_lease_is_left_alone_and_a_missing_one_asked_for_each_minute() {
        assert_eq!(next(Some(&of(None)), None, 1_000_000), None);
        assert_eq!(next(None, Some(100), 110), Some((160, Duty::Acquire)));
    }
}
