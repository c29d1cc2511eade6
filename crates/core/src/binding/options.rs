//! The table of a client's options, for the bindings. A binding converts values of its language by their kind. Its
//! typed signatures repeat the names, and a test compares them with this table.

use std::path::PathBuf;
use std::time::Duration;

use crate::options::ClientBuilder;

/// An option of a client.
#[derive(Clone, Copy, Debug)]
pub struct ClientOption {
    /// The name, as in Rust and Python.
    pub name: &'static str,
    /// The type of its value, and how the builder takes it.
    pub kind: Kind,
}

/// The type of an option's value, and how the builder takes it.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the type documents the kinds without a doc")]
pub enum Kind {
    Text(Set<String>),
    /// A text that errors do not show.
    Secret(Set<String>),
    Flag(Set<bool>),
    /// The path of a file.
    Path(Set<PathBuf>),
    /// A positive time.
    Duration(Set<Duration>),
    DurationOrZero(Set<Duration>),
    Count(Set<u32>),
    /// The URL of a proxy, which is a secret, or false for [`ClientBuilder::no_proxy`].
    Proxy,
    /// Calls per second and per minute, or `None` for no pacing.
    RateLimit,
    /// Another client's quota.
    Quota,
    /// A function that returns a token.
    TokenProvider,
}

/// Sets an option of the builder.
pub type Set<T> = fn(ClientBuilder, T) -> ClientBuilder;

impl ClientOption {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind }
    }

    /// Finds an option by its name.
    pub fn named(name: &str) -> Option<Self> {
        OPTIONS.into_iter().find(|option| option.name == name)
    }
}

/// A row for the builder's method of the same name.
macro_rules! row {
    ($name:ident, $kind:ident) => {
        ClientOption::new(stringify!($name), Kind::$kind(ClientBuilder::$name))
    };
}

/// All options, in the order in which errors list them.
pub const OPTIONS: [ClientOption; 19] = [
    row!(app_id, Text),
    row!(app_secret, Secret),
    row!(tenant_access_token, Secret),
    ClientOption::new("token_provider", Kind::TokenProvider),
    row!(tenant_key, Text),
    row!(app_ticket, Secret),
    row!(base_url, Text),
    row!(allow_http, Flag),
    ClientOption::new("proxy", Kind::Proxy),
    row!(ca_certs, Path),
    row!(user_agent, Text),
    row!(timeout, Duration),
    row!(connect_timeout, Duration),
    row!(attempt_timeout, Duration),
    row!(max_retries, Count),
    ClientOption::new("rate_limit", Kind::RateLimit),
    ClientOption::new("quota", Kind::Quota),
    row!(late_arrival, DurationOrZero),
    ClientOption::new(
        "max_users_per_request",
        Kind::Count(|builder, most| builder.max_users_per_request(most as usize)),
    ),
];

#[cfg(test)]
mod tests {
    use super::OPTIONS;

    /// Methods of the builder that are not options of the bindings.
    const OF_RUST: [&str; 7] = [
        "app",
        "build",
        "extra_ca_certs",
        "from_env",
        "http_client",
        "no_proxy",
        "transport",
    ];

    #[test]
    fn every_option_of_the_builder_is_in_the_table() {
        let (builder, _) = include_str!("../options.rs")
            .split_once("\nstruct Credentials")
            .unwrap();
        let mut methods: Vec<&str> = builder
            .split("\n    pub fn ")
            .skip(1)
            .filter_map(|method| Some(method.split_once('(')?.0))
            .filter(|name| !OF_RUST.contains(name))
            .collect();
        let mut names: Vec<&str> = OPTIONS.iter().map(|option| option.name).collect();
        methods.sort_unstable();
        names.sort_unstable();
        assert_eq!(methods, names);
    }
}
