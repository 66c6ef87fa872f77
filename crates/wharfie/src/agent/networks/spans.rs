//! The overlays of this node: bridges of a network on all hosts, joined.

use std::collections::BTreeMap;
use std::net::IpAddr;

use wharfie_core::network::MTU;
use wharfie_core::network::overlay::overlays;
use wharfie_host::net::{Endpoint, Error, Mac, Namespace, Overlay, Overlays, VXLAN_PORT};

use super::plane::bridges;
use super::view::Scene;

/// The kernel's part of it.
#[derive(Default)]
pub(super) struct Spans {
    overlays: Option<Overlays>,
    wanted: Vec<Overlay>,
}

impl Spans {
    /// Whether there are none.
    pub(super) fn is_idle(&self) -> bool {
        self.wanted.is_empty()
    }

    /// The overlays that there are.
    pub(super) fn wanted(&self) -> &[Overlay] {
        &self.wanted
    }

    /// Whether something may be sent to a host.
    pub(super) fn sends_to(&self, host: IpAddr) -> bool {
        let mut endpoints = self.wanted.iter().flat_map(|o| &o.endpoints);
        let is_unknown = self.overlays.is_some() && self.wanted.is_empty();
        is_unknown || endpoints.any(|e| e.host == host)
    }

    /// Joins the bridges of a network on all hosts.
    pub(super) fn apply(&mut self, scene: &Scene, repair: bool) -> Result<(), Error> {
        let Some(local) = scene.here().and_then(|n| n.address) else {
            return Ok(());
        };
        let remote = scene.with(overlays);
        let each = bridges(scene).filter_map(|(name, object, bridge)| {
            let overlay = remote.get(name)?;
            let mut endpoints: BTreeMap<(Mac, IpAddr), Vec<IpAddr>> = BTreeMap::new();
            for (address, at) in &overlay.remote {
                let of = endpoints.entry((Mac(at.mac.0), at.host)).or_default();
                of.push(*address);
            }
            let endpoints = endpoints.into_iter();
            let endpoints = endpoints.filter(|((_, host), _)| host.is_ipv4() == local.is_ipv4());
            Some(Overlay {
                network: name.clone(),
                vni: object.vni,
                bridge,
                mtu: u32::from(MTU),
                port: VXLAN_PORT,
                local,
                endpoints: endpoints
                    .map(|((mac, host), addresses)| Endpoint {
                        mac,
                        addresses,
                        host,
                    })
                    .collect(),
            })
        });
        let wanted: Vec<Overlay> = each.collect();
        if let (Some(open), false) = (&mut self.overlays, repair) {
            if wanted == self.wanted {
                return Ok(());
            }
            if let Some((gone, come)) = endpoints_only(&self.wanted, &wanted) {
                let mut gone = gone.into_iter();
                let gone = gone.try_for_each(|(vni, e)| open.remove(vni, e));
                let mut come = come.into_iter();
                let come = come.try_for_each(|(vni, e)| open.add(vni, e));
                if gone.and(come).is_ok() {
                    self.wanted = wanted;
                    return Ok(());
                }
            }
        }
        let open = match self.overlays.take() {
            Some(open) => open,
            None => Overlays::open(&Namespace::here()?)?,
        };
        let open = self.overlays.insert(open);
        self.wanted.clear();
        open.apply(&wanted)?;
        self.wanted = wanted;
        Ok(())
    }
}

/// Endpoints with the numbers of their networks.
type Endpoints<'a> = Vec<(u32, &'a Endpoint)>;

/// What is gone and what has come, if nothing but endpoints differs, and none of those that are gone
/// has something in common with one that is there: then the others need not be looked at.
fn endpoints_only<'a>(
    old: &'a [Overlay],
    new: &'a [Overlay],
) -> Option<(Endpoints<'a>, Endpoints<'a>)> {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    if old.len() != new.len() {
        return None;
    }
    for (old, new) in old.iter().zip(new) {
        if old.endpoints == new.endpoints && old == new {
            continue;
        }
        let same = Overlay {
            endpoints: old.endpoints.clone(),
            ..new.clone()
        };
        if same != *old {
            return None;
        }
        let shared = |one: &Endpoint, other: &Endpoint| {
            one.mac == other.mac || one.addresses.iter().any(|a| other.addresses.contains(a))
        };
        for lost in old.endpoints.iter().filter(|e| !new.endpoints.contains(e)) {
            if new.endpoints.iter().any(|e| shared(e, lost)) {
                return None;
            }
            gone.push((old.vni, lost));
        }
        let added = new.endpoints.iter().filter(|e| !old.endpoints.contains(e));
        come.extend(added.map(|e| (new.vni, e)));
    }
    Some((gone, come))
}

#[cfg(test)]
mod tests {
    use wharfie_core::network::bridge_name;

    use super::*;

    fn endpoint(number: u8, host: u8) -> Endpoint {
        Endpoint {
            mac: Mac([2, 0, 0, 0, 0, number]),
            addresses: vec![[10, 128, 0, number].into()],
            host: [192, 0, 2, host].into(),
        }
    }

    fn overlay(vni: u32, endpoints: &[Endpoint]) -> Overlay {
        Overlay {
            network: format!("n{vni}"),
            vni,
            bridge: bridge_name(vni),
            mtu: 1450,
            port: VXLAN_PORT,
            local: [192, 0, 2, 1].into(),
            endpoints: endpoints.to_vec(),
        }
    }

    #[test]
    fn only_the_endpoints_that_differ_are_touched() {
        let (a, b, c) = (endpoint(1, 2), endpoint(2, 3), endpoint(3, 3));
        let still = overlay(1, std::slice::from_ref(&a));
        let old = [still.clone(), overlay(2, &[a.clone(), b.clone()])];
        let new = [still.clone(), overlay(2, &[a.clone(), c.clone()])];
        let (gone, come) = endpoints_only(&old, &new).unwrap();
        assert_eq!((gone, come), (vec![(2, &b)], vec![(2, &c)]));
        assert_eq!(endpoints_only(&old, &old), Some((vec![], vec![])));
        // A device more or less, or another one.
        assert_eq!(endpoints_only(&old, &new[..1]), None);
        let mut other = new.clone();
        other[1].mtu = 1400;
        assert_eq!(endpoints_only(&old, &other), None);
        // Somebody moved to another host: what is his there must not be removed after it was set.
        let moved = [still, overlay(2, &[a, endpoint(2, 2)])];
        assert_eq!(endpoints_only(&old, &moved), None);
    }
}
