//! `reprovisiond simulate`: a simulated Microsoft Graph for scripts, demonstrations and other programs' tests.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, Failure};
use crate::simulator::{
    AnswerShape, FaultScript, Interface, Options, Others, Pace, Shares, Simulator, StartError, Throttle, fault_spec,
    fleet, humane, token,
};

const EXAMPLES: &str = "\
Examples:
  reprovisiond simulate
      a healthy Graph with the reference page's two devices
  reprovisiond simulate --devices 5000 --seed 7
      a fleet, listed by GET {graph_url}/simulator/fleet
  reprovisiond simulate --others success --throttle off
      any GUID is a device
  reprovisiond simulate --faults 429:5@2,reset-after@7
      the 2nd call is throttled, the answer to the 7th is lost
  reprovisiond simulate --faults seed=7,rate=0.2
      a fifth of all calls goes wrong, the same ones every time
  reprovisiond simulate --gone bulk-reprovision-cloud-pc --new-ids
      the first action is gone, and a reprovisioned Cloud PC enrols anew

The first line on standard output is one JSON object: graph_url, authority_url,
tenant_id, client_id, client_secret_file, certificate_file,
federated_token_file, identity_endpoint and identity_header (for a managed
identity, as IDENTITY_ENDPOINT and IDENTITY_HEADER), and with --tls ca_file. It
serves until SIGINT or SIGTERM. GET {graph_url}/simulator/ledger returns every
reprovision that really happened.";

const WHILE_IT_RUNS: &str = "\
While it runs:
  GET  /simulator/ledger, /simulator/requests, /simulator/fleet,
       /simulator/traffic  what clients wrote to Graph
  POST /simulator/faults   one JSON entry or a list:
                           {\"nth\": 2, \"effect\": \"reset_after\"}
  POST /simulator/tokens   {\"roles\": [...], \"expire\": true}";

/// Runs a simulated Microsoft Graph and Entra ID on a loopback port.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = EXAMPLES, after_help = format!("{}\n\n{WHILE_IT_RUNS}", fault_spec::SYNTAX))]
pub(super) struct SimulateArgs {
    /// Loopback address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Serve HTTPS, with a certificate of a throwaway authority
    #[arg(long)]
    tls: bool,
    /// Invent this many devices
    #[arg(long, value_name = "N", default_value_t = 0)]
    devices: usize,
    /// Invent tenant, app and devices from this number
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Share of the invented devices that are not found, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = Shares::default().not_found)]
    not_found: f64,
    /// Share of the invented devices that do not support the action
    #[arg(long, value_name = "SHARE", default_value_t = Shares::default().not_supported)]
    not_supported: f64,
    /// Share of the invented devices for which the action is refused
    #[arg(long, value_name = "SHARE", default_value_t = Shares::default().fails)]
    fails: f64,
    /// Share of the invented devices that are accepted and whose action fails later
    #[arg(long, value_name = "SHARE", default_value_t = Shares::default().fails_later)]
    fails_later: f64,
    /// Devices as a JSON array or one JSON object a line
    ///
    /// Each has managed_device_id, behaviour (succeeds, fails, fails-later, not-found, not-supported) and, if wanted, cloud_pc_id, more_cloud_pc_ids (Cloud PCs listed with the same managed device ID) and not_enrolled (true: listed without one).
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// How IDs outside the fleet are treated; the Cloud PC list finds them by a filter for their managed device ID only
    #[arg(long, value_enum, default_value_t)]
    others: Others,
    /// Shape of a success: as the reference page shows, as Microsoft's SDK reads it, or 204 without a body
    #[arg(long, value_enum, default_value_t)]
    answer_shape: AnswerShape,
    /// Time between the work and its answer, such as 200ms
    #[arg(long, value_name = "DURATION", value_parser = humane::duration, default_value = "0")]
    latency: Duration,
    /// Throttle of the actions: published (100 calls in 20 seconds), off, or CALLS/SECONDS. Refused calls count too
    #[arg(long, value_name = "LIMIT", default_value = "published")]
    throttle: Throttle,
    /// How long a reprovision is pending
    #[arg(long, value_name = "DURATION", value_parser = humane::duration, default_value = "1s")]
    pending: Duration,
    /// How long it is active after that, until it is done or has failed
    #[arg(long, value_name = "DURATION", value_parser = humane::duration, default_value = "4s")]
    active: Duration,
    /// The read-back shows an action only after this long
    #[arg(long, value_name = "DURATION", value_parser = humane::duration, default_value = "0")]
    read_back_lag: Duration,
    /// Role of the tokens issued, repeatable; `none` for none
    #[arg(long = "role", value_name = "ROLE", default_value = token::READ_WRITE)]
    roles: Vec<String>,
    /// How long a token is good for
    #[arg(long, value_name = "DURATION", value_parser = humane::duration, default_value = "3599s")]
    token_lifetime: Duration,
    /// Cloud PCs or bulk actions on one page of a list
    #[arg(long, value_name = "N", default_value_t = Options::default().page_size)]
    page_size: usize,
    /// List a reprovisioned Cloud PC without a managed device ID while that runs, and then with a new one
    #[arg(long)]
    new_ids: bool,
    /// An action that this tenant no longer has, repeatable
    #[arg(long, value_name = "ACTION", value_enum)]
    gone: Vec<Interface>,
    /// What goes wrong: a JSON file, or entries as described below
    #[arg(long, value_name = "FILE|SPEC", value_parser = fault_spec::read)]
    faults: Option<FaultScript>,
}

