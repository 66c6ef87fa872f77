//! One question and its answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{
    Answer, Asker, Catalog, Data, Few, Group, Kind, Record, Seat, Single, TASK_TTL, Target,
    VIP_TTL, ZONE, Zone,
};
use crate::network::Offered;
use crate::schedule::hash::Map;

/// SRV records in one answer at most; more would not fit.
const MOST_PORTS: usize = 256;

/// Which tasks of a service are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Its own address, or its tasks.
    Service,
    Tasks,
    Healthy,
    Nearest,
    Number(u32),
}

/// What was asked for, less its beginning.
struct Asked<'a> {
    which: Which,
    /// Whether it ended with `.internal`.
    full: bool,
    rest: &'a str,
    /// Port and protocol, if it began with them.
    port: Option<(&'a str, &'a str)>,
}

/// What a name led to.
enum Found<'a> {
    Group(&'a Group, Which),
    Single(&'a Single),
}

impl Catalog {
    /// Who asks from an address. Somebody on a network who is not known (yet) sees that network; who
    /// is on none is nobody here.
    #[must_use]
    pub fn asker(&self, source: IpAddr) -> Option<Asker> {
        let source = source.to_canonical();
        let seat = match self.askers.get(&source) {
            Some(seat) => Arc::clone(seat),
            None => {
                let mut subnets = self.subnets.iter();
                let (_, zone) = subnets.find(|(s, _)| s.contains(source))?;
                Arc::new(Seat {
                    zones: vec![*zone],
                    stack: String::new(),
                    node: u32::MAX,
                    links: Map::default(),
                    resolvers: Arc::default(),
                })
            }
        };
        Some(Asker { seat, source })
    }

    /// Who is asked in an asker's place for what is not here; the host's resolvers if there are none.
    #[must_use]
    pub fn resolvers<'s>(&self, asker: &'s Asker) -> &'s Arc<[IpAddr]> {
        &asker.seat.resolvers
    }

    /// Whether an asker may have names of the outside: somebody who is on internal networks only may
    /// not, as nothing else of the outside can be reached either.
    #[must_use]
    pub fn may_go_outside(&self, asker: &Asker) -> bool {
        let mut zones = self.zones_of(asker).peekable();
        zones.peek().is_none() || zones.any(|z| !z.internal)
    }

    fn zones_of(&self, asker: &Asker) -> impl Iterator<Item = &Zone> {
        let zones = asker.seat.zones.iter();
        zones.filter_map(|z| self.zones.get(*z as usize))
    }

    /// The answer to a question. `name` is in lower case, without a dot at its end; `spin` is any
    /// number, another one each time: addresses of tasks are answered beginning with another.
    #[must_use]
    pub fn lookup(&self, asker: &Asker, name: &str, kind: Kind, spin: u32) -> Answer {
        if kind == Kind::Ptr || name.ends_with(".arpa") {
            return self.reverse(asker, name, kind);
        }
        let linked = asker.seat.links.get(name);
        let name = linked.map_or(name, String::as_str);
        let full = name.strip_suffix(ZONE).and_then(|n| n.strip_suffix('.'));
        let whole = Asked {
            which: Which::Service,
            full: full.is_some(),
            rest: full.unwrap_or(name),
            port: None,
        };
        let mut found = self.find(asker, &whole);
        let mut asked = whole;
        if found.is_empty()
            && let Some(part) = prefixed(&asked)
        {
            found = self.find(asker, &part);
            asked = part;
        }
        if found.is_empty() {
            return self.unknown(asker, name, &asked);
        }
        if let Some(port) = asked.port {
            return match kind {
                Kind::Srv | Kind::Any => self.services(asker, &found, port),
                // There are records of that name, if the port is known.
                _ => match self.services(asker, &found, port) {
                    Answer::NoName => Answer::NoName,
                    _ => Answer::Nothing,
                },
            };
        }
        self.addresses(asker, &found, kind, spin)
    }

    /// What the asker may see of a name: of its own stack, or else of others.
    fn find(&self, asker: &Asker, asked: &Asked) -> Vec<Found<'_>> {
        let mut found: Vec<(bool, Found)> = Vec::new();
        let stack = asker.seat.stack.as_str();
        for zone in self.zones_of(asker) {
            if !asked.full {
                found.extend(zone.find(asked.rest, asked.which, stack));
                let name = asked.rest.strip_suffix(zone.name.as_str());
                if let Some(name) = name.and_then(|n| n.strip_suffix('.')) {
                    found.extend(zone.find(name, asked.which, stack));
                }
            }
            if let Some((name, of)) = asked.rest.rsplit_once('.') {
                let of_stack = |f: &(bool, Found)| match f.1 {
                    Found::Group(group, _) => group.stack.eq_ignore_ascii_case(of),
                    Found::Single(_) => false,
                };
                found.extend(zone.find(name, asked.which, stack).filter(of_stack));
            }
        }
        let any_own = found.iter().any(|(own, _)| *own);
        found.retain(|(own, _)| *own || !any_own);
        found.into_iter().map(|(_, f)| f).collect()
    }

    /// What is said of a name that the asker does not see.
    fn unknown(&self, asker: &Asker, name: &str, asked: &Asked) -> Answer {
        let ours = if asked.full || name == ZONE {
            let ends = |suffix: &String| {
                let before = name.strip_suffix(suffix.as_str());
                before.is_some_and(|b| b.is_empty() || b.ends_with('.'))
            };
            !self.outside.0.iter().any(ends)
        } else {
            let own = || format!("{}.{}", asked.rest, asker.seat.stack);
            self.services.contains_key(asked.rest) || self.services.contains_key(&own())
        };
        match ours || !self.may_go_outside(asker) {
            // The top of the zone is there, it has just nothing.
            true if name == ZONE => Answer::Nothing,
            true => Answer::NoName,
            false => Answer::Elsewhere,
        }
    }

    /// The names of an address (RFC 1035 section 3.5, RFC 3596 section 2.5).
    fn reverse(&self, asker: &Asker, name: &str, kind: Kind) -> Answer {
        let Some(address) = address_of(name) else {
            return match self.may_go_outside(asker) {
                true => Answer::Elsewhere,
                false => Answer::NoName,
            };
        };
        let targets = self.reverse.get(&address).into_iter().flat_map(Few::iter);
        let seen = targets.filter(|(zone, _)| asker.seat.zones.contains(zone));
        let names =
            seen.filter_map(|(zone, target)| self.zones.get(zone as usize)?.full_name(target));
        let records: Vec<Data> = names.map(Data::Ptr).collect();
        if !records.is_empty() {
            return match kind {
                Kind::Ptr | Kind::Any => Answer::Found {
                    records,
                    more: Vec::new(),
                    ttl: TASK_TTL,
                },
                _ => Answer::Nothing,
            };
        }
        let ours = self.subnets.iter().any(|(s, _)| s.contains(address));
        match ours || !self.may_go_outside(asker) {
            true => Answer::NoName,
            false => Answer::Elsewhere,
        }
    }

    /// Ports (RFC 2782). A service with an address of its own is one host, else each task is one.
    fn services(&self, asker: &Asker, found: &[Found], (port, protocol): (&str, &str)) -> Answer {
        let (mut records, mut more) = (Vec::new(), Vec::new());
        let (mut known, mut ttl) = (false, VIP_TTL);
        let number: Option<u16> = port.parse().ok();
        for found in found {
            let Found::Group(group, which) = found else {
                continue;
            };
            let fits = |p: &&Offered| {
                let named = p.names.iter().any(|n| n == port);
                p.protocol == protocol && (named || number == Some(p.number))
            };
            for port in group.ports.iter().filter(fits) {
                known = true;
                let mut add = |target: String, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>| {
                    let v4 = v4.map(Data::A);
                    let datas = v4.into_iter().chain(v6.map(Data::Aaaa));
                    more.extend(datas.map(|data| Record {
                        name: target.clone(),
                        data,
                    }));
                    records.push(Data::Srv {
                        port: port.number,
                        target,
                    });
                };
                if *which == Which::Service && group.has_vip() {
                    add(group.full.clone(), group.v4, group.v6);
                    continue;
                }
                ttl = TASK_TTL;
                for task in self.chosen(asker, group, *which).iter().take(MOST_PORTS) {
                    let target = format!("{}.{}", task.number, group.full);
                    add(target, task.single.v4, task.single.v6);
                }
            }
        }
        match known {
            false => Answer::NoName,
            true if records.is_empty() => Answer::Nothing,
            true => Answer::Found { records, more, ttl },
        }
    }
}

