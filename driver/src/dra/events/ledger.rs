//! What was told already, so that what happens again and again is told as one thing, and not often.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::attach::NoticeKind;

/// Writes about one object for one reason in a row.
const BURST: u32 = 5;

/// The time after which there may be one more.
const REFILL: Duration = Duration::from_secs(30);

/// A later repetition is a new event. API servers forget events after an hour (`--event-ttl`).
const SERIES: Duration = Duration::from_mins(30);

/// Objects and reasons that are remembered. A node has fewer devices than that.
const MOST: usize = 1024;

/// Which object, by its UID, and why.
pub(super) type Subject = (String, NoticeKind);

/// What is to be written of a notice.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Telling {
    New,
    /// The event of this name happened so often by now.
    Again {
        name: String,
        count: i32,
    },
    /// Too much was written of late. The next event of the same text counts it.
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Ledger(HashMap<Subject, Told>);

#[derive(Debug)]
struct Told {
    note: String,
    /// What the API server called the event; `None` until it was written.
    event: Option<String>,
    count: i32,
    first: Instant,
    last: Instant,
    left: u32,
    refilled: Instant,
}

impl Ledger {
    /// Takes a notice in and answers what to write of it.
    pub(super) fn hear(&mut self, subject: &Subject, note: &str, now: Instant) -> Telling {
        let Some(told) = self.0.get_mut(subject) else {
            self.make_room();
            self.0.insert(subject.clone(), Told::new(note, now));
            return Telling::New;
        };
        told.refill(now);
        let is_same = told.note == note && now - told.first < SERIES;
        if is_same {
            told.count = told.count.saturating_add(1);
        }
        told.last = now;
        if told.left == 0 {
            return Telling::Nothing;
        }
        told.left -= 1;
        match &told.event {
            Some(name) if is_same => Telling::Again { name: name.clone(), count: told.count },
            _ => {
                let (left, refilled) = (told.left, told.refilled);
                *told = Told { left, refilled, ..Told::new(note, now) };
                Telling::New
            }
        }
    }

    /// The API server has the event that was new, under this name.
    pub(super) fn wrote(&mut self, subject: &Subject, name: String) {
        if let Some(told) = self.0.get_mut(subject) {
            told.event = Some(name);
        }
    }

    /// The API server has it no longer: the same is to be told as if for the first time.
    pub(super) fn lost(&mut self, subject: &Subject) {
        if let Some(told) = self.0.get_mut(subject) {
            told.event = None;
        }
    }

    /// Forgets what nobody has spoken of for longest, where there is too much.
    fn make_room(&mut self) {
        if self.0.len() < MOST {
            return;
        }
        let oldest = self.0.iter().min_by_key(|(_, told)| told.last);
        if let Some(subject) = oldest.map(|(subject, _)| subject.clone()) {
            self.0.remove(&subject);
        }
    }
}

impl Told {
    fn new(note: &str, now: Instant) -> Self {
        Self {
            note: note.to_owned(),
            event: None,
            count: 1,
            first: now,
            last: now,
            left: BURST - 1,
            refilled: now,
        }
    }

    fn refill(&mut self, now: Instant) {
        while self.left < BURST && now - self.refilled >= REFILL {
            self.left += 1;
            self.refilled += REFILL;
        }
        if self.left == BURST {
            self.refilled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        ("uid".to_owned(), NoticeKind::AttachFailed)
    }

    #[test]
    fn what_happens_again_is_the_same_event() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        assert_eq!(ledger.hear(&subject(), "no carrier", now), Telling::New);
        ledger.wrote(&subject(), "nics.1".to_owned());
        let again = Telling::Again { name: "nics.1".to_owned(), count: 2 };
        assert_eq!(ledger.hear(&subject(), "no carrier", now), again);
        assert_eq!(ledger.hear(&subject(), "out of time", now), Telling::New, "another text");
        let other = ("uid".to_owned(), NoticeKind::Lost);
        assert_eq!(ledger.hear(&other, "out of time", now), Telling::New, "another reason");
    }

    #[test]
    fn what_could_not_be_written_is_still_new() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.hear(&subject(), "a", now);
        assert_eq!(ledger.hear(&subject(), "a", now), Telling::New);
        ledger.wrote(&subject(), "nics.1".to_owned());
        ledger.lost(&subject());
        assert_eq!(ledger.hear(&subject(), "a", now), Telling::New);
    }

    #[test]
    fn a_storm_is_told_now_and_then_with_its_whole_count() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.hear(&subject(), "a", now);
        ledger.wrote(&subject(), "nics.1".to_owned());
        let written =
            (0..100).filter(|_| ledger.hear(&subject(), "a", now) != Telling::Nothing).count();
        assert_eq!(written, 4, "the first was the fifth");

        let later = ledger.hear(&subject(), "a", now + REFILL);

        assert_eq!(later, Telling::Again { name: "nics.1".to_owned(), count: 102 });
        assert_eq!(ledger.hear(&subject(), "a", now + REFILL), Telling::Nothing);
    }

    #[test]
    fn a_series_ends_before_the_api_server_forgets_it() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.hear(&subject(), "a", now);
        ledger.wrote(&subject(), "nics.1".to_owned());
        assert_eq!(ledger.hear(&subject(), "a", now + SERIES), Telling::New);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        for n in 0..=MOST {
            let now = now + Duration::from_secs(n.try_into().unwrap());
            ledger.hear(&(n.to_string(), NoticeKind::Lost), "a", now);
        }
        assert_eq!(ledger.0.len(), MOST);
        assert!(!ledger.0.contains_key(&("0".to_owned(), NoticeKind::Lost)), "the oldest went");
    }
}
