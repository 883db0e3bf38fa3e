//! Sets of CPUs, as the kernel writes them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A set of CPUs by their numbers, in the format of the kernel's lists: `0-3,8`
/// (`bitmap_parselist()` in `lib/bitmap-str.c`, Linux 6.12; its strides are not written by anybody).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cpus(BTreeSet<u32>);

/// What is no list of CPUs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no list of CPUs such as 0-3,8")]
pub struct CpusError;

/// More than any kernel is built for (`NR_CPUS` is at most 8192 on x86-64, Linux 6.12).
const MOST: u32 = 65_536;

impl Cpus {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that are in `other` as well.
    #[must_use]
    pub fn within(&self, other: &Self) -> Self {
        Self(&self.0 & &other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(&self.0 - &other.0)
    }

    /// Adds those of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }
}

impl FromStr for Cpus {
    type Err = CpusError;

    fn from_str(text: &str) -> Result<Self, CpusError> {
        let number = |text: &str| match text.parse::<u32>() {
            Ok(number) if number < MOST && text.starts_with(|c: char| c.is_ascii_digit()) => {
                Ok(number)
            }
            _ => Err(CpusError),
        };
        let mut cpus = BTreeSet::new();
        for range in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(CpusError);
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if_eq(&(last + 1)) {
                last = next;
            }
            write!(f, "{comma}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

impl TryFrom<String> for Cpus {
    type Error = CpusError;

    fn try_from(text: String) -> Result<Self, CpusError> {
        text.parse()
    }
}

impl From<Cpus> for String {
    fn from(cpus: Cpus) -> Self {
        cpus.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        for text in ["", "0", "0-3", "0-3,8", "1,3,5-7"] {
            assert_eq!(text.parse::<Cpus>().unwrap().to_string(), text);
        }
        assert_eq!("3,1-2,0,2".parse::<Cpus>().unwrap().to_string(), "0-3");
        for text in [",", "0,", "3-1", "-1", "+1", "a", "0-", "65536", "0-4294967295", "0-3:1/2"] {
            assert_eq!(text.parse::<Cpus>(), Err(CpusError), "{text}");
        }
    }

    #[test]
    fn sets_have_parts() {
        let cpus = |text: &str| text.parse::<Cpus>().unwrap();
        assert_eq!(cpus("0-7").within(&cpus("4-11")), cpus("4-7"));
        assert_eq!(cpus("0-7").without(&cpus("2-3,9")), cpus("0-1,4-7"));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(numbers in prop::collection::btree_set(0_u32..200, 0..40)) {
            let cpus = Cpus(numbers);
            prop_assert_eq!(cpus.to_string().parse::<Cpus>(), Ok(cpus));
        }
    }
}