impl Zone {
    /// What a name leads to on this network, and whether it is the stack's own.
    fn find<'a>(
        &'a self,
        name: &str,
        which: Which,
        stack: &str,
    ) -> impl Iterator<Item = (bool, Found<'a>)> {
        let targets = self.names.get(name).into_iter().flat_map(Few::iter);
        targets.filter_map(move |target| match target {
            Target::Group(group) => {
                let group = self.groups.get(group as usize)?;
                if let Which::Number(number) = which
                    && !group.members.iter().any(|m| m.number == number)
                {
                    return None;
                }
                let own = group.stack == stack && !stack.is_empty();
                Some((own, Found::Group(group, which)))
            }
            // Only services have several tasks to choose from.
            _ if which != Which::Service => None,
            Target::Task(group, task) => {
                let group = self.groups.get(group as usize)?;
                let own = group.stack == stack && !stack.is_empty();
                let task = group.members.get(task as usize)?;
                Some((own, Found::Single(&task.single)))
            }
            Target::Single(single) => {
                let (single, _) = self.singles.get(single as usize)?;
                Some((false, Found::Single(single)))
            }
        })
    }

    /// The name by which an address is known.
    fn full_name(&self, target: Target) -> Option<String> {
        Some(match target {
            Target::Group(group) => self.groups.get(group as usize)?.full.clone(),
            Target::Task(group, task) => {
                let group = self.groups.get(group as usize)?;
                let task = group.members.get(task as usize)?;
                format!("{}.{}", task.number, group.full)
            }
            Target::Single(single) => self.singles.get(single as usize)?.1.clone(),
        })
    }
}

