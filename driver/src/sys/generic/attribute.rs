//! Attributes of generic netlink, read and written byte by byte.
//!
//! Reading is total: any bytes are a list of attributes that ends where they make no sense any more.

/// What the upper two bits of an attribute's type say of its value: that it is nested, or in network
/// byte order (`include/uapi/linux/netlink.h`).
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;
/// `struct nlattr`.
const HEADER_LEN: usize = 4;

/// One attribute.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::sys) struct Attribute<'a> {
    pub(in crate::sys) kind: u16,
    pub(in crate::sys) value: &'a [u8],
}

impl<'a> Attribute<'a> {
    pub(in crate::sys) fn u64(self) -> Option<u64> {
        self.value.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
    }

    pub(in crate::sys) fn u32(self) -> Option<u32> {
        self.value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    pub(in crate::sys) fn u16(self) -> Option<u16> {
        self.value.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
    }

    pub(in crate::sys) fn u8(self) -> Option<u8> {
        self.value.first().copied()
    }

    /// A text up to its terminating NUL.
    pub(in crate::sys) fn text(self) -> Option<&'a str> {
        let text = self.value.split(|byte| *byte == 0).next()?;
        std::str::from_utf8(text).ok()
    }

    pub(in crate::sys) fn nested(self) -> impl Iterator<Item = Attribute<'a>> {
        attributes(self.value)
    }
}

/// The attributes in `bytes`, up to the first that does not fit.
pub(in crate::sys) fn attributes(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (header, _) = rest.split_first_chunk::<HEADER_LEN>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = rest.get(HEADER_LEN..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute { kind, value })
    })
}

/// The first attribute of a kind.
pub(in crate::sys) fn find(bytes: &[u8], kind: u16) -> Option<Attribute<'_>> {
    attributes(bytes).find(|attribute| attribute.kind == kind)
}

/// Attributes in the making.
#[derive(Debug, Default)]
pub(in crate::sys) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(in crate::sys) fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(HEADER_LEN + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(in crate::sys) fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    pub(in crate::sys) fn put_text(&mut self, kind: u16, text: &str) {
        self.put(kind, &[text.as_bytes(), &[0]].concat());
    }

    pub(in crate::sys) fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.put(kind | NESTED, &inner.bytes);
    }

    pub(in crate::sys) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_back_as_written() {
        let mut writer = Writer::default();
        writer.put_text(2, "eth0");
        writer.nest(3, |inner| inner.put_u32(7, 0x0102_0304));
        let bytes = writer.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(find(&bytes, 2).and_then(Attribute::text), Some("eth0"));
        let nested: Vec<_> = find(&bytes, 3).unwrap().nested().collect();
        assert_eq!((nested[0].kind, nested[0].u32()), (7, Some(0x0102_0304)));
        assert_eq!(find(&bytes, 4), None);
    }

    #[test]
    fn what_does_not_fit_ends_the_list() {
        for bytes in [&[3, 0, 1, 0][..], &[9, 0, 1, 0, 0], &[0; 8], &[255; 9], &[4, 0, 1]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
        // The last one needs no padding.
        assert_eq!(
            attributes(&[5, 0, 1, 0, 42]).map(Attribute::u8).collect::<Vec<_>>(),
            [Some(42)]
        );
    }
}
