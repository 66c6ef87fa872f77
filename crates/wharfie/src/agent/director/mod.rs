//! The director: addresses of the surrounding network for services, and the zone that leads to them.

mod book;

pub(super) use book::{DirectorBook, is_of_director};
