//! The constants at load: what a program is told before the verifier sees it.

use std::collections::HashMap;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::DatapathError;

/// Where the constants are in the object file.
///
/// They are written into a copy of it before it is parsed. aya's way, by name at each load, wants
/// values that live as long as the loader, and a new loader reads all of the kernel's BTF.
pub(super) struct Constants {
    places: HashMap<&'static str, usize>,
    object: &'static [u8],
}

impl Constants {
    pub(super) fn find(object: &'static [u8]) -> Result<Self, object::Error> {
        let file = object::File::parse(object)?;
        let mut places = HashMap::new();
        for symbol in file.symbols() {
            let Some(index) = symbol.section_index() else { continue };
            let Some((start, _)) = file.section_by_index(index)?.file_range() else { continue };
            let (Ok(start), Ok(offset)) = (usize::try_from(start), usize::try_from(symbol.address()))
            else {
                continue;
            };
            places.insert(symbol.name()?, start + offset);
        }
        Ok(Self { places, object })
    }

    /// The object file, with constants still to be set.
    pub(super) fn copy(&self) -> Specialised<'_> {
        Specialised { constants: self, bytes: self.object.to_vec() }
    }
}

/// A copy of the object file for one attachment.
pub(super) struct Specialised<'a> {
    constants: &'a Constants,
    bytes: Vec<u8>,
}

impl Specialised<'_> {
    /// Sets the constant `name`, which is as large as `value`.
    pub(super) fn set<const N: usize>(
        &mut self,
        name: &'static str,
        value: [u8; N],
    ) -> Result<&mut Self, DatapathError> {
        let missing = DatapathError::Missing { name };
        let Some(&at) = self.constants.places.get(name) else { return Err(missing) };
        self.bytes.get_mut(at..at + N).ok_or(missing)?.copy_from_slice(&value);
        Ok(self)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
