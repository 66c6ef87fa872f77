//! Numbers that only grow: what a server did since it was made.

/// Makes a structure of counters, each with its name for a listing.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the server did since it was made.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[$doc])* pub $name: ::std::sync::atomic::AtomicU64,)*
        }

        impl Metrics {
            /// All of them by name, for a listing.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                let read = |n: &::std::sync::atomic::AtomicU64| {
                    n.load(::std::sync::atomic::Ordering::Relaxed)
                };
                vec![$((stringify!($name), read(&self.$name)),)*]
            }

            pub(crate) fn add(counter: &::std::sync::atomic::AtomicU64) {
                counter.fetch_add(1, ::std::sync::atomic::Ordering::Relaxed);
            }
        }
    };
}
pub(crate) use counters;