/// Serves until SIGINT or SIGTERM.
pub(super) async fn run(args: &SimulateArgs) -> Result<(), Failure> {
    // Before the first line: whoever reads it may send a signal at once.
    let on_signal = |error| Failure::new(Exit::Failure, format_args!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(on_signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(on_signal)?;

    let simulator = Simulator::start(options(args)?).map_err(|error| {
        let exit = match error {
            StartError::NotLoopback(_) | StartError::Shares(_) | StartError::Fault(..) => Exit::Usage,
            _ => Exit::Failure,
        };
        Failure::new(exit, error)
    })?;
    announce(&simulator)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    simulator.shutdown().await.map_err(|error| Failure::new(Exit::Failure, error))
}

fn options(args: &SimulateArgs) -> Result<Options, Failure> {
    let fleet = args.fleet.as_deref().map(read_fleet).transpose()?.unwrap_or_default();
    Ok(Options {
        listen: args.listen,
        tls: args.tls,
        seed: args.seed,
        devices: args.devices,
        shares: Shares {
            not_found: args.not_found,
            not_supported: args.not_supported,
            fails: args.fails,
            fails_later: args.fails_later,
        },
        fleet,
        others: args.others,
        answer_shape: args.answer_shape,
        latency: args.latency,
        throttle: args.throttle,
        pace: Pace { pending: args.pending, active: args.active, read_back_lag: args.read_back_lag },
        roles: args.roles.iter().filter(|role| *role != "none").cloned().collect(),
        token_lifetime: args.token_lifetime,
        page_size: args.page_size,
        new_ids: args.new_ids,
        without: args.gone.clone(),
        faults: args.faults.clone().unwrap_or_default(),
        ..Options::default()
    })
}

fn read_fleet(path: &Path) -> Result<Vec<fleet::Device>, Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Usage, format_args!("fleet file {}: {error}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    fleet::parse(&text).map_err(|error| wrong(&error))
}

fn announce(simulator: &Simulator) -> Result<(), Failure> {
    let (identity_endpoint, identity_header) = simulator.identity_endpoint();
    let mut line = json!({
        "graph_url": simulator.graph_url(),
        "authority_url": simulator.authority_url(),
        "tenant_id": simulator.tenant_id(),
        "client_id": simulator.client_id(),
        "client_secret_file": simulator.client_secret_file(),
        "certificate_file": simulator.certificate_file(),
        "federated_token_file": simulator.federated_token_file(),
        "identity_endpoint": identity_endpoint,
        "identity_header": identity_header,
    });
    if let Some(ca_file) = simulator.ca_file() {
        line["ca_file"] = json!(ca_file);
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::new(Exit::Failure, format_args!("cannot write the first line: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;
    use crate::simulator::{Behaviour, Effect};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn parse(line: &str) -> Result<Options, String> {
        let line = Line::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        options(&line.args).map_err(|failure| failure.message)
    }

    #[test]
    fn without_flags_it_is_the_default_simulator() {
        assert_eq!(format!("{:?}", parse("simulate").unwrap()), format!("{:?}", Options::default()));
    }

    #[test]
    fn each_flag_reaches_its_option() {
        let options = parse(
            "simulate --listen [::1]:7 --tls --devices 9 --seed 3 --not-found 0.5 --fails 0 --others mixed \
             --answer-shape bare --latency 200ms --throttle 3/5 --pending 1m --read-back-lag 2s --role none \
             --token-lifetime 5s --page-size 7 --new-ids --gone cloud-pc-reprovision --faults hang@2",
        );
        let options = options.unwrap();
        assert_eq!((options.listen.to_string().as_str(), options.tls), ("[::1]:7", true));
        assert_eq!((options.devices, options.seed, options.others), (9, 3, Others::Mixed));
        assert_eq!(options.shares, Shares { not_found: 0.5, fails: 0.0, ..Shares::default() });
        assert_eq!((options.answer_shape, options.latency), (AnswerShape::Bare, Duration::from_millis(200)));
        assert_eq!(options.throttle, Throttle::Limit { calls: 3, window: Duration::from_secs(5) });
        let pace = Pace { pending: Duration::from_mins(1), read_back_lag: Duration::from_secs(2), ..Pace::default() };
        assert_eq!((options.pace, options.roles, options.token_lifetime), (pace, vec![], Duration::from_secs(5)));
        assert_eq!((options.page_size, options.new_ids), (7, true));
        assert_eq!(options.without, [Interface::CloudPcReprovision]);
        assert_eq!(options.faults.script[0].effect, Effect::Hang);
    }

    #[test]
    fn a_fleet_and_faults_can_be_files_and_their_mistakes_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (fleet, faults) = (directory.path().join("fleet.json"), directory.path().join("faults.json"));
        let device = r#"[{"managed_device_id": "5cd0e128-de93-41dc-89ec-33d84bb662a0", "behaviour": "fails"}]"#;
        std::fs::write(&fleet, device).unwrap();
        std::fs::write(&faults, r#"{"random": {"seed": 7, "rate": 0.5}, "script": [{"effect": "huge"}]}"#).unwrap();
        let line = format!("simulate --fleet {} --faults {}", fleet.display(), faults.display());
        let options = parse(&line).unwrap();
        assert_eq!(options.fleet[0].behaviour, Behaviour::Fails);
        assert_eq!((options.faults.script.len(), options.faults.random.unwrap().seed), (1, 7));

        std::fs::write(&fleet, device.replace("fails", "flies")).unwrap();
        std::fs::write(&faults, r#"[{"effect": "explode"}]"#).unwrap();
        let error = parse(&format!("simulate --fleet {}", fleet.display())).unwrap_err();
        assert!(error.contains("fleet.json: line 1: unknown variant `flies`"), "{error}");
        let error = parse(&format!("simulate --faults {}", faults.display())).unwrap_err();
        assert!(error.contains("faults.json") && error.contains("explode"), "{error}");
        let error = parse("simulate --faults missing.json").unwrap_err();
        assert!(error.contains("missing.json: no such file"), "{error}");
    }
}
