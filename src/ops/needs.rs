//! What needs a person, and the command that resolves it.

use std::fmt;

use crate::domain::printable::printable;
use crate::store::{Status, TenantStatus};

/// Characters of a reason that are shown.
const REASON: usize = 400;

/// One thing that needs a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// What is so.
    pub what: String,
    /// Why, in words from outside made safe for one line.
    pub why: Option<String>,
    /// What to do before the command.
    pub advice: &'static str,
    /// What resolves it.
    pub command: String,
    /// What else is to be known of the command.
    pub note: &'static str,
}

/// A sentence, for logs and terminals.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, why, advice, command, note } = self;
        match why {
            Some(why) => write!(f, "{what}: {why}; {advice} `{command}`{note}"),
            None => write!(f, "{what}: {advice} `{command}`{note}"),
        }
    }
}

/// What needs a person now.
pub fn needs(status: &Status) -> Vec<Need> {
    let mut needs = Vec::new();
    for tenant in &status.tenants {
        let name = printable(&tenant.tenant, 64);
        if tenant.blocked_at.is_some() {
            let reason =
                tenant.block_reason.as_deref().or(tenant.block_code.as_deref()).unwrap_or("no reason is recorded");
            needs.push(Need {
                what: format!("tenant {name} is blocked"),
                why: Some(printable(reason, REASON).to_string()),
                advice: "mend that, and have it probed at once with",
                command: "systemctl restart reprovisiond".to_owned(),
                note: "",
            });
        }
        if tenant.held > 0 {
            needs.push(Need {
                what: format!(
                    "tenant {name} has {} held, whose outcome no evidence could settle",
                    requests(tenant.held)
                ),
                why: None,
                advice: "find out and decide with",
                command: format!(
                    "reprovisiond resolve --tenant {name} --as successful|retry|failed --by NAME --reason TEXT"
                ),
                note: " (or --request N for one of them)",
            });
        }
    }
    let pending: i64 = status.tenants.iter().map(TenantStatus::pending).sum();
    if status.workers.is_empty() && pending > 0 {
        let are = if pending == 1 { "is" } else { "are" };
        needs.push(Need {
            what: format!("no worker is alive and {} {are} pending", requests(pending)),
            why: None,
            advice: "start",
            command: "reprovisiond run".to_owned(),
            note: "",
        });
    }
    needs
}

/// `1 request`, `2 requests`.
pub(super) fn requests(n: i64) -> String {
    if n == 1 { "1 request".to_owned() } else { format!("{n} requests") }
}
