//! The devices: invented from a seed or read from a file, with how Graph answers for each.

use std::collections::HashMap;
use std::sync::Mutex;

use serde::{Deserialize, Deserializer, Serialize, de};
use uuid::Uuid;

use super::{seeded, unpoisoned};
use crate::domain::id::ManagedDeviceId;

/// What Graph answers for a device, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// Accepted (`successfulDeviceIds`); its action ends `done`.
    Succeeds,
    /// Not accepted (`failedDeviceIds`): nothing is reprovisioned, nothing stands in the ledger or the read-back.
    Fails,
    /// Accepted (`successfulDeviceIds`), so it is in the ledger; its action ends `failed`.
    FailsLater,
    /// `notFoundDeviceIds`: no such managed device, or it has no Cloud PC.
    NotFound,
    /// `notSupportedDeviceIds`.
    NotSupported,
}

/// One device of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its Intune managed device ID.
    #[serde(deserialize_with = "managed_device_id")]
    pub managed_device_id: ManagedDeviceId,
    /// Its Cloud PC's ID; derived from the managed device ID when a fleet file gives none.
    #[serde(default)]
    pub cloud_pc_id: Option<Uuid>,
    /// Further Cloud PCs that Graph lists with the same managed device ID: an ID that is ambiguous.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_cloud_pc_ids: Vec<Uuid>,
    /// Its Cloud PC is listed without a managed device ID, as one that is not enrolled in Intune.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_enrolled: bool,
    /// How Graph answers for it.
    pub behaviour: Behaviour,
}

impl Device {
    /// One with one Cloud PC, whose ID is derived.
    pub fn new(managed_device_id: ManagedDeviceId, behaviour: Behaviour) -> Self {
        Self { managed_device_id, cloud_pc_id: None, more_cloud_pc_ids: Vec::new(), not_enrolled: false, behaviour }
    }

    /// Its Cloud PCs; one that Graph does not find has none.
    pub(super) fn cloud_pcs(&self) -> impl Iterator<Item = Uuid> {
        let all = self.cloud_pc_id.into_iter().chain(self.more_cloud_pc_ids.iter().copied());
        all.filter(|_| self.behaviour != Behaviour::NotFound)
    }
}

/// How IDs outside the fleet are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Others {
    /// As devices that succeed.
    Success,
    /// As unknown to Graph.
    #[default]
    NotFound,
    /// Each as one of success (half of them), fails, fails later, not found and not supported (an eighth each), by
    /// hash of seed and ID.
    Mixed,
}

/// The shares of an invented fleet that do not simply succeed; each between 0 and 1, together at most 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// Of [`Behaviour::NotFound`].
    pub not_found: f64,
    /// Of [`Behaviour::NotSupported`].
    pub not_supported: f64,
    /// Of [`Behaviour::Fails`].
    pub fails: f64,
    /// Of [`Behaviour::FailsLater`].
    pub fails_later: f64,
}

impl Default for Shares {
    /// One in fifty of each.
    fn default() -> Self {
        Self { not_found: 0.02, not_supported: 0.02, fails: 0.02, fails_later: 0.02 }
    }
}

impl Shares {
    /// Every device succeeds.
    pub const NONE: Self = Self { not_found: 0.0, not_supported: 0.0, fails: 0.0, fails_later: 0.0 };

    fn all(self) -> [(Behaviour, f64); 4] {
        [
            (Behaviour::NotFound, self.not_found),
            (Behaviour::NotSupported, self.not_supported),
            (Behaviour::Fails, self.fails),
            (Behaviour::FailsLater, self.fails_later),
        ]
    }

    pub(super) fn are_shares(self) -> bool {
        let all = self.all();
        all.iter().all(|(_, share)| (0.0..=1.0).contains(share)) && all.iter().map(|(_, s)| s).sum::<f64>() <= 1.0
    }

    fn behaviour_at(self, mut drawn: f64) -> Behaviour {
        for (behaviour, share) in self.all() {
            if drawn < share {
                return behaviour;
            }
            drawn -= share;
        }
        Behaviour::Succeeds
    }
}

