//! The platform's protocol: URLs, requests, answers and codes.

pub(crate) mod answer;
pub(crate) mod base_url;
pub(crate) mod codes;
pub(crate) mod no_answer;
pub(crate) mod request;
