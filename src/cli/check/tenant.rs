//! One tenant: its token, what the token allows, and which of the actions Graph answers. Nothing is reprovisioned.

use futures_util::future::join_all;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use super::PATIENCE;
use super::line::Line;
use crate::cli::Exit;
use crate::config;
use crate::domain::action::Action;
use crate::domain::id::TenantName;
use crate::graph::{GraphClient, Offset, Probed, Said, TokenError};

const READ_WRITE: &str = "CloudPC.ReadWrite.All";
const READ: &str = "CloudPC.Read.All";

const GRANT: &str = "grant the application permission CloudPC.ReadWrite.All, with admin consent, to this client_id; a managed identity's may take a day";

/// What was found, as it is found.
pub(super) enum Found {
    Line(Line),
    Clock(Offset),
}

pub(super) async fn look(
    name: TenantName,
    tenant: config::Tenant,
    settings: config::Graph,
    tell: UnboundedSender<Found>,
) {
    let settings = config::Graph { call_timeout: settings.call_timeout.min(PATIENCE), ..settings };
    // Whoever listened no longer does: nobody is to be told.
    let say = |line| drop(tell.send(Found::Line(line)));
    let client = match GraphClient::new(&tenant, &settings) {
        Ok(client) => client,
        Err(error) => {
            let remedy = "see that the system has root certificates (ca-certificates, or SSL_CERT_FILE)";
            say(Line::failure(Exit::Configuration, "token", error.to_string(), remedy));
            return say(Line::not_checked("roles and actions", "there is no client"));
        }
    };
    // Each request has its own end; this is for whatever lies between them.
    let roles = match timeout(2 * PATIENCE, client.token_roles()).await {
        Ok(roles) => roles,
        Err(_) => Err(TokenError::Unavailable("no answer".to_owned())),
    };
    match roles {
        Err(error) => {
            let (exit, remedy) = match &error {
                TokenError::Refused(_) => (Exit::Authorisation, "correct how the tenant signs in (README, Signing in)"),
                TokenError::Unavailable(_) => {
                    (Exit::Unavailable, "see that this host reaches authority_url: network, proxy, certificates")
                }
            };
            say(Line::failure(exit, "token", format!("{error} ({})", tenant.authority_url), remedy));
            return say(Line::not_checked("roles and actions", "there is no token"));
        }
        Ok(roles) => {
            say(Line::ok("token", format!("obtained from {}", tenant.authority_url)));
            of_roles(roles.as_deref()).into_iter().for_each(say);
        }
    }
    let probed = join_all(Action::ALL.iter().map(async |action| (*action, client.probe(*action).await))).await;
    of_actions(&name, tenant.action, &probed).into_iter().for_each(say);
    let clock = probed.iter().filter_map(|(_, probed)| probed.clock).min_by_key(|clock| clock.within);
    if let Some(clock) = clock {
        drop(tell.send(Found::Clock(clock)));
    }
}

fn of_roles(roles: Option<&[String]>) -> Vec<Line> {
    let what = "roles";
    let Some(roles) = roles else {
        return vec![Line::note(what, "the token cannot be read; what Graph answers below decides")];
    };
    if !roles.iter().any(|role| role == READ_WRITE) {
        let has = if roles.is_empty() { "none".to_owned() } else { roles.join(", ") };
        let seen = format!("the token lacks {READ_WRITE}; it has {has}");
        return vec![Line::failure(Exit::Authorisation, what, seen, GRANT)];
    }
    let mut lines = vec![Line::ok(what, READ_WRITE)];
    let more: Vec<&str> = roles.iter().map(String::as_str).filter(|role| ![READ_WRITE, READ].contains(role)).collect();
    if !more.is_empty() {
        lines.push(Line::note(
            what,
            format!("the token has more, of which the daemon needs nothing: {}", more.join(", ")),
        ));
    }
    lines
}

/// The configured action first: on it hangs whether anything is sent.
fn of_actions(name: &TenantName, configured: Action, probed: &[(Action, Probed)]) -> Vec<Line> {
    let answers: Vec<Action> =
        probed.iter().filter(|(_, probed)| probed.said == Said::Answers).map(|(action, _)| *action).collect();
    // v1.0 first: it is the one supported in production.
    let other = [Action::CloudPcReprovision, Action::CloudPcBulkAction, Action::BulkReprovisionCloudPc]
        .into_iter()
        .find(|action| *action != configured && answers.contains(action));
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for (action, Probed { said, .. }) in probed {
        if *action == configured {
            first.push(of_configured(name, *action, said, other));
        } else {
            others.push(of_other(*action, said));
        }
    }
    first.into_iter().chain(others).collect()
}

fn of_configured(name: &TenantName, action: Action, said: &Said, other: Option<Action>) -> Line {
    let what = format!("action {action} (configured)");
    let choose =
        |other| format!("set tenants.{name}.action = \"{other}\" (or graph.action), which this tenant answers");
    match (said, other) {
        (Said::Answers, Some(other)) if action == Action::BulkReprovisionCloudPc => {
            Line::warning(what, "answered, and deprecated by Microsoft", choose(other))
        }
        (Said::Answers, _) => Line::ok(what, "answered"),
        (Said::Gone(seen), Some(other)) => {
            Line::failure(Exit::Configuration, what, format!("not answered: {seen}"), choose(other))
        }
        (Said::Gone(seen), None) => {
            let remedy = "no other is answered either: check graph_url and cloud, and that the tenant has Windows 365";
            Line::failure(Exit::Configuration, what, format!("not answered: {seen}"), remedy)
        }
        (Said::NotAllowed(seen), _) => {
            let remedy =
                format!("{GRANT}; see that tenant_id and cloud are the tenant's own, and that it has Windows 365");
            Line::failure(Exit::Authorisation, what, format!("not allowed: {seen}"), remedy)
        }
        (Said::NotNow(seen), _) => {
            Line::warning(what, format!("could not be told now: {seen}"), "check again in a few minutes")
        }
        (Said::Untold(seen), _) => {
            let remedy =
                "see that this host reaches graph_url: network, proxy, certificates; and whether Graph is well";
            Line::failure(Exit::Unavailable, what, format!("could not be told: {seen}"), remedy)
        }
    }
}

fn of_other(action: Action, said: &Said) -> Line {
    let what = format!("action {action}");
    match said {
        Said::Answers => Line::note(what, "answered too"),
        Said::Gone(seen) => Line::note(what, format!("not answered: {seen}")),
        Said::NotAllowed(seen) => Line::note(what, format!("not allowed: {seen}")),
        Said::NotNow(seen) | Said::Untold(seen) => Line::note(what, format!("could not be told: {seen}")),
    }
}