/// A fleet file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct FleetError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// The devices of the reference page's example, with the page's outcome.
pub const PAGE_EXAMPLE: [(&str, Behaviour); 2] = [
    ("30d0e128-de93-41dc-89ec-33d84bb662a0", Behaviour::Succeeds),
    ("7c82a3e3-9459-44e4-94d9-b92f93bf78dd", Behaviour::Fails),
];

/// Reads a fleet: a JSON array, or one JSON object a line, of
/// `{"managed_device_id": "…", "cloud_pc_id": "…" (optional), "behaviour": "succeeds" | "fails" | "fails-later" | "not-found" | "not-supported"}`,
/// and, where wanted, `"more_cloud_pc_ids": ["…"]` and `"not_enrolled": true`.
pub fn parse(text: &str) -> Result<Vec<Device>, FleetError> {
    let mut seen: HashMap<ManagedDeviceId, usize> = HashMap::new();
    let mut cloud_pcs: HashMap<Uuid, usize> = HashMap::new();
    let mut devices = Vec::new();
    for (line, entry) in entries(text)? {
        let device: Device = serde_json::from_str(entry)
            .map_err(|error| FleetError { line: line + error.line() - 1, reason: without_position(&error) })?;
        if let Some(first) = seen.insert(device.managed_device_id, line) {
            let reason = format!("device {} stands already in line {first}", device.managed_device_id);
            return Err(FleetError { line, reason });
        }
        for cloud_pc in device.cloud_pc_id.iter().chain(&device.more_cloud_pc_ids) {
            if let Some(first) = cloud_pcs.insert(*cloud_pc, line) {
                return Err(FleetError { line, reason: format!("Cloud PC {cloud_pc} stands already in line {first}") });
            }
        }
        devices.push(device);
    }
    Ok(devices)
}

/// Each device's text with the line where it begins, in either form of the file.
fn entries(text: &str) -> Result<Vec<(usize, &str)>, FleetError> {
    if !text.trim_start().starts_with('[') {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        return Ok(lines.filter(|(_, line)| !line.trim().is_empty()).collect());
    }
    let raw: Vec<&serde_json::value::RawValue> = serde_json::from_str(text)
        .map_err(|error| FleetError { line: error.line(), reason: without_position(&error) })?;
    let line_of = |entry: &str| {
        let offset = entry.as_ptr().addr() - text.as_ptr().addr();
        text[..offset].matches('\n').count() + 1
    };
    Ok(raw.into_iter().map(|entry| (line_of(entry.get()), entry.get())).collect())
}

/// serde_json appends its own line, which counts from the entry and not from the file.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

fn managed_device_id<'de, D: Deserializer<'de>>(from: D) -> Result<ManagedDeviceId, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|error| de::Error::custom(format_args!("managed_device_id {text:?}: {error}")))
}

/// Every device, with the rule for those outside.
#[derive(Debug)]
pub(super) struct Fleet {
    devices: Vec<Device>,
    index: HashMap<ManagedDeviceId, usize>,
    by_cloud_pc: HashMap<Uuid, usize>,
    /// Cloud PCs of IDs outside the fleet, since somebody asked for them by managed device ID: a hash has no way back.
    met: Mutex<HashMap<Uuid, ManagedDeviceId>>,
    others: Others,
    seed: u64,
}

