//! The director: addresses of the surrounding network for services, and the zone that leads to them.

mod allot;
mod book;
mod page;
mod plane;
mod routes;
mod show;
mod zone;

pub(super) use book::{DirectorBook, is_of_director};
pub(super) use plane::{Around, keep};
pub(super) use routes::routes as api;
pub(super) use zone::{Answering, api as dns_api, keep as keep_zone};
