//! The decision: what the cluster answers to a question. Pure; the schema is that of the specification
//! (kubernetes/dns `docs/specification.md`, 1.1.0), and where it is silent CoreDNS's.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::place::{Place, ServiceName, place};
use super::view::{View, cluster_ips};
use crate::endpoints::owner;

/// How long an answer about the cluster may be kept, also a negative one (CoreDNS's default). Short, as asking again costs
/// a local packet and a pod that is gone stays gone.
pub const TTL_SECONDS: u32 = 5;
/// The version of the schema.
const SCHEMA_VERSION: &str = "1.1.0";
/// Records in one answer at most: what fits into the largest message.
const RECORDS_MAX: usize = 2000;

/// The cluster's domain and who answers for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// The domain, ending in a dot.
    pub domain: Name,
    /// The server's address.
    pub server: IpAddr,
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether the name exists.
    pub code: ResponseCode,
    /// The records asked for; none and no error means that there are others of that name.
    pub records: Vec<Record>,
    /// The addresses of what the records name.
    pub additionals: Vec<Record>,
    /// A name outside whose records belong behind ours.
    pub chase: Option<Name>,
}

/// The answer to a question for `name`; `None` where it is for others to answer.
pub fn answer(name: &Name, wanted: RecordType, zone: &Zone, view: &dyn View) -> Option<Answer> {
    let asked = Asked { name, wanted, zone };
    let place = place(name, &zone.domain);
    if let Place::Reverse(ip) = &place {
        return asked.reverse(*ip, view);
    }
    if place == Place::Outside {
        return None;
    }
    if wanted == RecordType::ANY {
        return Some(asked.any(&place, view));
    }
    Some(asked.inside(&place, view))
}

/// The record that says for how long a negative answer holds.
pub fn start_of_authority(zone: &Zone) -> Record {
    let name = |label: &str| child(label, &zone.domain);
    // Nobody transfers this zone: the serial and the secondaries' intervals mean nothing.
    let data = SOA::new(child("ns", &name("dns")), name("hostmaster"), 1, 7200, 1800, 86_400, TTL_SECONDS);
    Record::from_rdata(zone.domain.clone(), TTL_SECONDS, RData::SOA(data))
}

/// `label.parent`; the parent itself where that is too long to be a name.
fn child(label: &str, parent: &Name) -> Name {
    parent.prepend_label(label).unwrap_or_else(|_| parent.clone())
}

struct Asked<'a> {
    name: &'a Name,
    wanted: RecordType,
    zone: &'a Zone,
}