impl Fleet {
    /// The page's two, then those given, then as many invented ones. A given device replaces one of the page's.
    pub(super) fn gather(given: Vec<Device>, invented: usize, shares: Shares, others: Others, seed: u64) -> Self {
        let page = PAGE_EXAMPLE.iter().filter_map(|(id, behaviour)| Some(Device::new(id.parse().ok()?, *behaviour)));
        let invented = (0..invented as u64).filter_map(|n| {
            let managed_device_id = seeded::guid(seed, "managed device", n).try_into().ok()?;
            let behaviour = shares.behaviour_at(seeded::fraction(seed, "behaviour", n));
            Some(Device::new(managed_device_id, behaviour))
        });
        let (index, by_cloud_pc, met) = (HashMap::new(), HashMap::new(), Mutex::default());
        let mut fleet = Self { devices: Vec::new(), index, by_cloud_pc, met, others, seed };
        for mut device in page.chain(given).chain(invented) {
            let id = device.managed_device_id;
            device.cloud_pc_id = device.cloud_pc_id.or_else(|| fleet.cloud_pc_of(id, device.behaviour));
            if let Some(&at) = fleet.index.get(&id) {
                fleet.devices[at] = device;
            } else {
                fleet.index.insert(id, fleet.devices.len());
                fleet.devices.push(device);
            }
        }
        for (at, device) in fleet.devices.iter().enumerate() {
            fleet.by_cloud_pc.extend(device.cloud_pcs().map(|cloud_pc| (cloud_pc, at)));
        }
        fleet
    }

    pub(super) fn devices(&self) -> &[Device] {
        &self.devices
    }

    pub(super) fn look_up(&self, id: ManagedDeviceId) -> Device {
        if let Some(&at) = self.index.get(&id) {
            return self.devices[at].clone();
        }
        let behaviour = match self.others {
            Others::Success => Behaviour::Succeeds,
            Others::NotFound => Behaviour::NotFound,
            Others::Mixed => {
                let eighths = Shares { not_found: 0.125, not_supported: 0.125, fails: 0.125, fails_later: 0.125 };
                eighths.behaviour_at(seeded::fraction(self.seed, &id.to_string(), 0))
            }
        };
        let device = Device { cloud_pc_id: self.cloud_pc_of(id, behaviour), ..Device::new(id, behaviour) };
        unpoisoned(&self.met).extend(device.cloud_pc_id.map(|cloud_pc| (cloud_pc, id)));
        device
    }

    pub(super) fn contains(&self, id: ManagedDeviceId) -> bool {
        self.index.contains_key(&id)
    }

    /// The device of a Cloud PC; outside the fleet, only where [`Self::look_up`] has told of it.
    pub(super) fn of_cloud_pc(&self, cloud_pc: Uuid) -> Option<Device> {
        if let Some(&at) = self.by_cloud_pc.get(&cloud_pc) {
            return Some(self.devices[at].clone());
        }
        let met = unpoisoned(&self.met).get(&cloud_pc).copied();
        met.map(|id| self.look_up(id))
    }

    /// Every Cloud PC of the fleet, always in the same order.
    pub(super) fn cloud_pcs(&self) -> impl Iterator<Item = (Uuid, &Device)> {
        self.devices.iter().flat_map(|device| device.cloud_pcs().map(move |cloud_pc| (cloud_pc, device)))
    }