/// Takes `_port._protocol`, and then what says which tasks, from the beginning of a name.
fn prefixed<'a>(asked: &Asked<'a>) -> Option<Asked<'a>> {
    let mut rest = asked.rest;
    let mut port = None;
    if let Some(text) = rest.strip_prefix('_') {
        let (name, behind) = text.split_once('.')?;
        let (protocol, behind) = behind.strip_prefix('_')?.split_once('.')?;
        port = Some((name, protocol));
        rest = behind;
    }
    let first = rest.split_once('.');
    let which = first.and_then(|(first, _)| match first {
        "tasks" => Some(Which::Tasks),
        "healthy" => Some(Which::Healthy),
        "nearest" => Some(Which::Nearest),
        _ if first.starts_with(|c: char| c.is_ascii_digit()) => {
            first.parse().ok().map(Which::Number)
        }
        _ => None,
    });
    let (which, rest) = match (which, first) {
        (Some(which), Some((_, behind))) => (which, behind),
        _ if port.is_none() => return None,
        _ => (Which::Service, rest),
    };
    Some(Asked {
        which,
        full: asked.full,
        rest,
        port,
    })
}

impl Catalog {
    /// The tasks of a service that are answered with.
    fn chosen<'a>(&self, asker: &Asker, group: &'a Group, which: Which) -> Vec<&'a super::Task> {
        if let Which::Number(number) = which {
            let has = |t: &&super::Task| t.number == number && t.single.runs;
            return group.members.iter().filter(has).collect();
        }
        let ready = group.ready.iter();
        let mut tasks: Vec<&super::Task> = ready
            .filter_map(|i| group.members.get(*i as usize))
            .collect();
        // A task that asks for its own service finds itself.
        let is_asker = |t: &super::Task| {
            let own = [t.single.v4.map(IpAddr::V4), t.single.v6.map(IpAddr::V6)];
            t.single.runs && own.contains(&Some(asker.source))
        };
        if which == Which::Healthy {
            tasks.retain(|t| t.checked);
            return tasks;
        }
        if !tasks.iter().any(|t| is_asker(t)) {
            tasks.extend(group.members.iter().find(|t| is_asker(t)));
        }
        if which == Which::Nearest {
            let seat = &asker.seat;
            let place = |node: u32| self.places.get(node as usize).filter(|p| !p.is_empty());
            let own = place(seat.node);
            let here = |t: &&super::Task| t.node == seat.node;
            let near = |t: &&super::Task| own.is_some() && place(t.node) == own;
            if tasks.iter().any(here) {
                tasks.retain(here);
            } else if tasks.iter().any(near) {
                tasks.retain(near);
            }
        }
        tasks
    }

    /// Addresses of all that a name leads to.
    fn addresses(&self, asker: &Asker, found: &[Found], kind: Kind, spin: u32) -> Answer {
        let v4 = matches!(kind, Kind::A | Kind::Any);
        let v6 = matches!(kind, Kind::Aaaa | Kind::Any);
        let mut records: Vec<Data> = Vec::new();
        let mut ttl = VIP_TTL;
        let mut add = |a: Option<Ipv4Addr>, b: Option<Ipv6Addr>| {
            records.extend(a.filter(|_| v4).map(Data::A));
            records.extend(b.filter(|_| v6).map(Data::Aaaa));
        };
        for found in found {
            match found {
                Found::Group(group, Which::Service) if group.has_vip() => add(group.v4, group.v6),
                Found::Group(group, which) => {
                    ttl = TASK_TTL;
                    for task in self.chosen(asker, group, *which) {
                        add(task.single.v4, task.single.v6);
                    }
                }
                Found::Single(single) => {
                    ttl = TASK_TTL;
                    if single.runs {
                        add(single.v4, single.v6);
                    }
                }
            }
        }
        if records.is_empty() {
            return Answer::Nothing;
        }
        // Something on two networks that both see is there with each address, and nothing twice.
        if found.len() > 1 {
            let mut seen = std::collections::HashSet::new();
            records.retain(|r| match r {
                Data::A(a) => seen.insert(IpAddr::V4(*a)),
                Data::Aaaa(a) => seen.insert(IpAddr::V6(*a)),
                _ => true,
            });
        }
        let places = records.len();
        records.rotate_left(spin as usize % places);
        Answer::Found {
            records,
            more: Vec::new(),
            ttl,
        }
    }
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn address_of(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let mut parts = octets.rsplit('.');
        let mut bytes = [0; 4];
        for byte in &mut bytes {
            let part = parts.next()?;
            let plain = part.len() == 1 || !part.starts_with(['0', '+']);
            *byte = part.parse().ok().filter(|_| plain)?;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(bytes).into());
    }
    let nibbles = name.strip_suffix(".ip6.arpa")?;
    let mut bits: u128 = 0;
    let mut count = 0;
    for part in nibbles.rsplit('.') {
        let digit = part.chars().next().filter(|_| part.len() == 1)?;
        if count == 32 {
            return None;
        }
        bits = bits << 4 | u128::from(digit.to_digit(16)?);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
}