impl Asked<'_> {
    fn inside(&self, place: &Place, view: &dyn View) -> Answer {
        match place {
            Place::Apex => self.apex(),
            Place::Version => self.records([RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]))]),
            Place::Server => self.records([address(self.zone.server)]),
            Place::Branch | Place::PodNamespace => Answer::default(),
            Place::Namespace(namespace) if view.has_services(namespace) => Answer::default(),
            Place::Pod(ip) => self.records([address(*ip)]),
            Place::Service(service) => self.service(service, view),
            Place::Host(service, host) => self.host(service, host, view),
            Place::Protocol(service, protocol) => self.protocol(service, protocol, view),
            Place::Port(service, port, protocol) => self.port(service, port, protocol, view),
            Place::Namespace(_) | Place::Nothing | Place::Reverse(_) | Place::Outside => missing(),
        }
    }

    /// Not every record of a name, as RFC 8482 allows: answers to everything are good for nothing but floods.
    fn any(&self, place: &Place, view: &dyn View) -> Answer {
        let found = Asked { wanted: RecordType::A, ..*self }.inside(place, view);
        if found.code != ResponseCode::NoError {
            return found;
        }
        let little = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
        Answer { records: vec![self.record(little)], ..Answer::default() }
    }

    fn apex(&self) -> Answer {
        let records = match self.wanted {
            RecordType::SOA => vec![start_of_authority(self.zone)],
            RecordType::NS => vec![self.record(RData::NS(NS(child("ns", &child("dns", &self.zone.domain)))))],
            _ => Vec::new(),
        };
        Answer { records, ..Answer::default() }
    }

    fn service(&self, name: &ServiceName, view: &dyn View) -> Answer {
        let Some(service) = view.service(&name.namespace, &name.name) else { return missing() };
        let Some(spec) = &service.spec else { return missing() };
        if let Some(target) = external_name(spec) {
            return self.alias(target);
        }
        if is_headless(spec) {
            let hosts = hosts(&view.slices(&name.namespace, &name.name));
            if hosts.is_empty() {
                // The specification wants this for a headless service with nobody ready.
                return missing();
            }
            if self.wanted == RecordType::SRV {
                return self.endpoint_ports(name, view, |_, _| true);
            }
            return self.records(hosts.into_iter().map(|(_, ip)| address(ip)));
        }
        if self.wanted == RecordType::SRV {
            return self.service_ports(name, &service, |_, _| true);
        }
        self.records(cluster_ips(&service).map(address))
    }

    /// An alias, with what it stands for behind it.
    fn alias(&self, target: &str) -> Answer {
        if let Ok(ip) = target.parse() {
            return self.records([address(ip)]);
        }
        let Ok(mut target) = Name::from_ascii(target) else { return missing() };
        target.set_fqdn(true);
        let chase = (self.wanted != RecordType::CNAME).then(|| target.clone());
        Answer { records: vec![self.record(RData::CNAME(CNAME(target)))], chase, ..Answer::default() }
    }

    fn host(&self, name: &ServiceName, host: &str, view: &dyn View) -> Answer {
        if view.service(&name.namespace, &name.name).is_none() {
            return missing();
        }
        let hosts = hosts(&view.slices(&name.namespace, &name.name));
        let ips: Vec<RData> = hosts.into_iter().filter(|(h, _)| h == host).map(|(_, ip)| address(ip)).collect();
        if ips.is_empty() { missing() } else { self.records(ips) }
    }

    /// `_tcp.…` exists where a port's name ends in it (RFC 8020), and has no records.
    fn protocol(&self, name: &ServiceName, protocol: &str, view: &dyn View) -> Answer {
        let service = view.service(&name.namespace, &name.name);
        let ports = service.iter().filter_map(|s| s.spec.as_ref()).flat_map(|s| s.ports.iter().flatten());
        let exists = ports.filter(|p| p.name.is_some()).any(|p| is_protocol(p.protocol.as_deref(), protocol));
        if exists { Answer::default() } else { missing() }
    }

    fn port(&self, name: &ServiceName, port: &str, protocol: &str, view: &dyn View) -> Answer {
        let Some(service) = view.service(&name.namespace, &name.name) else { return missing() };
        let is_it = |n: Option<&str>, p: Option<&str>| n == Some(port) && is_protocol(p, protocol);
        let headless = service.spec.as_ref().is_some_and(is_headless);
        let found = Asked { wanted: RecordType::SRV, ..*self };
        let found = match headless {
            true => found.endpoint_ports(name, view, is_it),
            false => found.service_ports(name, &service, is_it),
        };
        match (found.records.is_empty(), self.wanted) {
            (true, _) => missing(),
            (false, RecordType::SRV) => found,
            (false, _) => Answer::default(),
        }
    }

    /// SRV records of a service with an address: they name the service.
    fn service_ports(
        &self,
        name: &ServiceName,
        service: &Service,
        wanted: impl Fn(Option<&str>, Option<&str>) -> bool,
    ) -> Answer {
        let target = self.service_name(name);
        let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
        let numbers: BTreeSet<u16> = ports
            .filter(|p| wanted(p.name.as_deref(), p.protocol.as_deref()))
            .filter_map(|p| u16::try_from(p.port).ok())
            .collect();
        let places: Vec<(Name, u16)> = numbers.into_iter().map(|port| (target.clone(), port)).collect();
        let additionals = match places.is_empty() {
            true => Vec::new(),
            false => cluster_ips(service).map(|ip| record(&target, address(ip))).collect(),
        };
        Answer { records: self.srv(&places), additionals, ..Answer::default() }
    }

    /// SRV records of a headless service: they name its endpoints.
    fn endpoint_ports(
        &self,
        name: &ServiceName,
        view: &dyn View,
        wanted: impl Fn(Option<&str>, Option<&str>) -> bool,
    ) -> Answer {
        let service = self.service_name(name);
        let (mut places, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for slice in view.slices(&name.namespace, &name.name) {
            let ports = slice.ports.iter().flatten();
            let numbers: Vec<u16> = ports
                .filter(|p| wanted(p.name.as_deref(), p.protocol.as_deref()))
                .filter_map(|p| u16::try_from(p.port?).ok())
                .collect();
            for (host, ip) in hosts(std::slice::from_ref(&slice)) {
                let target = child(&host, &service);
                places.extend(numbers.iter().map(|port| (target.clone(), *port)));
                if !numbers.is_empty() {
                    addresses.insert((target, ip));
                }
            }
        }
        let places: Vec<(Name, u16)> = places.into_iter().take(RECORDS_MAX).collect();
        let additionals = addresses.into_iter().take(RECORDS_MAX).map(|(n, ip)| record(&n, address(ip))).collect();
        Answer { records: self.srv(&places), additionals, ..Answer::default() }
    }

    /// All with the same share of a weight of 100, as CoreDNS has it.
    fn srv(&self, places: &[(Name, u16)]) -> Vec<Record> {
        let weight = u16::try_from(100 / places.len().max(1)).unwrap_or(0).max(1);
        places.iter().map(|(name, port)| self.record(RData::SRV(SRV::new(0, weight, *port, name.clone())))).collect()
    }

    /// Names of a cluster IP or, where there is none, of the endpoints at the address. Other addresses are others' business.
    fn reverse(&self, ip: IpAddr, view: &dyn View) -> Option<Answer> {
        let service = |s: &Service| {
            let (namespace, name) = (s.metadata.namespace.clone()?, s.metadata.name.clone()?);
            Some(self.service_name(&ServiceName { namespace, name }))
        };
        let mut names: BTreeSet<Name> = view.services_at(ip).iter().filter_map(|s| service(s)).collect();
        if names.is_empty() {
            for slice in view.slices_at(ip) {
                let Some((namespace, name)) = owner(&slice) else { continue };
                let parent = self.service_name(&ServiceName { namespace: namespace.to_owned(), name: name.to_owned() });
                let here = hosts(std::slice::from_ref(&slice)).into_iter().filter(|(_, a)| *a == ip);
                names.extend(here.map(|(host, _)| child(&host, &parent)));
            }
        }
        if names.is_empty() {
            return None;
        }
        if self.wanted != RecordType::PTR {
            return Some(Answer::default());
        }
        let records = names.into_iter().take(RECORDS_MAX).map(|name| self.record(RData::PTR(PTR(name)))).collect();
        Some(Answer { records, ..Answer::default() })
    }

    fn service_name(&self, service: &ServiceName) -> Name {
        let namespace = child(&service.namespace, &child("svc", &self.zone.domain));
        child(&service.name, &namespace)
    }

    /// Those of `data` that were asked for.
    fn records(&self, data: impl IntoIterator<Item = RData>) -> Answer {
        let wanted = data.into_iter().filter(|d| d.record_type() == self.wanted).take(RECORDS_MAX);
        Answer { records: wanted.map(|d| self.record(d)).collect(), ..Answer::default() }
    }

    fn record(&self, data: RData) -> Record {
        record(self.name, data)
    }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_SECONDS, data)
}

