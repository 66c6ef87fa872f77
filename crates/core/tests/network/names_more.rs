//! Names of several stacks, links, containers of no stack, and networks of one node.

use wharfie_core::State;
use wharfie_core::network::{Answer, Kind, Local, Networks};

use super::world::{Small, network, stack};

fn ok(addresses: &[&str]) -> Result<Vec<String>, Answer> {
    Ok(addresses.iter().map(|a| (*a).to_owned()).collect())
}

/// Two stacks on one network, each with a service `web`; a third with another.
fn shared() -> Small {
    let mut s = Small::nodes(&["h1", "h2"]);
    s.stacks
        .push(stack("blog", &[("web", &["=edge"]), ("app", &["own"])]));
    s.stacks.push(stack("shop", &[("web", &["=edge"])]));
    s.stacks.push(stack("mail", &[("smtp", &["=edge"])]));
    s.networks = Networks::from([
        ("edge".to_owned(), network("10.9.0.0/18", 9)),
        ("blog_own".to_owned(), network("10.8.0.0/18", 8)),
    ]);
    s.runs("h1", "blog/web/1", &[("edge", "10.9.0.2")]);
    s.runs("h2", "shop/web/1", &[("edge", "10.9.0.66")]);
    s.runs("h1", "mail/smtp/1", &[("edge", "10.9.0.3")]);
    s.runs("h2", "blog/app/1", &[("blog_own", "10.8.0.66")]);
    s
}

#[test]
fn the_own_stack_goes_first() {
    let s = shared();
    assert_eq!(s.finds("10.9.0.2", "web"), ok(&["10.9.0.2"]));
    assert_eq!(s.finds("10.9.0.2", "web.shop"), ok(&["10.9.0.66"]));
    // Who has none of its own finds those of both.
    assert_eq!(s.finds("10.9.0.3", "web"), ok(&["10.9.0.2", "10.9.0.66"]));
    assert_eq!(s.finds("10.9.0.3", "web.blog.internal"), ok(&["10.9.0.2"]));
    assert_eq!(s.finds("10.9.0.2", "smtp"), ok(&["10.9.0.3"]));
    // A service of the asker's own stack that it does not see is nobody else's to answer; one of
    // another stack may well be a name outside.
    assert_eq!(s.finds("10.9.0.2", "app"), Err(Answer::NoName));
    assert_eq!(s.finds("10.9.0.3", "app"), Err(Answer::Elsewhere));
    assert_eq!(s.finds("10.9.0.3", "app.blog"), Err(Answer::NoName));
    assert_eq!(s.finds("10.9.0.3", "www.app.blog"), Err(Answer::Elsewhere));
}

#[test]
fn links_are_names_for_one_service() {
    let mut s = shared();
    s.service("mail", "smtp").links = vec!["smtp:me".to_owned()];
    s.service("mail", "smtp").external_links = vec!["blog-web-1:Website".to_owned()];
    assert_eq!(s.finds("10.9.0.3", "me"), ok(&["10.9.0.3"]));
    assert_eq!(s.finds("10.9.0.3", "website"), ok(&["10.9.0.2"]));
    assert_eq!(s.finds("10.9.0.2", "website"), Err(Answer::Elsewhere));
}

#[test]
fn containers_of_no_stack_have_names_too() {
    let mut s = shared();
    let c = s.runs("h2", "probe", &[("edge", "10.9.0.70")]);
    c.id = "0123456789abcdef".to_owned();
    for name in ["probe", "probe.edge", "0123456789ab"] {
        assert_eq!(s.finds("10.9.0.2", name), ok(&["10.9.0.70"]), "{name}");
    }
    let found = s.ask("10.9.0.2", "70.0.9.10.in-addr.arpa", Kind::Ptr);
    assert!(format!("{found:?}").contains("probe.edge"), "{found:?}");
    s.service("shop", "web").hostname = "Front7".to_owned();
    assert_eq!(s.finds("10.9.0.2", "front7"), ok(&["10.9.0.66"]));
    // What `run` makes is not its service.
    let c = s.runs("h1", "shop/web/1", &[("edge", "10.9.0.9")]);
    (c.oneoff, c.name) = (true, "shop-web-run-1".to_owned());
    assert_eq!(s.finds("10.9.0.2", "web.shop"), ok(&["10.9.0.66"]));
    assert_eq!(s.finds("10.9.0.2", "shop-web-run-1"), ok(&["10.9.0.9"]));
    // It is of its stack when it asks.
    assert_eq!(s.finds("10.9.0.9", "web"), ok(&["10.9.0.66"]));
}

#[test]
fn a_network_of_one_node_is_not_the_one_of_another() {
    let mut s = shared();
    s.networks.remove("blog_own");
    s.runs("h1", "blog/app/2", &[("blog_own", "10.8.0.2")]);
    assert_eq!(s.finds("10.8.0.2", "app"), ok(&["10.8.0.2"]));
    assert_eq!(s.finds("10.8.0.2", "1.app"), Err(Answer::NoName));
    // Somebody who is not known yet is on it as well, if its subnet is known.
    assert!(s.catalog().asker("10.8.0.9".parse().unwrap()).is_none());
    let local = Local {
        subnets: vec!["10.8.0.0/24".parse().unwrap()],
        internal: true,
    };
    s.local.insert("blog_own".to_owned(), local);
    assert_eq!(s.finds("10.8.0.9", "app"), ok(&["10.8.0.2"]));
    assert_eq!(s.finds("10.8.0.2", "example.org"), Err(Answer::NoName));
}

#[test]
fn from_internal_networks_nothing_is_asked_outside() {
    let mut s = shared();
    s.networks.get_mut("edge").unwrap().internal = true;
    assert_eq!(s.finds("10.9.0.2", "example.org"), Err(Answer::NoName));
    assert_eq!(
        s.finds("10.9.0.2", "8.8.8.8.in-addr.arpa"),
        Err(Answer::NoName)
    );
    assert_eq!(s.finds("10.9.0.2", "web.shop"), ok(&["10.9.0.66"]));
    // A second network with a way out is enough.
    let c = &mut s.node("h1").containers[0];
    let at = c.networks["edge"];
    c.networks.insert("blog_own".to_owned(), at);
    assert_eq!(s.finds("10.9.0.2", "example.org"), Err(Answer::Elsewhere));
}

#[test]
fn an_address_that_two_are_to_have_is_the_one_that_runs() {
    let mut s = shared();
    let c = s.runs("h1", "shop/web/2", &[("edge", "10.9.0.2")]);
    c.state = State::Created;
    assert_eq!(s.finds("10.9.0.2", "web"), ok(&["10.9.0.2"]));
}

#[test]
fn a_service_without_tasks_is_still_a_name() {
    let mut s = shared();
    s.node("h2").containers.clear();
    assert_eq!(s.finds("10.9.0.2", "web.shop"), Err(Answer::Nothing));
    s.vip("edge", "shop", "web", "10.9.63.1");
    assert_eq!(s.finds("10.9.0.2", "web.shop"), ok(&["10.9.63.1"]));
    s.stacks.retain(|s| s.project.name != "shop");
    assert_eq!(s.finds("10.9.0.2", "web.shop"), Err(Answer::Elsewhere));
    assert_eq!(
        s.finds("10.9.0.2", "web.shop.internal"),
        Err(Answer::NoName)
    );
}
