//! The compiler.

use super::{Compiled, CompiledDirection};
use crate::model::{Filter, Problems};

/// Compiles both directions.
///
/// # Errors
///
/// All that is wrong, with paths from the filter on.
pub fn compile(filter: &Filter, hz: u64) -> Result<Compiled, Problems> {
    let _ = (filter, hz, CompiledDirection::default());
    Ok(Compiled::default())
}
