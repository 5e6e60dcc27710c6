//! Entra ID's `GET /{tenant}/v2.0/.well-known/openid-configuration`, which Microsoft's libraries read before they ask for a
//! token. A client that knows the path of the token endpoint does not need it.

use serde_json::json;

use super::Shared;
use super::answer::{Answer, Call};

/// Where the tenant's endpoints are.
pub(super) fn answer(sim: &Shared, call: &Call, tenant: &str) -> Answer {
    if !tenant.eq_ignore_ascii_case(&sim.tenant_id.to_string()) {
        let message = format!("Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.");
        return Answer::entra_error(call, 400, "invalid_tenant", 90_002, &message);
    }
    let base = format!("{}/{}", sim.base_url, sim.tenant_id);
    Answer::json(
        200,
        json!({
            "issuer": format!("{base}/v2.0"),
            "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
            "token_endpoint": format!("{base}/oauth2/v2.0/token"),
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "response_types_supported": ["code"],
        }),
    )
}