fn missing() -> Answer {
    Answer { code: ResponseCode::NXDomain, ..Answer::default() }
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

fn external_name(spec: &ServiceSpec) -> Option<&str> {
    spec.external_name.as_deref().filter(|_| spec.type_.as_deref() == Some("ExternalName"))
}

fn is_protocol(protocol: Option<&str>, wanted: &str) -> bool {
    protocol.unwrap_or("TCP").eq_ignore_ascii_case(wanted)
}

/// Host name and address of every ready endpoint. `publishNotReadyAddresses` needs nothing here: the slices of such a
/// service call every endpoint ready.
fn hosts(slices: &[std::sync::Arc<EndpointSlice>]) -> BTreeSet<(String, IpAddr)> {
    let endpoints = slices.iter().flat_map(|s| &s.endpoints).filter(|e| is_ready(e));
    endpoints
        .flat_map(|endpoint| {
            let ips = endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok());
            ips.map(|ip| (hostname(endpoint, ip), ip))
        })
        .collect()
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

/// The pod's own host name, or its address with dashes.
fn hostname(endpoint: &Endpoint, ip: IpAddr) -> String {
    match endpoint.hostname.as_deref().filter(|h| !h.is_empty()) {
        Some(hostname) => hostname.to_ascii_lowercase(),
        None => ip.to_string().replace(['.', ':'], "-"),
    }
}

#[cfg(test)]
mod tests;
