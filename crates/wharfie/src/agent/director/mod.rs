//! The director: addresses of the surrounding network for services, and the zone that leads to them.

mod allot;
mod around;
mod book;
mod decide;
mod ears;
mod held;
mod page;
mod plane;
mod routes;
mod show;
mod wanted;
mod zone;

pub(super) use around::Around;
pub(super) use book::{DirectorBook, is_of_director};
pub(super) use plane::{keep, leave};
pub(super) use routes::routes as api;
pub(super) use zone::{Answering, api as dns_api, keep as keep_zone};
