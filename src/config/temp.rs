//! TEMP: `load_tenant_names`, until the lead's.

use super::{Mistakes, Sources};
use crate::domain::id::TenantName;

/// The configured tenants.
pub fn load_tenant_names(_: &Sources) -> Result<Vec<TenantName>, Mistakes> {
    Ok(Vec::new())
}
