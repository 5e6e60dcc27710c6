//! What the auditors' page and the runbook tell of: a few requests, each with a story of its own.

use std::time::Duration;

use reprovisiond::simulator::{Behaviour, Device, FaultScript, Options, Pace, Simulator};

use super::run::Place;
use super::serve;
use crate::support::{Daemon, SETTLES, calm};

/// Asked for twice, and wiped twice.
const TWICE: &str = "30d0e128-de93-41dc-89ec-33d84bb662a0";
const REFUSED: &str = "7c82a3e3-9459-44e4-94d9-b92f93bf78dd";
const NOT_FOUND: &str = "0b0f7e4c-52a9-4c7e-8f0d-2f6f0c2f1a01";
const NOT_SUPPORTED: &str = "1d5a9c30-6b1e-4f0a-9a58-8a4d3be0c702";
/// The answer was lost, and the device wiped.
const ANSWER_LOST: &str = "2e7b4f61-93c8-4d25-b7e1-5c9d0f3a8e03";
/// The request was lost, so it was sent again.
const REQUEST_LOST: &str = "3f8c5a72-04d9-4e36-88f2-6dae1b4c9f04";
/// Nothing could be read back, and a person decided.
const HELD: &str = "4a9d6b83-15ea-4f47-9903-7ebf2c5da005";
const EXPIRED: &str = "5bae7c94-26fb-4058-aa14-8fc03d6eb106";
const CANCELLED: &str = "6cbf8da5-370c-4169-bb25-90d14e7fc207";
/// Accepted, and then the reprovision failed.
const FAILS_LATER: &str = "7dc09eb6-481d-427a-8c36-a1e25f80d308";
const PAUSED: &str = "8ed1afc7-592e-438b-9d47-b2f36091e409";
const THROTTLED: &str = "9fe2b0d8-6a3f-449c-ae58-c3047a02f50a";

const FLEET: [(&str, Behaviour); 12] = [
    (TWICE, Behaviour::Succeeds),
    (REFUSED, Behaviour::Fails),
    (NOT_FOUND, Behaviour::NotFound),
    (NOT_SUPPORTED, Behaviour::NotSupported),
    (ANSWER_LOST, Behaviour::Succeeds),
    (REQUEST_LOST, Behaviour::Succeeds),
    (HELD, Behaviour::Succeeds),
    (EXPIRED, Behaviour::Succeeds),
    (CANCELLED, Behaviour::Succeeds),
    (FAILS_LATER, Behaviour::FailsLater),
    (PAUSED, Behaviour::Succeeds),
    (THROTTLED, Behaviour::Succeeds),
];

/// It is made once and stays: the daemon and its Graph go when this does.
pub(super) struct History {
    daemon: Daemon,
    _simulator: Simulator,
}

impl History {
    /// That of the auditors' page.
    pub(super) async fn make(place: &Place) -> Self {
        let history = Self::begin(place).await;
        history.happen(place).await;
        history
    }

    /// That of the runbook: one request is held, two are refused, one waits for its time.
    pub(super) async fn trouble(place: &Place) -> Self {
        let history = Self::begin(place).await;
        for (device, reference, ends) in
            [(HELD, "move-21", "held"), (NOT_FOUND, "move-17", "not_found"), (NOT_FOUND, "move-18", "not_found")]
        {
            history.ask(place, device, &format!("'onboarding', 'new owner', '{reference}', NULL, NULL"), ends).await;
        }
        let later = "'helpdesk', 'wrong device', 'ticket-4714', '2031-01-31T22:00:00Z', NULL";
        history.ask(place, CANCELLED, later, "queued").await;
        history
    }

