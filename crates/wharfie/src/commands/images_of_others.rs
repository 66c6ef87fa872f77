//! What a node lacks and another has need not come from a registry.

use futures_util::future::join_all;
use wharfie_core::reconcile::UpOptions;
use wharfie_core::{Operation, Plan};

use super::image::{has, on, take};
use crate::api::{FetchImage, Node};
use crate::control::{Control, Seen};
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::warn;

/// Has the stack's home take the images that a plan would pull, where other nodes have them; whether
/// any were taken. `pull_policy: always` means the registry's.
pub(super) async fn take_from_others(
    control: &Control,
    seen: &Seen,
    options: &UpOptions,
    plan: &Plan,
    progress: &Progress,
) -> Result<bool, Failure> {
    let nodes = control.nodes();
    let Some(home) = nodes.iter().find(|n| control.is_home(n)) else {
        return Ok(false);
    };
    if options.pull.as_deref() == Some("always") {
        return Ok(false);
    }
    let wanted: Vec<(&str, Vec<String>)> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.operation {
            // What is here, and is pulled all the same, is to be the registry's.
            Operation::PullImage { image, .. } if !seen.images.contains_key(image) => {
                Some(image.as_str())
            }
            _ => None,
        })
        .map(|image| (image, owners(nodes, home, image)))
        .filter(|(_, from)| !from.is_empty())
        .collect();
    let path = format!("/v1/images/fetch{}", on(home));
    let work = join_all(wanted.into_iter().map(|(image, from)| {
        let path = path.as_str();
        async move {
            let request = FetchImage {
                image: image.to_owned(),
                from,
            };
            let subject = format!("Image {image}");
            (
                image,
                take(control.agent(), path, &request, &subject, progress).await,
            )
        }
    }));
    let mut any = false;
    for (image, took) in progress.during(work).await {
        match took {
            Ok(()) => any = true,
            // There may be a registry that has it.
            Err(failure) => warn(&format!(
                "image {image} cannot be taken from other nodes: {}",
                failure.text()
            )),
        }
    }
    Ok(any)
}

/// Nodes that have an image, but for the one that is to get it.
fn owners(nodes: &[Node], home: &Node, image: &str) -> Vec<String> {
    let others = nodes.iter().filter(|n| n.id != home.id && n.may_answer());
    let having = others.filter(|n| has(n, image));
    having.map(|n| n.name.clone()).collect()
}
