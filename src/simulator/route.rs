//! Which path is whose. Graph matches segments without regard to case, which axum's router does not.

use axum::http::Method;
use uuid::Uuid;

use super::answer::{Answer, Call};
use super::faults::Endpoint;
use super::interface::{Interface, no_segment};
use super::verdict::Verdict;
use super::{Shared, action, batch, bulk, cloud_pcs, read_back, reprovision, token};

/// What a request to Graph brought. One inside a `$batch` looks the same.
#[derive(Debug)]
pub(super) struct Received<'a> {
    pub(super) authorization: Option<&'a str>,
    pub(super) content_type: &'a str,
    pub(super) method: &'a Method,
    pub(super) target: Target,
    pub(super) body: &'a [u8],
}

/// A path and what follows its question mark.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) path: Vec<String>,
    lower: Vec<String>,
    pub(super) query: String,
}

impl Target {
    pub(super) fn new(path: &str, query: &str) -> Self {
        let path = segments(path);
        let lower = path.iter().map(|segment| segment.to_ascii_lowercase()).collect();
        Self { path, lower, query: query.to_owned() }
    }

    /// In lower case, to be matched.
    pub(super) fn lower(&self) -> Vec<&str> {
        self.lower.iter().map(String::as_str).collect()
    }

    /// `v1.0` or `beta`.
    pub(super) fn version(&self) -> &str {
        self.lower.first().map_or("", String::as_str)
    }

    pub(super) fn is_beta(&self) -> bool {
        self.version() == "beta"
    }
}

