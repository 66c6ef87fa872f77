//! Networks and volumes that no service uses. A project has them only if they were asked for
//! (`--all-resources`).

use std::collections::BTreeSet;

use wharfie_compose::model::Project;

use crate::{Operation, Plan, Seen};

/// Adds to a plan the making of what no service uses and is not there.
pub fn create(project: &Project, seen: &Seen, plan: &mut Plan) {
    let services = || project.services.values();
    let networks: BTreeSet<&String> = services().flat_map(|s| s.networks.keys()).collect();
    for (key, network) in &project.networks {
        if !(network.external
            || networks.contains(key)
            || seen.networks.contains_key(&network.name))
        {
            let operation = Operation::CreateNetwork {
                network: key.clone(),
                name: network.name.clone(),
            };
            plan.push(operation, Vec::new());
        }
    }
    let volumes: BTreeSet<&String> = services()
        .flat_map(|s| s.volumes.iter().map(|m| &m.source))
        .collect();
    for (key, volume) in &project.volumes {
        if !(volume.external || volumes.contains(key) || seen.volumes.contains_key(&volume.name)) {
            let operation = Operation::CreateVolume {
                volume: key.clone(),
                name: volume.name.clone(),
            };
            plan.push(operation, Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharfie_compose::model::{Network, Service, Volume};

    #[test]
    fn what_no_service_uses_is_made_once() {
        let mut project = Project::default();
        let mut service = Service::default();
        service.networks.insert("used".to_owned(), None);
        project.services.insert("web".to_owned(), service);
        for (name, external) in [("used", false), ("spare", false), ("theirs", true)] {
            let network = Network {
                name: format!("x_{name}"),
                external,
                ..Network::default()
            };
            project.networks.insert(name.to_owned(), network);
            let volume = Volume {
                name: format!("x_{name}"),
                external,
                ..Volume::default()
            };
            project.volumes.insert(name.to_owned(), volume);
        }
        let mut seen = Seen::default();
        seen.volumes
            .insert("x_used".to_owned(), crate::Volume::default());
        let mut plan = Plan::default();
        create(&project, &seen, &mut plan);
        let made: Vec<String> = plan.steps.iter().map(|s| s.operation.to_string()).collect();
        assert_eq!(made, ["create network x_spare", "create volume x_spare"]);

        seen.volumes
            .insert("x_spare".to_owned(), crate::Volume::default());
        seen.networks
            .insert("x_spare".to_owned(), crate::Network::default());
        let mut plan = Plan::default();
        create(&project, &seen, &mut plan);
        assert!(plan.is_empty());
    }
}
