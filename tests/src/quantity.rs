//! Kubernetes' quantities, as far as capacities need them.

/// The suffixes and what they multiply by, in thousandths.
const SUFFIXES: [(&str, i128); 12] = [
    ("Ki", 1000 << 10),
    ("Mi", 1000 << 20),
    ("Gi", 1000 << 30),
    ("Ti", 1000 << 40),
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000),
    ("", 1000),
];

/// The quantity in thousandths; `None` where `text` is none, is negative or has an exponent.
pub(crate) fn thousandths(text: &str) -> Option<i128> {
    let (suffix, factor) = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix))?;
    let number = text.strip_suffix(suffix)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(part) || part.len() > 9 {
        return None;
    }
    let digits: i128 = format!("{whole}{part}").parse().ok()?;
    digits.checked_mul(*factor)?.checked_div(10_i128.checked_pow(u32::try_from(part.len()).ok()?)?)
}

/// Thousandths as a quantity, in its canonical form with decimal suffixes.
pub(crate) fn text(thousandths: i128) -> String {
    let fits = SUFFIXES.iter().filter(|(suffix, factor)| {
        !suffix.ends_with('i') && *factor <= thousandths.max(1) && thousandths % factor == 0
    });
    let (suffix, factor) = fits.max_by_key(|(_, factor)| *factor).unwrap_or(&("m", 1));
    match thousandths {
        0 => "0".to_owned(),
        _ => format!("{}{suffix}", thousandths / factor),
    }
}

/// A quantity as the API server writes it (`CanonicalizeBytes` in `k8s.io/apimachinery/pkg/api/resource`,
/// Kubernetes 1.36): with the largest suffix of its kind that leaves a whole number, and from 1024 on
/// with binary suffixes if it came with one. `None` where [`thousandths`] cannot read it.
pub(crate) fn canonical(quantity: &str) -> Option<String> {
    let amount = thousandths(quantity)?;
    if !quantity.ends_with('i') || amount < 1024 * 1000 {
        return Some(text(amount));
    }
    let mut number = (amount + 999) / 1000;
    let mut suffix = "";
    for larger in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
        if number % 1024 != 0 {
            break;
        }
        (number, suffix) = (number / 1024, larger);
    }
    Some(format!("{number}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_and_written() {
        for (quantity, value) in [
            ("1", 1000),
            ("100m", 100),
            ("2500M", 2_500_000_000_000),
            ("2.5G", 2_500_000_000_000),
            ("1Ki", 1_024_000),
            ("0", 0),
        ] {
            assert_eq!(thousandths(quantity), Some(value), "{quantity}");
        }
        for wrong in ["", "G", "-1", "1e3", "1 G", "1.2.3"] {
            assert_eq!(thousandths(wrong), None, "{wrong}");
        }
        for (quantity, written) in [
            ("1000", "1k"),
            ("1024", "1024"),
            ("1000M", "1G"),
            ("2.5G", "2500M"),
            ("0.5", "500m"),
            ("0G", "0"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
        ] {
            assert_eq!(canonical(quantity).as_deref(), Some(written), "{quantity}");
        }
        let written = ["1", "2500M", "1G", "100m", "0"];
        assert_eq!(written.map(|quantity| text(thousandths(quantity).unwrap())), written);
    }
}