/// A path of Graph's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route<'a> {
    BulkReprovision,
    ReadBackOfDevice(&'a str),
    ReadBackOfCloudPc(&'a str),
    CloudPcs,
    CloudPc(&'a str),
    Reprovision(&'a str),
    BulkActions,
    BulkAction(&'a str),
    Batch,
    Unknown,
}

impl<'a> Route<'a> {
    pub(super) fn of(target: &'a Target) -> Self {
        let (lower, path) = (target.lower(), &target.path);
        let Some((&version, rest)) = lower.split_first().filter(|(version, _)| ["v1.0", "beta"].contains(*version))
        else {
            return Self::Unknown;
        };
        // What v1.0 has of Windows 365 is little.
        match (rest, version == "beta") {
            (["$batch"], _) => Self::Batch,
            (["devicemanagement", "virtualendpoint", "cloudpcs"], _) => Self::CloudPcs,
            (["devicemanagement", "virtualendpoint", "cloudpcs", _], _) => Self::CloudPc(&path[4]),
            (["devicemanagement", "virtualendpoint", "cloudpcs", _, name], _) if is_action(name, "reprovision") => {
                Self::Reprovision(&path[4])
            }
            (["devicemanagement", "virtualendpoint", "cloudpcs", _, name], true)
                if is_function(name, "retrievecloudpcremoteactionresults") =>
            {
                Self::ReadBackOfCloudPc(&path[4])
            }
            (["devicemanagement", "virtualendpoint", "bulkactions"], true) => Self::BulkActions,
            (["devicemanagement", "virtualendpoint", "bulkactions", _], true) => Self::BulkAction(&path[4]),
            (["devicemanagement", "manageddevices", name], true) if is_action(name, "bulkreprovisioncloudpc") => {
                Self::BulkReprovision
            }
            (["devicemanagement", "manageddevices", _, name], true)
                if is_function(name, "getcloudpcremoteactionresults") =>
            {
                Self::ReadBackOfDevice(&path[3])
            }
            _ => Self::Unknown,
        }
    }

    /// Which of the actions it is, if any: a `$batch` is one if one of its requests is.
    pub(super) fn action(self, received: &Received<'_>) -> Option<Interface> {
        match self {
            Self::BulkReprovision => Some(Interface::BulkReprovisionCloudPc),
            Self::BulkActions if received.method != Method::GET => Some(Interface::CloudPcBulkAction),
            Self::Reprovision(_) => Some(Interface::CloudPcReprovision),
            Self::Batch => batch::reprovisions(received).then_some(Interface::CloudPcReprovision),
            _ => None,
        }
    }

    /// Where faults strike it.
    pub(super) fn endpoint(self, received: &Received<'_>) -> Option<Endpoint> {
        match self {
            _ if self.action(received).is_some() => Some(Endpoint::Action),
            Self::ReadBackOfDevice(_) | Self::ReadBackOfCloudPc(_) => Some(Endpoint::ReadBack),
            Self::CloudPcs | Self::CloudPc(_) => Some(Endpoint::List),
            Self::BulkActions | Self::BulkAction(_) => Some(Endpoint::LookUp),
            Self::Batch => batch::first_endpoint(received),
            _ => None,
        }
    }

    /// The devices and Cloud PCs that a request names, as far as it can be read.
    pub(super) fn names(self, sim: &Shared, received: &Received<'_>) -> Named {
        match self {
            Self::BulkReprovision => Named { managed_devices: action::ids_in(received.body), cloud_pcs: Vec::new() },
            Self::ReadBackOfDevice(id) => Named { managed_devices: vec![id.to_owned()], cloud_pcs: Vec::new() },
            Self::ReadBackOfCloudPc(id) | Self::CloudPc(id) | Self::Reprovision(id) => {
                Named::of_cloud_pcs(sim, vec![id.to_owned()])
            }
            Self::BulkActions => Named::of_cloud_pcs(sim, bulk::ids_in(received.body)),
            Self::Batch => Named::of_cloud_pcs(sim, batch::ids_in(received)),
            Self::CloudPcs | Self::BulkAction(_) | Self::Unknown => Named::default(),
        }
    }

    /// Graph's true answer, and the work that it tells of.
    pub(super) fn answer(self, sim: &Shared, call: &Call, received: &Received<'_>, verdict: &Verdict) -> Answer {
        let allowed: &[Method] = match self {
            Self::Unknown => return unknown(sim, call, received),
            Self::BulkReprovision | Self::Reprovision(_) | Self::Batch => &[Method::POST],
            Self::BulkActions => &[Method::GET, Method::POST],
            _ => &[Method::GET],
        };
        if !allowed.contains(received.method) {
            let message = format!("The method {} is not allowed here.", received.method);
            let allow: Vec<&str> = allowed.iter().map(Method::as_str).collect();
            return Answer::graph_error(call, 405, "MethodNotAllowed", &message).with("allow", allow.join(", "));
        }
        match self {
            Self::BulkReprovision => action::carry_out(sim, call, received, verdict),
            Self::Reprovision(id) => reprovision::carry_out(sim, call, received, id, verdict),
            Self::BulkActions if received.method == Method::POST => bulk::carry_out(sim, call, received, verdict),
            Self::BulkActions => bulk::list(sim, call, received, verdict),
            Self::BulkAction(id) => bulk::one(sim, call, received, id),
            Self::ReadBackOfDevice(id) => read_back::of_device(sim, call, received, id),
            Self::ReadBackOfCloudPc(id) => read_back::of_cloud_pc(sim, call, received, id),
            Self::CloudPcs => cloud_pcs::list(sim, call, received, verdict),
            Self::CloudPc(id) => cloud_pcs::one(sim, call, received, id, verdict),
            Self::Batch => batch::carry_out(sim, call, received, verdict),
            Self::Unknown => unknown(sim, call, received),
        }
    }
}

/// What a request names, in its own writing.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) managed_devices: Vec<String>,
    pub(super) cloud_pcs: Vec<String>,
}

impl Named {
    fn of_cloud_pcs(sim: &Shared, cloud_pcs: Vec<String>) -> Self {
        let devices = cloud_pcs.iter().filter_map(|id| sim.fleet.of_cloud_pc(guid(id)?));
        Self { managed_devices: devices.map(|device| device.managed_device_id.to_string()).collect(), cloud_pcs }
    }

    /// What a fault that looks for a device looks through.
    pub(super) fn guids(&self) -> Vec<Uuid> {
        self.managed_devices.iter().chain(&self.cloud_pcs).filter_map(|id| Uuid::try_parse(id).ok()).collect()
    }
}

/// A GUID in the form that Graph takes: hyphens, no braces.
pub(super) fn guid(text: &str) -> Option<Uuid> {
    Some(text).filter(|text| text.len() == 36).and_then(|text| Uuid::try_parse(text).ok())
}

/// An action or function may stand with its namespace.
fn is_action(segment: &str, name: &str) -> bool {
    segment.strip_prefix("microsoft.graph.").unwrap_or(segment) == name
}

/// A function may stand with parentheses.
fn is_function(segment: &str, name: &str) -> bool {
    is_action(segment.strip_suffix("()").unwrap_or(segment), name)
}

fn unknown(sim: &Shared, call: &Call, received: &Received<'_>) -> Answer {
    let roles = [token::READ, token::READ_WRITE];
    if let Err(refusal) = token::authorise(sim, call, received.authorization, &roles) {
        return refusal;
    }
    let target = &received.target;
    if !["v1.0", "beta"].contains(&target.version()) {
        let version = target.path.first().map_or("", String::as_str);
        return Answer::graph_error(call, 400, "BadRequest", &format!("Invalid version: {version}."));
    }
    // Each is a path that exists; `*` is a key. What follows the longest that fits is what Graph does not find.
    let known: [&[&str]; 3] = [
        &["devicemanagement", "manageddevices"],
        &["devicemanagement", "virtualendpoint", "cloudpcs", "*"],
        if target.is_beta() { &["devicemanagement", "virtualendpoint", "bulkactions", "*"] } else { &[] },
    ];
    let lower = &target.lower()[1..];
    let fits = |known: &&[&str]| {
        known.iter().zip(lower).take_while(|(known, lower)| *known == *lower || **known == "*").count()
    };
    let longest = known.iter().map(fits).max().unwrap_or_default();
    no_segment(call, target.path[1..].get(longest).map_or("", String::as_str))
}

/// The path's segments, decoded: the SDK writes `()` as it is, other clients as `%28%29`.
fn segments(path: &str) -> Vec<String> {
    path.split('/').filter(|segment| !segment.is_empty()).map(decoded).collect()
}

fn decoded(segment: &str) -> String {
    // form_urlencoded would read a plus as a space, which in a path it is not.
    let escaped = segment.replace('+', "%2B").replace('=', "%3D").replace('&', "%26");
    url::form_urlencoded::parse(escaped.as_bytes()).next().map(|(text, _)| text.into_owned()).unwrap_or_default()
}