    async fn begin(place: &Place) -> Self {
        let fleet = FLEET.map(|(id, behaviour)| Device::new(id.parse().unwrap(), behaviour)).to_vec();
        let at_once = Pace { pending: Duration::ZERO, active: Duration::ZERO, ..Pace::default() };
        let simulator = Simulator::start(Options { devices: 0, fleet, pace: at_once, ..calm() }).unwrap();
        for (device, fault) in [
            (ANSWER_LOST, "reset-after"),
            (REQUEST_LOST, "reset-before"),
            (HELD, "reset-after"),
            (HELD, "read-back/500@*"),
            (THROTTLED, "429:1"),
        ] {
            let fault = fault.parse::<FaultScript>().unwrap().script.remove(0);
            simulator.add_fault(fault.device(device.parse().unwrap())).unwrap();
        }
        let settings = SETTLES.replace("give_up_after = \"30s\"", "give_up_after = \"3s\"");
        let follows = "[completion]\ntrack = true\nfirst_after = \"100ms\"\nshortest_delay = \"100ms\"\n";
        let daemon = serve(place, &simulator, &format!("{settings}{follows}")).await;
        Self { daemon, _simulator: simulator }
    }

    /// One after the other, so that each is a call of its own and the same comes of it whatever the machine does.
    async fn happen(&self, place: &Place) {
        for (device, by, reason, reference, ends) in [
            (TWICE, "helpdesk", "Windows does not start", "ticket-4711", "successful"),
            (REFUSED, "helpdesk", "profile broken", "ticket-4712", "failed"),
            (NOT_FOUND, "onboarding", "new owner", "move-17", "not_found"),
            (NOT_SUPPORTED, "onboarding", "new owner", "move-18", "not_supported"),
            (ANSWER_LOST, "onboarding", "new owner", "move-19", "successful"),
            (REQUEST_LOST, "onboarding", "new owner", "move-20", "successful"),
            (HELD, "onboarding", "new owner", "move-21", "held"),
        ] {
            self.ask(place, device, &format!("'{by}', '{reason}', '{reference}', NULL, NULL"), ends).await;
        }
        self.order(place, "resolve --as successful --request 7", "Intune shows a fresh enrolment").await;
        let only_then = "'helpdesk', 'only tonight', 'ticket-4713', '2026-01-01T20:00:00Z', '2026-01-02T04:00:00Z'";
        self.ask(place, EXPIRED, only_then, "expired").await;
        let later = "'helpdesk', 'wrong device', 'ticket-4714', '2031-01-31T22:00:00Z', NULL";
        self.ask(place, CANCELLED, later, "queued").await;
        self.order(place, "cancel --request 9", "ticket 4714 withdrawn").await;
        self.ask(place, FAILS_LATER, "'helpdesk', 'slow', 'ticket-4715', NULL, NULL", "successful").await;
        self.order(place, &format!("pause --device {PAUSED}"), "legal hold 12").await;
        self.ask(place, PAUSED, "'helpdesk', 'slow', 'ticket-4716', NULL, NULL", "queued").await;
        self.ask(place, THROTTLED, "'helpdesk', 'slow', 'ticket-4717', NULL, NULL", "successful").await;
        self.ask(place, TWICE, "'helpdesk', 'again', 'ticket-4718', NULL, NULL", "successful").await;
        // All that were accepted, but for the one that cannot be read back.
        self.daemon.until_rows(place.scratch(), "SELECT count(*) FROM completions", "6").await;
    }

    /// Asks, and waits for the end, or the state, that it comes to.
    async fn ask(&self, place: &Place, device: &str, values: &str, comes_to: &str) {
        let columns = "managed_device_id, requested_by, reason, external_id, not_before, expires_at";
        let ask = format!("INSERT INTO reprovision_requests ({columns}) VALUES ('{device}', {values})");
        place.scratch().rows(&ask).await;
        let state = "SELECT state FROM request_status ORDER BY request_id DESC LIMIT 1";
        self.daemon.until_rows(place.scratch(), state, comes_to).await;
    }

    async fn order(&self, place: &Place, order: &str, reason: &str) {
        let words: Vec<&str> = order.split(' ').chain(["--by", "ada", "--reason", reason]).collect();
        place.scratch().order(&words).await;
    }
}
