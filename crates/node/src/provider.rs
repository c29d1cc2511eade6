//! A token provider written in JavaScript.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use feishu_feed_card::{BoxError, ProvidedToken, Providing, TokenProvider, TokenReason};

use crate::environment::Queue;
use crate::events::current_context;

/// Asks the facade, on the thread of the environment that the client was made in.
pub(crate) struct Asked {
    pub(crate) queue: Arc<Queue>,
    pub(crate) client: i64,
}

impl TokenProvider for Asked {
    fn tenant_access_token(&self, reason: TokenReason<'_>) -> Providing {
        let refused = reason.refused_token().map(str::to_owned);
        let wanted_by = current_context().unwrap_or(self.client);
        let (question, told) = self.queue.ask(wanted_by, refused);
        Box::pin(async move {
            let answer = told
                .await
                .map_err(|_| BoxError::from("its thread ended before it answered"))?;
            let (token, expires_in_ms) = answer.map_err(|why| ProviderFailed { question, why })?;
            let token = ProvidedToken::new(token);
            Ok(match expires_in_ms {
                // The facade lets only positive, finite numbers through.
                Some(ms) => {
                    token.expires_in(Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(Duration::MAX))
                }
                None => token,
            })
        })
    }
}

/// A token provider threw, or gave what is no token.
#[derive(Debug)]
pub(crate) struct ProviderFailed {
    pub(crate) question: i64,
    why: String,
}

impl fmt::Display for ProviderFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for ProviderFailed {}