    fn cloud_pc_of(&self, id: ManagedDeviceId, behaviour: Behaviour) -> Option<Uuid> {
        (behaviour != Behaviour::NotFound).then(|| seeded::guid(self.seed, &format!("cloud pc of {id}"), 0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ONE: &str = r#"{"managed_device_id": "5cd0e128-de93-41dc-89ec-33d84bb662a0", "behaviour": "not-supported"}"#;
    const TWO: &str = r#"{"managed_device_id": "6cd0e128-de93-41dc-89ec-33d84bb662a0",
        "cloud_pc_id": "aaaaaaaa-de93-41dc-89ec-33d84bb662a0", "behaviour": "fails-later"}"#;

    #[test]
    fn a_fleet_file_is_an_array_or_one_object_a_line() {
        let lines = format!("{ONE}\n\n{}\n", TWO.replace('\n', " "));
        let array = format!("[\n{ONE},\n{TWO}]");
        let devices = parse(&array).unwrap();
        assert_eq!(devices, parse(&lines).unwrap());
        assert_eq!(devices[0].behaviour, Behaviour::NotSupported);
        assert_eq!(devices[1].cloud_pc_id.unwrap().to_string(), "aaaaaaaa-de93-41dc-89ec-33d84bb662a0");
    }

    #[test]
    fn a_fleet_file_can_hold_an_ambiguous_id_and_a_cloud_pc_without_one() {
        let more = r#""more_cloud_pc_ids": ["bbbbbbbb-de93-41dc-89ec-33d84bb662a0"], "behaviour""#;
        let devices = parse(&TWO.replace('\n', " ").replace("\"behaviour\"", more)).unwrap();
        assert_eq!(devices[0].cloud_pcs().count(), 2);
        let devices = parse(&ONE.replace("\"behaviour\"", r#""not_enrolled": true, "behaviour""#)).unwrap();
        assert!(devices[0].not_enrolled);
    }

    #[test]
    fn what_is_wrong_with_a_fleet_file_is_said_with_its_line() {
        for (text, line, part) in [
            (format!("{ONE}\n{ONE}"), 2, "stands already in line 1"),
            (format!("[{ONE},\n\n{ONE}]"), 3, "stands already in line 1"),
            (format!("[{ONE},\n{}]", ONE.replace("not-supported", "explodes")), 2, "unknown variant `explodes`"),
            (format!("\n{}", ONE.replace("5cd0", "zzzz")), 2, "not an Intune managed device ID"),
            (format!("[{ONE},\n{}]", TWO.replace("fails-later\"", "fails-later\", \"x\": 1")), 3, "unknown field `x`"),
            (
                format!("[{TWO},\n{}]", TWO.replace("6cd0", "7cd0")),
                3,
                "Cloud PC aaaaaaaa-de93-41dc-89ec-33d84bb662a0 stands already in line 1",
            ),
            (format!("{ONE}\n{{"), 2, "EOF"),
            (format!("[{ONE}\n"), 1, "EOF"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.reason.contains(part) && !error.reason.contains(" at line "), "{text}: {error}");
            assert!(error.line == line || part == "EOF", "{text}: {error}");
        }
    }

    #[test]
    fn an_invented_fleet_is_the_same_for_the_same_seed_and_keeps_its_shares() {
        let shares = Shares { not_found: 0.25, ..Shares::NONE };
        let gather = |seed| Fleet::gather(Vec::new(), 400, shares, Others::NotFound, seed).devices().to_vec();
        assert_eq!(gather(1), gather(1));
        assert_ne!(gather(1)[2..], gather(2)[2..]);
        let not_found = gather(1).iter().filter(|d| d.behaviour == Behaviour::NotFound).count();
        assert!((60..140).contains(&not_found), "{not_found} of 400");
        assert!(gather(1).iter().all(|d| d.cloud_pc_id.is_some() == (d.behaviour != Behaviour::NotFound)));
    }

    #[test]
    fn the_pages_two_devices_are_always_there_unless_a_file_says_otherwise() {
        let page: ManagedDeviceId = PAGE_EXAMPLE[1].0.parse().unwrap();
        let plain = Fleet::gather(Vec::new(), 0, Shares::NONE, Others::Success, 1);
        assert_eq!(plain.look_up(page).behaviour, Behaviour::Fails);
        let given = Device::new(page, Behaviour::Succeeds);
        let fleet = Fleet::gather(vec![given], 0, Shares::NONE, Others::Success, 1);
        assert_eq!((fleet.look_up(page).behaviour, fleet.devices().len()), (Behaviour::Succeeds, 2));
    }

    #[test]
    fn mixed_outsiders_differ_among_each_other_and_not_between_two_looks() {
        let fleet = Fleet::gather(Vec::new(), 0, Shares::NONE, Others::Mixed, 9);
        let look = || -> Vec<Behaviour> {
            (0..64).map(|n| fleet.look_up(seeded::guid(0, "outsider", n).try_into().unwrap()).behaviour).collect()
        };
        assert_eq!(look(), look());
        for behaviour in [Behaviour::Succeeds, Behaviour::Fails, Behaviour::NotFound, Behaviour::NotSupported] {
            assert!(look().contains(&behaviour), "{behaviour:?}");
        }
    }
}
