//! Protocol buffers by field number, without generated types: what the runtime says is written from
//! NRI's field table and owes nothing to the driver's transcription of it.

/// A message that is being written.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<u8>);

impl Fields {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn bytes(mut self, number: u32, value: &[u8]) -> Self {
        put_varint(&mut self.0, u64::from(number << 3 | 2));
        put_varint(&mut self.0, value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    #[must_use]
    pub fn string(self, number: u32, value: &str) -> Self {
        self.bytes(number, value.as_bytes())
    }

    #[must_use]
    pub fn message(self, number: u32, value: &Self) -> Self {
        self.bytes(number, &value.0)
    }

    #[must_use]
    pub fn varint(mut self, number: u32, value: u64) -> Self {
        put_varint(&mut self.0, u64::from(number << 3));
        put_varint(&mut self.0, value);
        self
    }

    pub fn encode(self) -> Vec<u8> {
        self.0
    }
}

/// A value as it stands in a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    Varint(u64),
    Bytes(Vec<u8>),
}

/// The fields of a message in their order; `None` where the bytes are no message. Fixed-width
/// fields, which NRI has none of, are refused.
pub fn decode(mut bytes: &[u8]) -> Option<Vec<(u32, Value)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let number = u32::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            0 => Value::Varint(take_varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Value::Bytes(value.to_vec())
            }
            _ => return None,
        };
        fields.push((number, value));
    }
    Some(fields)
}

/// The last varint field of that number; 0 if there is none.
pub fn varint(fields: &[(u32, Value)], number: u32) -> u64 {
    let mut values = fields.iter().rev().filter(|(found, _)| *found == number);
    let varint = values.find_map(|(_, value)| match value {
        Value::Varint(value) => Some(*value),
        Value::Bytes(_) => None,
    });
    varint.unwrap_or_default()
}

/// The last field of that number that holds bytes; empty if there is none.
pub fn bytes(fields: &[(u32, Value)], number: u32) -> &[u8] {
    let mut values = fields.iter().rev().filter(|(found, _)| *found == number);
    let bytes = values.find_map(|(_, value)| match value {
        Value::Varint(_) => None,
        Value::Bytes(value) => Some(value.as_slice()),
    });
    bytes.unwrap_or_default()
}

/// The last text of that number; empty if there is none.
pub fn string(fields: &[(u32, Value)], number: u32) -> String {
    String::from_utf8_lossy(bytes(fields, number)).into_owned()
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_the_encoding_has_them() {
        let message = Fields::new().varint(1, 300).message(2, &Fields::new().string(1, "x"));
        assert_eq!(message.clone().encode(), [0x08, 0xac, 0x02, 0x12, 3, 0x0a, 1, b'x']);

        let fields = decode(&message.encode()).unwrap();
        assert_eq!(varint(&fields, 1), 300);
        assert_eq!(string(&decode(bytes(&fields, 2)).unwrap(), 1), "x");
        assert_eq!((varint(&fields, 9), bytes(&fields, 9)), (0, &[][..]));
        assert_eq!(decode(&[0x0a, 5, 1]), None);
    }
}
